"""One mel to one waveform on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric import solvers
from melmill.stages.numeric.bank import Bank, bank_of
from melmill.stages.numeric.compiled import admm, admm_gla, griffin_lim, ipalm, raar
from melmill.stages.numeric.compiled.magnitude import estimate_magnitude
from melmill.stages.numeric.compiled.misfit import misfit_energy
from melmill.stages.numeric.compiled.phase import pghi, random_phase, signal_phase, zero_phase
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.recipe import Recipe

# Each has `start`, which makes the state before the first iteration, and `run`.
_METHODS: Mapping[type[solvers.Method], Any] = {
    solvers.Admm: admm,
    solvers.AdmmGla: admm_gla,
    solvers.GriffinLim: griffin_lim,
    solvers.Ipalm: ipalm,
    solvers.Raar: raar,
}

# Iterations in compiled code before the interpreter may see an interrupt.
_UNINTERRUPTED = 10


def invert_linear(linear: NDArray[Any], spec: MelSpec, recipe: Recipe, length: int) -> tuple[NDArray[Any], list[float]]:
    """Invert one linear mel.

    Parameters
    ----------
    linear : ndarray, shape (n_mels, n_frames)
        ``E |X|**power``, of as many frames as `length` samples have.
    spec : MelSpec
        Of the framing and the bank.
    recipe : Recipe
        A waveform to start from has `length` samples.
    length : int
        Samples of the result.

    Returns
    -------
    y : ndarray of the recipe's dtype, shape (n_samples,)
        The signal whose STFT is the method's last consistent spectrum Z; for ADMM ``iSTFT(X - V)``.
    misfits : list of float
        SCM's numerator (eq. 21) at the start and after every iteration, in the unit of `linear`; empty unless the
        recipe asks for a trace.
    """
    bank = bank_of(spec)
    projection = Projection(spec.stft, length, recipe.dtype)
    M = to_lanes(np.asarray(linear / bank.norm, dtype=recipe.dtype))
    Y = estimate_magnitude(M, bank, recipe.magnitude)
    X = _start(Y, recipe, projection)
    projection.synthesise(X)
    misfits: list[float] = []
    watch = (lambda: misfits.append(misfit_energy(projection.sweep, M, bank))) if recipe.trace else None
    if watch is not None:
        watch()
    if recipe.method is not None:
        iterate(recipe.method, X, Y, M, bank, projection, recipe.n_iter, watch)
    return projection.samples, [misfit * bank.norm**2 for misfit in misfits]


def iterate(
    method: solvers.Method,
    X: NDArray[Any],
    Y: NDArray[Any],
    M: NDArray[Any],
    bank: Bank,
    projection: Projection,
    n_iter: int,
    watch: Callable[[], None] | None = None,
) -> None:
    """Iterate on the projection's signal.

    Parameters
    ----------
    method : Method
    X : ndarray, shape (n_groups, n_bins, 2, LANES)
        Start, whose signal the projection holds; may be overwritten, as Y may.
    Y : ndarray, shape (n_groups, n_bins, LANES)
        Its magnitude.
    M : ndarray, shape (n_groups, n_mels, LANES)
        Linear mel divided by the bank's norm.
    bank : Bank
    projection : Projection
    n_iter : int
    watch : callable, optional
        Called after every iteration.
    """
    solver = _METHODS[type(method)]
    state = solver.start(method, X, projection.analyse(), Y, M)
    del X, Y
    at_once = _UNINTERRUPTED if watch is None else 1
    for done in range(0, n_iter, at_once):
        solver.run(method, range(done, min(done + at_once, n_iter)), n_iter, projection.sweep, state, bank)
        if watch is not None:
            watch()


def _start(Y: NDArray[Any], recipe: Recipe, projection: Projection) -> NDArray[Any]:
    phase = _phase(Y, recipe, projection)
    X = np.empty((*Y.shape[:2], 2, Y.shape[2]), dtype=Y.dtype)
    for part, function in enumerate((np.cos, np.sin)):
        function(phase, out=X[:, :, part], dtype=Y.dtype)
        X[:, :, part] *= Y
    return X


def _phase(Y: NDArray[Any], recipe: Recipe, projection: Projection) -> NDArray[Any]:
    if not isinstance(recipe.start, str):
        projection.samples = recipe.start
        return signal_phase(projection)
    params, n_frames = projection.params, projection.n_frames
    if recipe.start == "random":
        return random_phase(n_frames, params.n_bins, recipe.seed)
    if recipe.start == "zero":
        return zero_phase(n_frames, params)
    return pghi(Y, n_frames, params, recipe.seed)
