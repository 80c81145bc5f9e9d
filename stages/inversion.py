"""From a mel spectrogram to a waveform: magnitude start, phase start, iterations."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp import solvers
from melmill.stages.dsp.magnitude import MagnitudeStart, estimate_magnitude
from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.dsp.phase import START_WORDS, Seed, pghi, random_phase, signal_phase, zero_phase
from melmill.stages.dsp.projection import Projection
from melmill.stages.dsp.solvers.method import Bank, Method, bank_of, rows
from melmill.stages.dsp.undo import to_linear
from melmill.stages.errors import ParameterError, Unusable

METHODS: Mapping[str, type[Any]] = {
    "admm": solvers.Admm,
    "admm_gla": solvers.AdmmGla,
    "griffin_lim": solvers.GriffinLim,
    "ipalm": solvers.Ipalm,
    "raar": solvers.Raar,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Say how a mel is inverted, apart from the mel.

    Parameters
    ----------
    method : Method or None
        None keeps the starting phase: no iterations.
    n_iter : int
        Number of iterations, at least 0. The projection of the start is iteration 0.
    start : {"random", "zero", "pghi"} or ndarray (n_samples,)
        Starting phase: a rule, or that of a waveform.
    magnitude : {"nnls", "pinv"}
        Starting magnitude.
    seed : int or sequence of int
        Of the random phases.
    trace : bool
        Measure every iteration.
    """

    method: Method | None
    n_iter: int = 100
    start: str | NDArray[Any] = "pghi"
    magnitude: MagnitudeStart = "nnls"
    seed: Seed = 0
    trace: bool = False

    def __post_init__(self) -> None:
        """Check the parameters; the method has checked its own."""
        if self.n_iter < 0:
            raise ParameterError("n_iter", f"must not be negative, got {self.n_iter!r}")
        if isinstance(self.start, str) and self.start not in START_WORDS:
            raise ParameterError("start", f"must be one of {', '.join(START_WORDS)} or a waveform, got {self.start!r}")
        if self.magnitude not in ("nnls", "pinv"):
            raise ParameterError("magnitude", f"must be 'nnls' or 'pinv', got {self.magnitude!r}")


@dataclass(frozen=True, kw_only=True)
class Inversion:
    """What an inversion gave.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        The signal whose STFT is the method's last consistent spectrum Z; for ADMM ``iSTFT(X - V)``.
    trace : mapping of str to ndarray, or None
        Columns ``iteration`` (int32, from 0, the start) and ``scm_db`` (float32, eq. 21 on the signal so far; NaN for a
        mel of silence).
    """

    y: NDArray[np.float32]
    trace: Mapping[str, NDArray[Any]] | None


