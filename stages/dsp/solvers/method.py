"""What every solver shares: its protocol, the scaled mel bank and the phase factor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.filterbank import bank_norm, mel_bank
from melmill.stages.dsp.melspec import MelSpec

# Added to |Psi|^2: a bin of exactly 0 keeps the phase factor 0 that eq. 3 asks for, and nothing is divided by 0.
_TINY = 1e-36

# A band that Y left almost empty is not filled in one step.
_MAX_SCALE = 10.0


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

    def mel(self, Y: NDArray[Any]) -> NDArray[Any]:
        """Return the mel ``E Y``, shape (n_frames, n_mels)."""
        return np.asarray(Y @ self.E.T)

    def target(self, M: NDArray[Any], Y: NDArray[Any], EY: NDArray[Any]) -> NDArray[Any]:
        """Return the magnitude mel that the joint methods aim at, given a mel M of this bank's power.

        For ``p = 1`` that is M. Otherwise it is what ``E Y`` becomes when every band of Y is scaled until
        ``E Y**p = M``: a fixed point of the iteration meets M itself, not a magnitude mel guessed before it.
        """
        if self.power == 1:
            return M
        ratio = M / (self.mel(Y**self.power) + M.dtype.type(_TINY))
        return np.asarray(EY * np.minimum(ratio ** (1 / self.power), _MAX_SCALE))

    def resolvent(self, mu: float) -> NDArray[Any]:
        """Return ``(E E^T + mu I)^-1 E``, shape (n_mels, n_bins): the inverse of eq. 17 by the Woodbury identity."""
        return _resolvent(self, mu)


@lru_cache(maxsize=8)
def bank_of(spec: MelSpec) -> Bank:
    """Return the scaled bank of a spec; cached, float32."""
    norm = bank_norm(spec)
    return Bank(E=np.asarray(mel_bank(spec) / np.float32(norm)), norm=norm, power=spec.power)


@lru_cache(maxsize=16)
def _resolvent(bank: Bank, mu: float) -> NDArray[Any]:
    E = bank.E.astype(np.float64)
    inverse = np.linalg.inv(E @ E.T + mu * np.eye(len(E)))
    return np.ascontiguousarray((inverse @ E).astype(bank.E.dtype))


class Method(Protocol):
    """An iterative method over frame-major spectra ``(n_frames, n_bins)``.

    A step is two halves: `step` turns the consistent spectrum Z, which it may overwrite, into the spectrum whose
    projection P_C is the next Z. It works bin- or frame-wise and changes the state's arrays in place, so that the loop
    can take a few frames at a time through both halves.
    """

    def start(self, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return the state before the first step, arrays with a row a frame; the arguments may become part of it.

        X is the complex start and Y its magnitude, ``Z = P_C(X)``, M the linear mel divided by the bank's norm.
        """
        ...

    def step(self, Z: NDArray[Any], state: Any, bank: Bank) -> NDArray[Any]:  # noqa: ANN401 - each has its own
        """Update the state of these frames from Z and return what is projected next."""
        ...


def rows(state: Any, block: slice) -> Any:  # noqa: ANN401 - the same named tuple comes back
    """Return a state's named tuple with views of the frames in `block`."""
    return type(state)(*(array[block] for array in state))


def magnitude(Psi: NDArray[Any]) -> NDArray[Any]:
    """Return |Psi|, kept above 0 so that it can be divided by."""
    squared = np.square(Psi.real)
    squared += np.square(Psi.imag)
    squared += squared.dtype.type(_TINY)
    return np.asarray(np.sqrt(squared, out=squared))


def with_magnitude(Psi: NDArray[Any], Y: NDArray[Any]) -> NDArray[Any]:
    """Overwrite `Psi` with ``Y Psi / |Psi|`` and return it; 0 stays 0."""
    Psi *= Y / magnitude(Psi)
    return Psi
