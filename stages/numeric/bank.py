"""The mel bank as the inverters use it: scaled to unit spectral norm."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.filterbank import bank_norm, mel_bank
from melmill.stages.numeric.melspec import MelSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class Bank:
    """Hold the mel bank E scaled to unit spectral norm, which makes `lam` independent of the bank's units.

    Parameters
    ----------
    E : ndarray, shape (n_mels, n_bins)
        ``E / ||E||_2``.
    norm : float
        ``||E||_2`` before scaling: mels are divided by it.
    power : float
        Exponent p of the mels' magnitude, ``M = E |X|**p``.
    """

    E: NDArray[Any]
    norm: float
    power: float = 1.0


@lru_cache(maxsize=8)
def bank_of(spec: MelSpec) -> Bank:
    """Return the scaled bank of a spec, float64; cached."""
    norm = bank_norm(spec)
    return Bank(E=mel_bank(spec).astype(np.float64) / norm, norm=norm, power=spec.power)
