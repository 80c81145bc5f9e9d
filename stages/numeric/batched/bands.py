"""Mel banks on a device: products with the bank and its transpose, and the misfit to a mel."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.compiled.misfit import MAX_SCALE, TINY
from melmill.stages.numeric.filterbank import Bank
from melmill.stages.numeric.lanes.gram import inverse, product


class Bands(NamedTuple):
    """A matrix E ``(n_mels, n_bins)``: dense from bins to bands, sparse from bands to bins.

    The sums over a band's bins are a matrix product. A bin's own sum has two terms in a bank of
    triangles. So it joins the element-wise step that needs it, instead of passing through memory.

    Parameters
    ----------
    Et : Tensor, shape (n_bins, n_mels)
    bands : Tensor of int64, shape (n_terms, n_bins)
        The bands of each bin, filled up with others.
    weights : Tensor, shape (n_terms, n_bins)
        What each weighs, 0 where filled up.
    """

    Et: Tensor
    bands: Tensor
    weights: Tensor

    def mel(self, Y: Tensor) -> Tensor:
        """Return E Y, ``(B, T, n_mels)``, of a magnitude ``(B, T, F)``."""
        return Y @ self.Et

    def spread(self, r: Tensor) -> Tensor:
        """Return E^T r, ``(B, T, F)``, of ``(B, T, n_mels)``."""
        total = r[..., self.bands[0]] * self.weights[0]
        for band, weight in zip(self.bands[1:], self.weights[1:], strict=True):
            total = total + r[..., band] * weight
        return total


@lru_cache(maxsize=8)
def bands_of(bank: Bank, place: Placement) -> Bands:
    """Return the scaled bank of `bank` on a device."""
    return as_bands(bank.E, place)


def as_bands(E: NDArray[np.floating], place: Placement) -> Bands:
    """Return a matrix ``(n_mels, n_bins)`` on a device."""
    n_terms = max(1, int(np.count_nonzero(E, axis=0).max()))
    bands = np.argsort(E == 0, axis=0, kind="stable")[:n_terms]
    weights = np.take_along_axis(E, bands, axis=0)
    return Bands(
        Et=place.tensor(np.ascontiguousarray(E.T)),
        bands=torch.as_tensor(bands).to(place.device),
        weights=place.tensor(weights),
    )


def resolvent(bank: Bank, mu: float, place: Placement) -> Tensor:
    """Return ``(E E^T + mu I)^-1``, shape (n_mels, n_mels), for eq. 17 by the Woodbury identity."""
    return place.tensor(inverse(product(bank.E, bank.E.T) + mu * np.eye(len(bank.E))))


def misfit(Phi: Tensor, Y: Tensor, M: Tensor, E: Bands, power: float) -> Tensor:
    """Return ``E Phi - M``, shape (B, T, n_mels).

    For a power that is not 1 it is E Phi less what E Y should be: what E Y becomes when every band
    of Y is scaled until ``E Y**p = M``, as in the compiled engine.
    """
    if power == 1.0:
        return E.mel(Phi) - M
    scale = raised_to(M / (E.mel(raised_to(Y, power)) + TINY), 1 / power)
    return E.mel(Phi) - E.mel(Y) * scale.clamp(max=MAX_SCALE)


def misfit_energies(Z: Tensor, M: Tensor, E: Bands, power: float) -> Tensor:
    """Return ``||E |Z|**p - M||^2``, float64, shape (B,): the numerator of SCM (eq. 21)."""
    difference = E.mel(raised_to(Z.abs(), power)) - M
    return torch.sum(torch.square(difference), dim=(1, 2), dtype=torch.float64)


def raised_to(x: Tensor, exponent: float) -> Tensor:
    """Return ``x ** exponent`` of what is not negative."""
    if exponent == 1.0:
        return x
    if exponent == 2.0:
        return x * x
    return torch.sqrt(x) if exponent == 0.5 else x**exponent
