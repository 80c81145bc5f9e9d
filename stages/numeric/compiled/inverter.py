"""One mel to one waveform on the CPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import misfit_energy
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.compiled.start import started
from melmill.stages.numeric.filterbank import Bank, bank_of
from melmill.stages.numeric.lanes.sweep import Sweep, to_lanes
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import Answer, Recipe, Solver

# Iterations in compiled code before the interpreter may see an interrupt.
_UNINTERRUPTED = 10


class CompiledForm(Protocol):
    """What a module has that computes a solver on the CPU."""

    def begin(
        self,
        solver: Any,  # noqa: ANN401 - each solver has its own type and state
        X: NDArray[np.floating],
        Z: NDArray[np.floating],
        Y: NDArray[np.floating],
        M: NDArray[np.floating],
    ) -> Any:  # noqa: ANN401
        """Return the state before the first iteration.

        Parameters
        ----------
        solver : Solver
        X, Z : ndarray, shape (n_groups, n_bins, 2, LANES)
            The start and its projection. The state may take over any of these arrays.
        Y : ndarray, shape (n_groups, n_bins, LANES)
            Magnitude of X.
        M : ndarray, shape (n_groups, n_mels, LANES)
            Linear mel divided by the bank's norm.
        """
        ...

    def run(self, solver: Any, iterations: range, n_iter: int, sweep: Sweep, state: Any, bank: Bank) -> None:  # noqa: ANN401
        """Make some of `n_iter` iterations, in place on the state and on the sweep's signal.

        An iteration goes through the groups of frames. For each it takes the spectrum Z of the
        signal, makes its step, and adds what is projected next to the new signal.
        """
        ...


def invert_linear(linear: NDArray[np.float32], spec: MelSpec, recipe: Recipe, length: int) -> Answer:
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
    """
    bank = bank_of(spec)
    M = to_lanes(np.asarray(linear / bank.norm, dtype=recipe.dtype))
    start = started(linear, spec, recipe, length)
    n_iter, projection, X, Y = recipe.iterations(guided=start.guided), start.projection, start.X, start.Y
    guided = start.guided
    del start
    misfits: list[float] = []
    measure = (lambda: misfits.append(misfit_energy(projection.sweep, M, bank))) if recipe.trace else None
    if measure is not None:
        measure()
    if recipe.method is not None:
        iterate(recipe.method, X, Y, M, bank, projection, n_iter, measure)
    return Answer(projection.samples, [misfit * bank.norm**2 for misfit in misfits], guided)


def iterate(
    solver: Solver,
    X: NDArray[np.floating],
    Y: NDArray[np.floating],
    M: NDArray[np.floating],
    bank: Bank,
    projection: Projection,
    n_iter: int,
    measure: Callable[[], None] | None = None,
) -> None:
    """Iterate on the projection's signal.

    Parameters
    ----------
    solver : Solver
    X : ndarray, shape (n_groups, n_bins, 2, LANES)
        Start, whose signal the projection holds; may be overwritten, as Y may.
    Y : ndarray, shape (n_groups, n_bins, LANES)
        Its magnitude.
    M : ndarray, shape (n_groups, n_mels, LANES)
        Linear mel divided by the bank's norm.
    bank : Bank
    projection : Projection
    n_iter : int
    measure : callable, optional
        Called after every iteration.
    """
    form = cast(CompiledForm, importlib.import_module(solver.compiled))
    state = form.begin(solver, X, projection.analyse(), Y, M)
    del X, Y
    at_once = _UNINTERRUPTED if measure is None else 1
    for done in range(0, n_iter, at_once):
        form.run(solver, range(done, min(done + at_once, n_iter)), n_iter, projection.sweep, state, bank)
        if measure is not None:
            measure()