def invert(
    M: NDArray[Any],
    spec: MelSpec,
    method: str = "admm",
    n_iter: int = 100,
    start: str | NDArray[Any] = "pghi",
    magnitude: MagnitudeStart = "nnls",
    length: int | None = None,
    seed: int = 0,
    **parameters: float,
) -> NDArray[np.float32]:
    """Return a waveform whose mel spectrogram is near M.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Mel as made by `spec`; logs and the like are undone first.
    spec : MelSpec
    method : {"admm", "admm_gla", "griffin_lim", "ipalm", "raar", "pghi"}
        ``"pghi"`` is the integrated phase alone, with no iterations.
    n_iter : int
        Number of iterations.
    start : {"pghi", "random", "zero"} or ndarray of float, shape (n_samples,)
        Starting phase, or a waveform to take it from.
    magnitude : {"nnls", "pinv"}
        Starting magnitude: non-negative least squares, or the clipped pseudo-inverse.
    length : int, optional
        Samples of the result; by default the fewest that give M's frames.
    seed : int
        Of the random phases.
    **parameters : float
        The method's own: `momentum` (griffin_lim), `rho` (admm_gla, admm), `lam` (admm, ipalm), `alpha` (ipalm),
        `beta` (raar).

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
    if method == "pghi":
        recipe = Recipe(method=_solver(None, parameters), n_iter=0, start="pghi", magnitude=magnitude, seed=seed)
    else:
        solver = _solver(method, parameters)
        recipe = Recipe(method=solver, n_iter=n_iter, start=start, magnitude=magnitude, seed=seed)
    return solve(M, spec, recipe, length).y


def solve(M: NDArray[Any], spec: MelSpec, recipe: Recipe, length: int | None = None) -> Inversion:
    """Invert one mel ``(n_mels, n_frames)`` by a recipe; see `invert` for the errors."""
    length = shortest_length(spec, M.shape[-1]) if length is None else length
    linear = to_linear(M, spec)
    if M.shape[1] == 0:
        raise Unusable("the mel has no frames: the recording is shorter than a window")
    if spec.n_frames(length) != M.shape[1]:
        raise Unusable(
            f"the mel has {M.shape[1]} frames but {length} samples have {spec.n_frames(length)} at "
            f"hop_length={spec.hop_length}, center={spec.center!r}: pass the length of the waveform it was made from"
        )
    bank = bank_of(spec)
    projection = Projection(spec.stft, length)
    linear = np.ascontiguousarray(linear.T) / np.float32(bank.norm)
    Y = estimate_magnitude(linear, bank, recipe.magnitude)
    X = _start(Y, recipe, projection)
    return _iterate(X, Y, linear, bank, recipe, projection)


def shortest_length(spec: MelSpec, n_frames: int) -> int:
    """Return the fewest samples that have `n_frames` frames, at least 1.

    >>> shortest_length(MelSpec(hop_length=256), 63)
    15872
    """
    return max(1, (n_frames - 1) * spec.hop_length + spec.n_fft - 2 * spec.stft.pad)


def _solver(method: str | None, parameters: Mapping[str, float]) -> Method | None:
    if method is None:
        if parameters:
            raise ParameterError(next(iter(parameters)), "is no parameter of 'pghi', which has none")
        return None
    if method not in METHODS:
        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParameterError("method", f"must be one of {', '.join([*METHODS, 'pghi'])}, got {method!r}{hint}")
    known = METHODS[method].__dataclass_fields__
    for name in parameters:
        if name not in known:
            raise ParameterError(name, f"is no parameter of {method!r}, which has {', '.join(known)}")
    solver: Method = METHODS[method](**parameters)
    return solver


def _start(Y: NDArray[Any], recipe: Recipe, projection: Projection) -> NDArray[Any]:
    X = np.empty(Y.shape, dtype=np.complex64)
    phase = _phase(Y, recipe, projection)
    for block in projection.blocks():
        np.multiply(Y[block], np.exp(1j * phase[block]), out=X[block])
    return X


def _phase(Y: NDArray[Any], recipe: Recipe, projection: Projection) -> NDArray[np.float32]:
    if not isinstance(recipe.start, str):
        return signal_phase(_fitted(recipe.start, projection), projection)
    shape = (len(Y), projection.params.n_bins)
    if recipe.start == "random":
        return random_phase(shape, recipe.seed)
    if recipe.start == "zero":
        return zero_phase(shape, projection.params)
    return pghi(Y, projection.params, recipe.seed)


def _fitted(y: NDArray[Any], projection: Projection) -> NDArray[Any]:
    """Return a starting waveform cut or zero-filled by a hop at most to the projection's length."""
    if abs(y.size - projection.n_samples) > projection.params.hop_length:
        raise Unusable(
            f"the starting waveform has {y.size} samples, the result {projection.n_samples}: "
            f"they may differ by a hop ({projection.params.hop_length}) at most"
        )
    if not np.isfinite(y).all():
        raise Unusable(f"{int((~np.isfinite(y)).sum())} samples of the starting waveform are not finite")
    return np.pad(y[: projection.n_samples], (0, max(0, projection.n_samples - y.size)))


def _iterate(
    X: NDArray[Any], Y: NDArray[Any], M: NDArray[Any], bank: Bank, recipe: Recipe, projection: Projection
) -> Inversion:
    meter = _Meter(M, bank) if recipe.trace else None
    framed = projection.synthesise(lambda block: X[block])
    if recipe.method is not None:
        Z = np.empty_like(X)
        for block in projection.blocks():
            Z[block] = projection.analyse(framed, block)
        state = recipe.method.start(X, Z, Y, M)
        del X, Z
        framed = _loop(framed, recipe.method, state, bank, recipe.n_iter, projection, meter)
    if meter is not None:
        for block in projection.blocks():
            meter.add(projection.analyse(framed, block), block)
        meter.close()
    return Inversion(y=projection.samples(framed), trace=None if meter is None else meter.columns())


def _loop(
    framed: NDArray[Any],
    method: Method,
    state: Any,  # noqa: ANN401 - each method has its own
    bank: Bank,
    n_iter: int,
    projection: Projection,
    meter: _Meter | None,
) -> NDArray[Any]:
    def update(Z: NDArray[Any], block: slice) -> NDArray[Any]:
        if meter is not None:
            meter.add(Z, block)
        return method.step(Z, rows(state, block), bank)

    for _ in range(n_iter):
        framed = projection.sweep(framed, update)
        if meter is not None:
            meter.close()
    return framed


class _Meter:
    """Collect SCM, eq. 21, block by block and iteration by iteration."""

    def __init__(self, M: NDArray[Any], bank: Bank) -> None:
        self._M, self._bank = M, bank
        self._misfit = 0.0
        self._misfits: list[float] = []

    def add(self, Z: NDArray[Any], block: slice) -> None:
        """Add the misfit of the frames in `block`."""
        difference = self._bank.mel(np.abs(Z) ** self._bank.power) - self._M[block]
        self._misfit += float(np.sum(np.square(difference), dtype=np.float64))

    def close(self) -> None:
        """End an iteration."""
        self._misfits.append(self._misfit)
        self._misfit = 0.0

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Return the trace."""
        energy = float(np.sum(np.square(self._M), dtype=np.float64))
        with np.errstate(divide="ignore"):
            scm_db = 10 * np.log10(np.array(self._misfits) / energy) if energy else np.full(len(self._misfits), np.nan)
        return {
            "iteration": np.arange(len(self._misfits), dtype=np.int32),
            "scm_db": scm_db.astype(np.float32),
        }
