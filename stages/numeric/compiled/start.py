"""Where an inversion starts: magnitude and phase, and whether a prior's guess leads to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.magnitude import starting_magnitude
from melmill.stages.numeric.compiled.phase import GUIDED_TOLERANCE, TOLERANCE, pghi, start_phase
from melmill.stages.numeric.compiled.prior import guess
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.lanes.sweep import Sweep, groups, spectrum
from melmill.stages.numeric.lanes.vector import LANES, Flat, kernel, load, store, zeros
from melmill.stages.numeric.melspec import MelSpec, Precision, StftParams
from melmill.stages.numeric.prior import prior_loses, trusted_db
from melmill.stages.numeric.solver import Recipe


@dataclass(frozen=True, eq=False)
class Start:
    """What an inversion starts from.

    Parameters
    ----------
    Y : ndarray of the recipe's dtype, shape (n_groups, n_bins, LANES)
        Magnitude.
    phase : ndarray, shape (n_groups, n_bins, LANES)
        Radians.
    guided : bool
        Whether the prior guessed the magnitude.
    params : StftParams
    length : int
        Samples of the signal.
    """

    Y: NDArray[np.floating]
    phase: NDArray[np.floating]
    guided: bool
    params: StftParams
    length: int

    @cached_property
    def X(self) -> NDArray[np.floating]:
        """Spectrum ``(n_groups, n_bins, 2, LANES)``."""
        return with_phase(self.Y, self.phase)

    @cached_property
    def projection(self) -> Projection:
        """The projection. It holds the signal nearest to X."""
        projection = Projection(self.params, self.length, cast("Precision", self.Y.dtype.name))
        projection.synthesise(self.X)
        return projection


def with_phase(Y: NDArray[np.floating], phase: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the spectrum ``(n_groups, n_bins, 2, LANES)`` of a magnitude and a phase."""
    X = np.empty((*Y.shape[:2], 2, Y.shape[2]), dtype=Y.dtype)
    for part, function in enumerate((np.cos, np.sin)):
        function(phase, out=X[:, :, part], dtype=Y.dtype)
        X[:, :, part] *= Y
    return X


def started(linear: NDArray[np.float32], spec: MelSpec, recipe: Recipe, length: int) -> Start:
    """Return what the inversion of one linear mel starts from.

    If the recipe has a fallback, `prior_loses` decides whether the prior leads.

    Parameters
    ----------
    linear : ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**p``, of as many frames as `length` samples have.
    spec : MelSpec
        Of the mel.
    recipe : Recipe
        Its prior fits the mel.
    length : int
        Samples of the result.
    """

    def of(Y: NDArray[np.floating], *, guided: bool) -> Start:
        phase = start_phase(recipe, spec.stft, length, lambda: Y, _tolerance(guided=guided))
        return Start(Y, phase, guided, spec.stft, length)

    @cache
    def plain() -> Start:
        return of(starting_magnitude(linear, spec, replace(recipe, prior=None)), guided=False)

    if recipe.prior is None:
        return plain()
    guessed = guess(linear, spec, recipe.prior)
    start = of(guessed.Y.astype(recipe.dtype, copy=False), guided=True)
    if recipe.fallback_n_iter is None:
        return start
    loses = prior_loses(
        _db(guessed.mismatch),
        lambda: _inconsistency_db(start, recipe),
        lambda: _inconsistency_db(plain(), recipe),
        trusted_db(spec),
    )
    return plain() if loses else start


def signs(linear: NDArray[np.float32], spec: MelSpec, recipe: Recipe, length: int) -> tuple[float, float, float]:
    """Return all that `prior_loses` may ask of the start of an inversion with a prior, dB.

    These are the mismatch, and the inconsistency with the prior and without it.
    """
    assert recipe.prior is not None
    led, plain = replace(recipe, fallback_n_iter=None), replace(recipe, prior=None, fallback_n_iter=None)
    return (
        _db(guess(linear, spec, recipe.prior).mismatch),
        _inconsistency_db(started(linear, spec, led, length), led),
        _inconsistency_db(started(linear, spec, plain, length), plain),
    )


def _tolerance(*, guided: bool) -> float:
    return GUIDED_TOLERANCE if guided else TOLERANCE


def _inconsistency_db(start: Start, recipe: Recipe) -> float:
    """Return ``10 log10(||X - P_C(X)||^2 / ||X||^2)`` of a start with PGHI's phase."""
    if not isinstance(recipe.start, str) or recipe.start != "pghi":
        n_frames, tolerance = start.params.n_frames(start.length), _tolerance(guided=start.guided)
        start = replace(start, phase=pghi(start.Y, n_frames, start.params, recipe.seed, tolerance))
    lost, all_of_it = _energies(start.projection.sweep, start.X)
    return _db(lost / all_of_it) if all_of_it else -math.inf


@kernel
def _energies(s: Sweep, X: Flat) -> tuple[float, float]:
    """Return ``||X - Z||^2`` and ``||X||^2`` of a spectrum and of that of the sweep's signal."""
    flat, squares = X.reshape(-1), np.empty(2 * LANES, X.dtype)
    lost, all_of_it = 0.0, 0.0
    for group in groups(s):
        spectrum(s, group)
        apart, whole = zeros(s.Z), zeros(s.Z)
        for row in range(0, s.Z.size, LANES):
            x = load(flat, group * s.Z.size + row)
            difference = x - load(s.Z, row)
            apart, whole = apart + difference * difference, whole + x * x
        store(squares, 0, apart)
        store(squares, LANES, whole)
        for lane in range(min(LANES, s.framing.n_frames - group * LANES)):
            lost += squares[lane]
            all_of_it += squares[LANES + lane]
    return lost, all_of_it


def _db(ratio: float) -> float:
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf
