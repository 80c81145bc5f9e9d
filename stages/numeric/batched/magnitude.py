"""From mels to full-band magnitudes, on batches."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from torch import Tensor

from melmill.stages.numeric.batched.bands import Bands, as_bands, raised_to
from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.compiled.magnitude import N_ITER, balance, inertia
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.gram import pseudo_inverse
from melmill.stages.numeric.solver import MagnitudeStart


class _Conditioned(NamedTuple):
    """E with rows of equal norm and unit spectral norm, its weights, and E^+ transposed."""

    E: Bands
    weight: Tensor
    pinv: Tensor


def estimate_magnitude(M: Tensor, bank: Bank, how: MagnitudeStart, place: Placement) -> Tensor:
    """Return magnitudes ``(B, T, F)`` whose mels are near M ``(B, T, n_mels)``; 0 where M is.

    What `melmill.stages.numeric.compiled.magnitude.estimate_magnitude` does, by the same iteration.
    """
    conditioned = _conditioned(bank, place)
    Y = (M @ conditioned.pinv).relu_()
    if how == "nnls":
        mel, Psi = M * conditioned.weight, Y.clone()
        descend = place.kernel(_descend)
        for share in place.tensor(inertia(N_ITER)):
            descend(Y, Psi, mel, conditioned.E, share)
    return raised_to(Y, 1 / bank.power)


def _descend(Y: Tensor, Psi: Tensor, mel: Tensor, E: Bands, share: Tensor) -> None:
    """Make a step of accelerated projected gradient (Beck and Teboulle 2009)."""
    new = (Psi - E.spread(E.mel(Psi) - mel)).relu()
    Psi.copy_(new + share * (new - Y))
    Y.copy_(new)


@lru_cache(maxsize=8)
def _conditioned(bank: Bank, place: Placement) -> _Conditioned:
    weight = balance(bank.E)
    scaled, pinv = weight[:, np.newaxis] * bank.E, pseudo_inverse(bank.E).T
    return _Conditioned(as_bands(scaled, place), place.tensor(weight), place.tensor(pinv))
