"""Griffin-Lim-like phase recovery by ADMM, on a fixed magnitude."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

from melmill.stages.dsp.solvers.method import Bank, magnitude
from melmill.stages.errors import ParameterError


class AdmmGlaState(NamedTuple):
    """``D = X - V``, whose projection is Z, and the magnitude Y."""

    D: NDArray[Any]
    Y: NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class AdmmGla:
    """Iterate on ``Psi = Z + V``: X by eq. 15, ``Z = P_C(X - V)``, ``V += Z - X``, with Y fixed.

    With ``D = X - V`` the dual variable is ``V = Z - D``, so that only D is kept and ``Psi = 2 Z - D``.

    Parameters
    ----------
    rho : float
        At least 0. How much of ``|Psi|`` goes into the magnitude of X; 0 imposes Y.

    References
    ----------
    Masuyama, Yatabe and Oikawa 2019; the proximity operator is eq. 15 of Masuyama et al. 2024.
    """

    rho: float = 0.1

    def __post_init__(self) -> None:
        """Check rho."""
        if not self.rho >= 0:
            raise ParameterError("rho", f"must not be negative, got {self.rho!r}")

    def start(self, X: NDArray[Any], Z: NDArray[Any], Y: NDArray[Any], M: NDArray[Any]) -> AdmmGlaState:
        """Return the state of a dual V that is 0."""
        del X, M
        return AdmmGlaState(D=Z, Y=Y)

    def step(self, Z: NDArray[Any], state: AdmmGlaState, bank: Bank) -> NDArray[Any]:
        """Return D, which is projected next."""
        del bank
        x_step(Z, state.D, state.Y, self.rho)
        return state.D


def x_step(Z: NDArray[Any], D: NDArray[Any], Y: NDArray[Any], rho: float) -> NDArray[Any]:
    """Turn D, the last ``X - V``, into the next by eq. 15 in place; return ``|X|``. Z is overwritten."""
    D -= Z
    Psi = Z
    Psi -= D
    modulus = magnitude(Psi)
    X_abs = modulus * rho
    X_abs += Y
    X_abs /= 1 + rho
    modulus = X_abs / modulus
    Psi *= modulus
    D += Psi
    return X_abs
