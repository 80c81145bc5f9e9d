"""From a mel spectrogram to a waveform: magnitude start, phase start, iterations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melmill.stages.invert.priors import AUTO, NONE, fitting, shipped_prior
from melmill.stages.numeric.checks import MAX_N_ITER, as_array, check_choice, check_int, shown
from melmill.stages.numeric.errors import ContractError, ParameterError, Unusable
from melmill.stages.numeric.mel import check_range, range_found, to_linear, unframed
from melmill.stages.numeric.mels.wave import prepared, restored
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior, misfit
from melmill.stages.numeric.solver import MagnitudeStart, Problem, Recipe, solver_class

Device = Literal["cpu", "cuda"]
DEVICES: tuple[Device, ...] = ("cpu", "cuda")
# What an inversion says that it started from, where a prior guessed the magnitude.
PRIOR = "prior"

_HIGHEST_SAMPLE = 2.0**31  # no PCM has larger samples


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """What an inversion gave.

    Parameters
    ----------
    y : ndarray of float32 or float64, shape (n_samples,)
        The signal whose STFT is the solver's last consistent spectrum Z; for ADMM ``iSTFT(X - V)``.
    trace : mapping of str to ndarray, or None
        Columns ``iteration`` (int32, from 0, the start) and ``scm_db`` (float32): eq. 21 on the
        signal so far, NaN for a mel of silence.
    start : str
        What the starting magnitude came from: ``"prior"``, ``"nnls"`` or ``"pinv"``.
    """

    y: NDArray[Any]
    trace: Mapping[str, NDArray[Any]] | None
    start: str = "nnls"


def inverted(
    M: ArrayLike,
    spec: MelSpec,
    *,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | ArrayLike = "pghi",
    magnitude: MagnitudeStart = "nnls",
    length: int | None = None,
    seed: int = 0,
    device: Device = "cpu",
    prior: Prior | Literal["auto", "none"] | None = None,
    **parameters: Any,  # noqa: ANN401 - each solver has its own
) -> Inversion:
    """Return a waveform whose mel spectrogram is near M, and what its inversion started from.

    All that the spec does to a mel is undone first, and its gains and pre-emphasis are undone on the
    waveform. `MelSpec.lost` says what can't be had back, such as a level that was set.

    Parameters
    ----------
    M : array_like of float, shape (n_mels, n_frames)
        Mel as `spec` makes it: an array, lists or a tensor. Logs and the like are undone first.
    spec : MelSpec
    method : str
        Name of a solver. ``"auto"`` is the best for its time, at present ADMM with a swinging
        penalty. ``"pghi"`` is the integrated phase alone, without iterations.
    n_iter : int or None
        Number of iterations. None: 100, or what the `quality` of ``"auto"`` costs.
    start : {"pghi", "random", "zero"} or array_like of float, shape (n_samples,)
        Starting phase, or a waveform to take it from.
    magnitude : {"nnls", "pinv"}
        Starting magnitude: non-negative least squares, or the clipped pseudo-inverse.
    length : int or None
        Samples of the result. None: the fewest that have M's frames.
    seed : int
        Seed of the random phases.
    device : {"cpu", "cuda"}
        Where it is computed. The results are the same but for rounding.
    prior : Prior, "auto", "none" or None
        Network that guesses the starting magnitude, in place of `magnitude`. ``"auto"`` takes the
        one that comes with melmill and fits `spec`, where it would not lose. None: ``"auto"`` for
        the method ``"auto"``, and ``"none"`` for all others.
    **parameters : float or str
        The solver's own, see `melmill.stages.numeric.solvers`: `momentum` (griffin_lim), `rho`
        (admm_gla, admm), `lam` (admm, ipalm), `alpha` (ipalm), `beta` (raar), `schedule` (admm),
        `quality` (auto: ``"draft"``, ``"good"`` or ``"best"``).

    Returns
    -------
    Inversion

    Raises
    ------
    ParameterError
        A parameter is unknown, has a wrong type or lies outside its range.
    ContractError
        M is no mel of `spec`, or can't be undone. Or `prior` was trained with another mel.
    Unusable
        A value is not finite, `length` does not give M's frames, or the range of M's values shows
        that it was made otherwise than by `spec`.
    DeviceMissing
        `device` is ``"cuda"`` and the process has none.
    """
    check_choice("device", device, DEVICES)
    given = start if isinstance(start, str) else as_array("start", start)
    recipe = _recipe(method, spec, n_iter, given, magnitude, seed, parameters, prior)
    array = as_array("M", M)
    problem = pose(array, spec, recipe, _checked_length(length))
    check_range(array, spec)
    return check_result(solve_all([problem], spec, device)[0], array, spec)


def invert_batch(
    mels: Sequence[ArrayLike] | NDArray[Any],
    spec: MelSpec,
    method: str = "auto",
    n_iter: int | None = None,
    start: str | Sequence[ArrayLike] = "pghi",
    magnitude: MagnitudeStart = "nnls",
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    device: Device = "cpu",
    prior: Prior | Literal["auto", "none"] | None = None,
    **parameters: Any,  # noqa: ANN401 - each solver has its own
) -> list[NDArray[np.float32]]:
    """Return a waveform for each of several mels: those of `inverted` one by one, but for rounding.

    Parameters
    ----------
    mels : sequence of array_like, shape (n_mels, n_frames), or array, shape (B, n_mels, n_frames)
        Of a padded array with `lengths`, frames past an utterance's own are ignored.
    start : {"pghi", "random", "zero"} or sequence of array_like of float, shape (n_samples,)
        Starting phase, or a waveform for each mel to take it from.
    lengths : sequence of int or None
        Samples of each result. None: the fewest that have its mel's frames.
    seed : int
        Seed of the random phases, the same for every utterance.
    device : {"cpu", "cuda"}
        ``"cuda"`` fills a GPU with padded batches; ``"cpu"`` takes one mel after the other.
    spec, method, n_iter, magnitude, prior, **parameters
        As of `inverted`.

    Returns
    -------
    list of ndarray of float32, shape (n_samples,)

    Raises
    ------
    ParameterError, ContractError, Unusable, DeviceMissing
        As of `inverted`. Also where there are more or fewer `lengths` or starts than mels.
    """
    check_choice("device", device, DEVICES)
    if not hasattr(mels, "__len__") or isinstance(mels, str):
        raise ParameterError("mels", f"must be a sequence of mels, got {shown(mels)}")
    padded = isinstance(mels, np.ndarray) or hasattr(mels, "detach")
    arrays = [as_array(f"mels[{i}]", M) for i, M in enumerate(mels)]
    for name, given in (("lengths", lengths), ("start", None if isinstance(start, str) else start)):
        if given is None:
            continue
        n_given = len(given) if hasattr(given, "__len__") else shown(given)
        if n_given != len(arrays):
            raise ParameterError(name, f"must have one entry for each of {len(arrays)} mels, got {n_given}")
    if isinstance(prior, Prior):
        check_prior(prior.name, prior.spec, spec)
    word = start if isinstance(start, str) else "zero"
    same = _recipe(method, spec, n_iter, word, magnitude, seed, parameters, prior)
    problems = []
    for i, M in enumerate(arrays):
        recipe = same if isinstance(start, str) else replace(same, start=as_array(f"start[{i}]", start[i]))
        length = None if lengths is None else _checked_length(lengths[i], f"lengths[{i}]")
        with _naming(i):
            kept = M[:, : spec.n_frames(length)] if length is not None and padded and M.ndim == 2 else M
            problems.append(pose(kept, spec, recipe, length))
            check_range(kept, spec)
    waves = []
    for i, (M, result) in enumerate(zip(arrays, solve_all(problems, spec, device), strict=True)):
        with _naming(i):
            waves.append(check_result(result, M, spec).y)
    return waves


@contextmanager
def _naming(i: int) -> Iterator[None]:
    """Name a mel of several in what is raised on its account."""
    try:
        yield
    except ParameterError as error:
        raise ParameterError(f"{error.field}[{i}]", error.args[1]) from error
    except (ContractError, Unusable) as error:
        raise type(error)(f"mels[{i}]: {error}") from error


def pose(M: NDArray[Any], spec: MelSpec, recipe: Recipe, length: int | None = None) -> Problem:
    """Return the problem of inverting a mel ``(n_mels, n_frames)`` by a recipe.

    Raises
    ------
    ContractError, Unusable
        It can't be inverted so, see `inverted`.
    """
    if recipe.prior is not None:
        check_prior(recipe.prior.name, recipe.prior.spec, spec)
    spec.check_invertible()
    M = np.asarray(M)
    n_given = M.shape[1] if M.ndim == 2 else 0
    linear = to_linear(unframed(M, spec), spec)
    n_frames = linear.shape[1]
    if n_frames == 0:
        raise Unusable("the mel has no frames: the recording is shorter than a window")
    if length is None:
        length = shortest_length(spec, n_frames)
    elif spec.n_frames(length) != n_given:
        raise Unusable(
            f"the mel has {n_given} frames but {length} samples have {spec.n_frames(length)} at "
            f"hop_length={spec.hop_length}, center={spec.center!r}: pass the length of the waveform it was made from"
        )
    if not isinstance(recipe.start, str):
        start = _fitted(recipe.start, length, spec.hop_length)
        kept = [step for step in spec.wave if step.is_filter or step.step == "gain"]
        recipe = replace(recipe, start=prepared(start, kept, spec.sr).astype(start.dtype) if kept else start)
    return Problem(linear=_whole(linear, spec.stft.n_frames(length)), recipe=recipe, length=length)


def _whole(linear: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Return a linear mel of as many frames as the transform has: a last one that is lacking repeats."""
    lacking = n_frames - linear.shape[1]
    return linear if lacking == 0 else np.pad(linear[:, :n_frames], ((0, 0), (0, max(0, lacking))), mode="edge")


def check_prior(name: str, needed: MelSpec, spec: MelSpec) -> None:
    """Raise ContractError if a prior for mels of the spec `needed` can't serve those of `spec`."""
    reason = misfit(needed, spec)
    if reason is not None:
        raise ContractError(
            f"the prior {name!r} was trained with another mel: {reason}. Leave prior out, or train one with this mel"
        )


def solve(M: NDArray[Any], spec: MelSpec, recipe: Recipe, length: int | None = None) -> Inversion:
    """Invert a mel ``(n_mels, n_frames)`` by a recipe; raise what `inverted` does."""
    return check_result(solve_all([pose(M, spec, recipe, length)], spec)[0], M, spec)


def solve_all(problems: Sequence[Problem], spec: MelSpec, device: Device = "cpu") -> list[Inversion]:
    """Return the inversion of each problem; their recipes differ in start and seed alone.

    Raises
    ------
    DeviceMissing
        The process lacks the device.
    """
    if device == "cpu":
        from melmill.stages.numeric.compiled.inverter import invert_linear  # here, as it imports numba

        answers = [invert_linear(p.linear, spec, p.recipe, p.length) for p in problems]
    else:
        from melmill.stages.numeric.batched.inverter import invert_linears  # here, as it imports torch

        answers = invert_linears(problems, spec, device)
    return [
        Inversion(
            y=restored(y, spec.wave),
            trace=_trace(misfits, p.linear) if p.recipe.trace else None,
            start=PRIOR if guided else p.recipe.magnitude,
        )
        for p, (y, misfits, guided) in zip(problems, answers, strict=True)
    ]


