"""Starting phases of a batch, computed on the host by the compiled engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.bank import bank_of
from melmill.stages.numeric.compiled.magnitude import estimate_magnitude
from melmill.stages.numeric.compiled.phase import pghi, random_phase, signal_phase, zero_phase
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.lanes.sweep import from_lanes, to_lanes
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.recipe import Problem


def fill_phase(problem: Problem, spec: MelSpec, phase: NDArray[Any]) -> None:
    """Write one utterance's starting phase, rad, to the rows ``(T, F)`` of its own frames.

    PGHI follows the compiled engine's magnitude, not the device's: a rounding that makes another bin the louder would
    lead it another way.
    """
    phase[:] = from_lanes(_in_lanes(problem, spec), len(phase)).T


def _in_lanes(problem: Problem, spec: MelSpec) -> NDArray[Any]:
    recipe, params, n_frames = problem.recipe, spec.stft, problem.linear.shape[1]
    if not isinstance(recipe.start, str):
        projection = Projection(params, problem.length, recipe.dtype)
        projection.samples = recipe.start
        return signal_phase(projection)
    if recipe.start == "random":
        return random_phase(n_frames, params.n_bins, recipe.seed)
    if recipe.start == "zero":
        return zero_phase(n_frames, params)
    bank = bank_of(spec)
    M = to_lanes(np.asarray(problem.linear / bank.norm, dtype=recipe.dtype))
    return pghi(estimate_magnitude(M, bank, recipe.magnitude), n_frames, params, recipe.seed)
