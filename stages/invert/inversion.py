"""From a mel spectrogram to a waveform: magnitude start, phase start, iterations."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric import solvers
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.mel import to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.recipe import MagnitudeStart, Problem, Recipe

METHODS: Mapping[str, type[Any]] = {
    "admm": solvers.Admm,
    "admm_gla": solvers.AdmmGla,
    "griffin_lim": solvers.GriffinLim,
    "ipalm": solvers.Ipalm,
    "raar": solvers.Raar,
}

_PARAMETERS: Mapping[str, Collection[str]] = {
    "auto": ("quality",),
    **{name: tuple(method.__dataclass_fields__) for name, method in METHODS.items()},
    "pghi": (),
}

_N_ITER = 100


Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """What an inversion gave.

    Parameters
    ----------
    y : ndarray of float32 or float64, shape (n_samples,)
        The signal whose STFT is the method's last consistent spectrum Z; for ADMM ``iSTFT(X - V)``.
    trace : mapping of str to ndarray, or None
        Columns ``iteration`` (int32, from 0, the start) and ``scm_db`` (float32, eq. 21 on the signal so far; NaN for a
        mel of silence).
    """

    y: NDArray[Any]
    trace: Mapping[str, NDArray[Any]] | None


def invert(
    M: NDArray[Any],
    spec: MelSpec,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | NDArray[Any] = "pghi",
    magnitude: MagnitudeStart = "nnls",
    length: int | None = None,
    seed: int = 0,
    **parameters: Any,  # noqa: ANN401 - each method has its own
) -> NDArray[np.float32]:
    """Return a waveform whose mel spectrogram is near M.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Mel as made by `spec`; logs and the like are undone first.
    spec : MelSpec
    method : {"auto", "admm", "admm_gla", "griffin_lim", "ipalm", "raar", "pghi"}
        ``"auto"`` is the best for its time, at present ADMM with a swinging penalty; ``"pghi"`` the integrated phase
        alone, with no iterations.
    n_iter : int, optional
        Number of iterations; by default 100, of ``"auto"`` what its `quality` costs.
    start : {"pghi", "random", "zero"} or ndarray of float, shape (n_samples,)
        Starting phase, or a waveform to take it from.
    magnitude : {"nnls", "pinv"}
        Starting magnitude: non-negative least squares, or the clipped pseudo-inverse.
    length : int, optional
        Samples of the result; by default the fewest that give M's frames.
    seed : int
        Of the random phases.
    **parameters : float or str
        The method's own: `momentum` (griffin_lim), `rho` (admm_gla, admm), `lam` (admm, ipalm), `alpha` (ipalm),
        `beta` (raar), `schedule` (admm),
        `quality` (auto: ``"draft"``, ``"good"`` or ``"best"``, 20, 50 or 200 iterations).

    Returns
    -------
    ndarray of float32, shape (n_samples,)

    Raises
    ------
    ParameterError
        A parameter is unknown or out of its range.
    ContractError
        M is no mel of `spec`, or can't be undone.
    Unusable
        A value is not finite, or `length` does not give M's frames.
    """
    return solve(M, spec, _recipe(method, n_iter, start, magnitude, seed, parameters), length).y


def invert_batch(
    mels: Sequence[NDArray[Any]] | NDArray[Any],
    spec: MelSpec,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | Sequence[NDArray[Any]] = "pghi",
    magnitude: MagnitudeStart = "nnls",
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    device: Device = "cpu",
    **parameters: Any,  # noqa: ANN401 - each method has its own
) -> list[NDArray[np.float32]]:
    """Return a waveform for each of several mels, as `invert` does one by one, but for rounding.

    Parameters
    ----------
    mels : sequence of ndarray, shape (n_mels, n_frames), or ndarray, shape (n_utterances, n_mels, n_frames)
        Of a padded array with `lengths`, the frames past an utterance's own are ignored, whatever they hold.
    start : {"pghi", "random", "zero"} or sequence of ndarray of float, shape (n_samples,)
        Starting phase, or waveforms to take it from.
    lengths : sequence of int, optional
        Samples of each result; by default the fewest that give its mel's frames.
    seed : int
        Of the random phases, the same for every utterance.
    device : {"cpu", "cuda"}
        ``"cuda"`` fills a GPU with padded batches; ``"cpu"`` takes one mel after the other, as `invert`.
    spec, method, n_iter, magnitude, **parameters
        As of `invert`.

    Returns
    -------
    list of ndarray of float32, shape (n_samples,)

    Raises
    ------
    ParameterError, ContractError, Unusable
        As of `invert`; or there are more or fewer `lengths` or starts than mels.
    DeviceMissing
        `device` is ``"cuda"`` and there is none.
    """
    if device not in DEVICES:
        raise ParameterError("device", f"must be one of {', '.join(DEVICES)}, got {device!r}")
    starts = [start] * len(mels) if isinstance(start, str) else start
    for name, given in (("lengths", lengths), ("start", starts)):
        if given is not None and len(given) != len(mels):
            raise ParameterError(name, f"must have one entry for each of {len(mels)} mels, got {len(given)}")
    problems = []
    for i, M in enumerate(mels):
        recipe = _recipe(method, n_iter, starts[i], magnitude, seed, parameters)
        length = None if lengths is None else lengths[i]
        if length is not None and isinstance(mels, np.ndarray):
            M = M[:, : spec.n_frames(length)]
        problems.append(pose(M, spec, recipe, length))
    return [result.y for result in solve_all(problems, spec, device)]


def pose(M: NDArray[Any], spec: MelSpec, recipe: Recipe, length: int | None = None) -> Problem:
    """Check that a mel ``(n_mels, n_frames)`` can be inverted by a recipe; see `invert` for the errors."""
    length = shortest_length(spec, M.shape[-1]) if length is None else length
    linear = to_linear(M, spec)
    if M.shape[1] == 0:
        raise Unusable("the mel has no frames: the recording is shorter than a window")
    if spec.n_frames(length) != M.shape[1]:
        raise Unusable(
            f"the mel has {M.shape[1]} frames but {length} samples have {spec.n_frames(length)} at "
            f"hop_length={spec.hop_length}, center={spec.center!r}: pass the length of the waveform it was made from"
        )
    if not isinstance(recipe.start, str):
        recipe = replace(recipe, start=_fitted(recipe.start, length, spec.hop_length))
    return Problem(linear=linear, recipe=recipe, length=length)


def solve(M: NDArray[Any], spec: MelSpec, recipe: Recipe, length: int | None = None) -> Inversion:
    """Invert one mel ``(n_mels, n_frames)`` by a recipe; see `invert` for the errors."""
    return solve_all([pose(M, spec, recipe, length)], spec)[0]


def solve_all(problems: Sequence[Problem], spec: MelSpec, device: Device = "cpu") -> list[Inversion]:
    """Invert mels by recipes that differ in start and seed alone; raise DeviceMissing where there is no such device."""
    if device == "cpu":
        from melmill.stages.numeric.compiled.inverter import invert_linear  # here, as it imports numba

        answers = [invert_linear(p.linear, spec, p.recipe, p.length) for p in problems]
    else:
        from melmill.stages.numeric.batched.inverter import invert_linears  # here, as it imports torch

        answers = invert_linears(problems, spec, device)
    return [
        Inversion(y=y, trace=_trace(misfits, p.linear) if p.recipe.trace else None)
        for p, (y, misfits) in zip(problems, answers, strict=True)
    ]


def shortest_length(spec: MelSpec, n_frames: int) -> int:
    """Return the fewest samples that have `n_frames` frames, at least 1.

    >>> shortest_length(MelSpec(hop_length=256), 63)
    15872
    """
    return max(1, (n_frames - 1) * spec.hop_length + spec.n_fft - 2 * spec.stft.pad)


def _recipe(
    method: str,
    n_iter: int | None,
    start: str | NDArray[Any],
    magnitude: MagnitudeStart,
    seed: int,
    parameters: Mapping[str, Any],
) -> Recipe:
    solver, default = _solver(method, parameters)
    n_iter = default if n_iter is None or solver is None else n_iter
    return Recipe(method=solver, n_iter=n_iter, start=start, magnitude=magnitude, seed=seed)


def _fitted(y: NDArray[Any], length: int, hop_length: int) -> NDArray[Any]:
    """Return a starting waveform cut or zero-filled by a hop at most to the result's length."""
    if abs(y.size - length) > hop_length:
        raise Unusable(
            f"the starting waveform has {y.size} samples, the result {length}: "
            f"they may differ by a hop ({hop_length}) at most"
        )
    if not np.isfinite(y).all():
        raise Unusable(f"{int((~np.isfinite(y)).sum())} samples of the starting waveform are not finite")
    return np.pad(y[:length], (0, max(0, length - y.size)))


def _solver(method: str, parameters: Mapping[str, Any]) -> tuple[solvers.Method | None, int]:
    """Return a method, None for PGHI alone, and its default number of iterations."""
    if method not in _PARAMETERS:
        near = difflib.get_close_matches(method, _PARAMETERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParameterError("method", f"must be one of {', '.join(_PARAMETERS)}, got {method!r}{hint}")
    known = _PARAMETERS[method]
    for name in parameters:
        if name not in known:
            what = f"which has {', '.join(known)}" if known else "which has none"
            raise ParameterError(name, f"is no parameter of {method!r}, {what}")
    if method == "pghi":
        return None, 0
    if method == "auto":
        return solvers.auto(**parameters)
    solver: solvers.Method = METHODS[method](**parameters)
    return solver, _N_ITER


def _trace(misfits: Sequence[float], linear: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    energy = float(np.sum(np.square(linear), dtype=np.float64))
    with np.errstate(divide="ignore"):
        scm_db = 10 * np.log10(np.array(misfits) / energy) if energy else np.full(len(misfits), np.nan)
    return {"iteration": np.arange(len(misfits), dtype=np.int32), "scm_db": scm_db.astype(np.float32)}