def check_result(result: Inversion, M: NDArray[Any], spec: MelSpec) -> Inversion:
    """Return the inversion of a mel ``(n_mels, n_frames)``, unless the mel is too loud for it.

    Raises
    ------
    Unusable
        A sample is not finite or beyond 2^31; the message has the range of the mel's values.
    """
    n_bad = result.y.size - int(np.count_nonzero(np.abs(result.y) <= _HIGHEST_SAMPLE))
    if n_bad:
        raise Unusable(
            f"the mel is too loud to invert: {n_bad:,} of {result.y.size:,} samples overflow; {range_found(M, spec)}"
        )
    return result


def shortest_length(spec: MelSpec, n_frames: int) -> int:
    """Return the fewest samples that have `n_frames` frames, at least 1.

    >>> shortest_length(MelSpec(hop_length=256), 63), shortest_length(MelSpec(hop_length=256, frames="floor"), 63)
    (15872, 16128)
    """
    if spec.frames == "floor":
        least = n_frames * spec.hop_length
    elif spec.frames == "round":
        least = n_frames * spec.hop_length - spec.hop_length // 2
    else:
        least = 0
    return max(
        1, least, (n_frames - 1 if spec.frames == "all" else 0) * spec.hop_length + spec.n_fft - 2 * spec.stft.pad
    )


