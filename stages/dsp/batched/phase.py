"""Starting phases of a batch, computed on the host by the compiled engine."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from melmill.stages.dsp.compiled.phase import pghi, random_phase, signal_phase, zero_phase
from melmill.stages.dsp.compiled.projection import Projection
from melmill.stages.dsp.lanes.sweep import from_lanes, to_lanes
from melmill.stages.dsp.melspec import StftParams
from melmill.stages.dsp.recipe import Problem


def fill_phase(problem: Problem, params: StftParams, Y: NDArray[Any], phase: NDArray[Any]) -> None:
    """Write one utterance's starting phase, rad, to the rows ``(T, F)`` of its own frames; Y is its magnitude there."""
    phase[:] = from_lanes(_in_lanes(problem, params, Y), len(Y)).T


def _in_lanes(problem: Problem, params: StftParams, Y: NDArray[Any]) -> NDArray[Any]:
    start, seed = problem.recipe.start, problem.recipe.seed
    if not isinstance(start, str):
        projection = Projection(params, problem.length, problem.recipe.dtype)
        projection.samples = start
        return signal_phase(projection)
    if start == "random":
        return random_phase(len(Y), params.n_bins, seed)
    if start == "zero":
        return zero_phase(len(Y), params)
    return pghi(to_lanes(Y.T), len(Y), params, seed)
