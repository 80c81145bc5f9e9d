"""Steps of the solvers against their equations, written naively in float64 with every variable kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.dsp import solvers
from melmill.stages.dsp.melspec import MelSpec, StftParams
from melmill.stages.dsp.projection import Projection
from melmill.stages.dsp.solvers.method import Bank, Method, bank_of, rows
from melmill.stages.errors import ParameterError

Array = NDArray[Any]
PARAMS = StftParams(n_fft=32, win_length=32, hop_length=8)
N_ITER = 4


def problem() -> tuple[Projection, Array, Array, Array, Bank]:
    """Return a projection, a start X with its magnitude Y, a mel M and a bank of norm 1, on random data."""
    rng = np.random.default_rng(0)
    projection = Projection(PARAMS, 500, np.float64)
    shape = (projection.n_frames, PARAMS.n_bins)
    E = rng.random((6, PARAMS.n_bins))
    E /= np.linalg.norm(E, 2)
    Y = rng.random(shape)
    Y[:, 3] = 0
    X = Y * np.exp(2j * np.pi * rng.random(shape))
    return projection, X, Y, rng.random(shape) @ E.T, Bank(E=E, norm=1.0)


def factor(Psi: Array) -> Array:
    """Return Psi / |Psi|, 0 where Psi is 0."""
    return np.divide(Psi, np.abs(Psi), out=np.zeros_like(Psi), where=Psi != 0)


def iterated(method: Method) -> Array:
    """Return Z after N_ITER steps from `problem`."""
    projection, X, Y, M, bank = problem()
    framed = projection.synthesise(lambda block: X[block])
    state = method.start(X.copy(), projection(X), Y.copy(), M)
    for _ in range(N_ITER):
        framed = projection.sweep(framed, lambda Z, block: method.step(Z, rows(state, block), bank))
    return projection.analyse(framed, slice(0, projection.n_frames))


def griffin_lim(alpha: float) -> Array:
    P, X, Y, _, _ = problem()
    Z = Z_old = P(X)
    for _ in range(N_ITER):
        Psi = Z + alpha * (Z - Z_old)
        Z, Z_old = P(Y * factor(Psi)), Z
    return Z


def admm_gla(rho: float) -> Array:
    P, X, Y, _, _ = problem()
    Z, V = P(X), np.zeros_like(X)
    for _ in range(N_ITER):
        Psi = Z + V
        X = (Y + rho * np.abs(Psi)) / (1 + rho) * factor(Psi)
        Z = P(X - V)
        V = V + Z - X
    return Z


def raar(beta: float) -> Array:
    P, X, Y, _, _ = problem()

    def R_A(X: Array) -> Array:
        return 2 * Y * factor(X) - X

    for _ in range(N_ITER):
        R_C_R_A = 2 * P(R_A(X)) - R_A(X)
        X = beta / 2 * (R_C_R_A + X) + (1 - beta) * Y * factor(X)
    return P(R_A(X))


def ipalm(alpha: float, lam: float) -> Array:
    """Iterate Algorithm 1, whose first iteration is the projection of the start."""
    P, X, Y, M, bank = problem()
    Z, Z_old = X, X
    for _ in range(1 + N_ITER):
        Psi = Z + alpha * (Z - Z_old)
        X = Y * factor(Psi)
        W = Y - Y @ bank.E.T @ bank.E + M @ bank.E
        Z, Z_old = P(X), Z
        Y = np.maximum(np.abs(Z) + lam * W, 0) / (1 + lam)
    return Z


def admm(lam: float, rho: float, scale: float = 1.0) -> Array:
    """Iterate Algorithm 2 with eq. 17's full inverse, on the bank ``scale E``."""
    P, X, Y, M, bank = problem()
    E, M = scale * bank.E, scale * M
    inverse = np.linalg.inv(lam * E.T @ E + rho * np.eye(E.shape[1]))
    Z, V, U = P(X), np.zeros_like(X), np.zeros_like(Y)
    for _ in range(N_ITER):
        Psi = Z + V
        X = (Y + rho * np.abs(Psi)) / (1 + rho) * factor(Psi)
        Phi = Y + U
        W = (lam * M @ E + rho * Phi) @ inverse
        Z = P(X - V)
        Ups = W - U
        Y = np.maximum(np.abs(X) + rho * Ups, 0) / (1 + rho)
        V = V + Z - X
        U = U + Y - W
    return Z


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        pytest.param(solvers.GriffinLim(), lambda: griffin_lim(0.0), id="Griffin-Lim"),
        pytest.param(solvers.GriffinLim(momentum=0.99), lambda: griffin_lim(0.99), id="fast Griffin-Lim"),
        pytest.param(solvers.AdmmGla(rho=0.2), lambda: admm_gla(0.2), id="ADMM on a fixed magnitude"),
        pytest.param(solvers.AdmmGla(rho=0.0), lambda: admm_gla(0.0), id="the same with the magnitude imposed"),
        pytest.param(solvers.Raar(beta=0.8), lambda: raar(0.8), id="RAAR"),
        pytest.param(solvers.Ipalm(alpha=0.9, lam=10.0), lambda: ipalm(0.9, 10.0), id="iPALM"),
        pytest.param(solvers.Admm(lam=8.0, rho=0.1), lambda: admm(8.0, 0.1), id="ADMM"),
        # The paper's lam on its own bank E is lam ||E||^2 on the scaled one.
        pytest.param(solvers.Admm(lam=8.0, rho=0.1), lambda: admm(8.0 / 0.04**2, 0.1, 0.04), id="ADMM, small bank"),
    ],
)
def test_steps_follow_their_equations(method: Method, reference: Callable[[], Array]) -> None:
    np.testing.assert_allclose(iterated(method), reference(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "method",
    [solvers.GriffinLim(), solvers.GriffinLim(momentum=0.9), solvers.AdmmGla(), solvers.Raar(), solvers.Ipalm()],
    ids=lambda method: repr(method),
)
def test_a_bin_without_phase_stays_zero(method: Method) -> None:
    _, _, Y, M, bank = problem()
    Y[:] = 1
    nothing = np.zeros(Y.shape, dtype=np.complex128)
    assert not method.step(nothing.copy(), method.start(nothing.copy(), nothing.copy(), Y, M), bank).any()


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_target_of_a_power_mel_is_the_magnitude_mel_that_attains_it(power: float) -> None:
    _, _, Y, _, bank = problem()
    bank = replace(bank, power=power)
    M = bank.mel((3 * Y) ** power)
    np.testing.assert_allclose(bank.target(M, 3 * Y, bank.mel(3 * Y)), bank.mel(3 * Y), rtol=1e-12)
    np.testing.assert_allclose(bank.target(M, Y, bank.mel(Y)), M if power == 1 else bank.mel(3 * Y), rtol=1e-12)


def test_default_lam_is_the_papers() -> None:
    assert solvers.Admm().lam == pytest.approx(5000 * bank_of(MelSpec()).norm ** 2, rel=2e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: solvers.GriffinLim(momentum=1.5), r"momentum must be in \[0, 1\), got 1.5"),
        (lambda: solvers.AdmmGla(rho=-1.0), "rho must not be negative, got -1.0"),
        (lambda: solvers.Raar(beta=0.0), r"beta must be in \(0, 1\], got 0.0"),
        (lambda: solvers.Ipalm(alpha=1.0), r"alpha must be in \[0, 1\), got 1.0"),
        (lambda: solvers.Ipalm(lam=0.0), "lam must be positive, got 0.0"),
        (lambda: solvers.Admm(rho=0.0), "rho must be positive, got 0.0"),
        (lambda: solvers.Admm(lam=float("nan")), "lam must be positive, got nan"),
    ],
)
def test_parameters_out_of_range_are_refused(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make()