def _checked_length(length: int | None, field: str = "length") -> int | None:
    if length is not None:
        check_int(field, length, at_least=1)
    return length


def default_prior(method: str) -> str:
    """Return whether a method takes a prior where none is named: ``"auto"`` or ``"none"``.

    >>> default_prior("auto"), default_prior("admm")
    ('auto', 'none')
    """
    return solver_class(method).default_prior


def _recipe(
    method: str,
    spec: MelSpec,
    n_iter: int | None,
    start: str | NDArray[Any],
    magnitude: MagnitudeStart,
    seed: int,
    parameters: Mapping[str, Any],
    prior: Prior | str | None,
) -> Recipe:
    """Return the recipe that the arguments of `inverted` say."""
    described = solver_class(method)
    known = [field.name for field in fields(described)]
    for name in parameters:
        if name not in known:
            what = f"which has {', '.join(known)}" if known else "which has none"
            raise ParameterError(name, f"is no parameter of {method!r}, {what}")
    if n_iter is not None:
        check_int("n_iter", n_iter, at_least=0, at_most=MAX_N_ITER)
    check_int("seed", seed, at_least=0)
    wanted = described.default_prior if prior is None else prior
    chosen = _named(wanted, spec) if isinstance(wanted, str) else wanted
    solver, guided = described(**parameters), chosen is not None
    iterating, own_n_iter = solver.resolved(n_iter, guided=guided)
    return Recipe(
        method=iterating,
        n_iter=own_n_iter,
        start=start,
        magnitude=magnitude,
        prior=chosen,
        fallback_n_iter=solver.resolved(n_iter)[1] if guided and wanted == AUTO else None,
        seed=seed,
    )


def _named(word: str, spec: MelSpec) -> Prior | None:
    """Return the prior that ``"auto"`` or ``"none"`` means for mels of a spec."""
    check_choice("prior", word, (AUTO, NONE))
    name = fitting(spec).name if word == AUTO else None
    return None if name is None else shipped_prior(name)


def _fitted(y: NDArray[Any], length: int, hop_length: int) -> NDArray[Any]:
    """Return a starting waveform, cut or filled up with zeros by a hop at most."""
    if y.ndim != 1:
        raise ParameterError("start", f"must be a waveform (n_samples,), got shape {y.shape!r}")
    if abs(y.size - length) > hop_length:
        raise Unusable(
            f"the starting waveform has {y.size} samples, the result {length}: "
            f"they may differ by a hop ({hop_length}) at most"
        )
    if not np.isfinite(y).all():
        raise Unusable(f"{int((~np.isfinite(y)).sum())} samples of the starting waveform are not finite")
    return np.pad(y[:length], (0, max(0, length - y.size)))


def _trace(misfits: Sequence[float], linear: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    energy = float(np.sum(np.square(linear), dtype=np.float64))
    with np.errstate(divide="ignore"):
        scm_db = 10 * np.log10(np.array(misfits) / energy) if energy else np.full(len(misfits), np.nan)
    return {"iteration": np.arange(len(misfits), dtype=np.int32), "scm_db": scm_db.astype(np.float32)}
