"""Steps of the solvers against their equations.

The equations are written naively in float64, with every variable kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.inverter import iterate
from melmill.stages.numeric.compiled.misfit import mel_runs, misfit
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.filterbank import Bank, bank_of
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.lanes.vector import LANES
from melmill.stages.numeric.melspec import MelSpec, StftParams
from melmill.stages.numeric.solver import Solver
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.admm_gla import AdmmGla
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.numeric.solvers.ipalm import Ipalm
from melmill.stages.numeric.solvers.raar import Raar

# Spectra are (n_bins, n_frames), mels (n_mels, n_frames).
Array = NDArray[Any]
PARAMS = StftParams(n_fft=32, win_length=32, hop_length=8)
N_ITER = 4
SWING = Admm(lam=8.0, rho=0.1, schedule="swing")


def problem(power: float = 1.0) -> tuple[Projection, Array, Array, Array, Bank]:
    """Return a projection, a random start X with its magnitude Y, a mel M, a bank of norm 1."""
    rng = np.random.default_rng(0)
    projection = Projection(PARAMS, 500, "float64")
    shape = (PARAMS.n_bins, projection.n_frames)
    E = rng.random((6, PARAMS.n_bins))
    E[:3, 9:] = 0  # some bands narrow, some dense
    E /= np.linalg.norm(E, 2)
    Y = rng.random(shape)
    Y[3] = 0
    X = Y * np.exp(2j * np.pi * rng.random(shape))
    return projection, X, Y, E @ rng.random(shape) ** power, Bank(E=E, norm=1.0, power=power)


def factor(Psi: Array) -> Array:
    """Return Psi / |Psi|, 0 where Psi is 0."""
    return np.divide(Psi, np.abs(Psi), out=np.zeros_like(Psi), where=Psi != 0)


def complex_lanes(X: Array) -> Array:
    return np.stack([to_lanes(X.real), to_lanes(X.imag)], axis=2)


def iterated(method: Solver, power: float = 1.0) -> Array:
    """Return the signal of Z after N_ITER iterations from `problem`."""
    projection, X, Y, M, bank = problem(power)
    projection.synthesise(complex_lanes(X))
    iterate(method, complex_lanes(X), to_lanes(Y), to_lanes(M), bank, projection, N_ITER)
    return projection.samples


def target(bank: Bank, M: Array, Y: Array) -> Array:
    """Return the magnitude mel that the joint methods aim at.

    It is ``E Y`` with its bands scaled until ``E Y**p = M``.
    """
    if bank.power == 1:
        return M
    return (bank.E @ Y) * np.minimum((M / (bank.E @ Y**bank.power)) ** (1 / bank.power), 10)


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


def ipalm(alpha: float, lam: float, power: float = 1.0) -> Array:
    """Iterate Algorithm 1, whose first iteration is the projection of the start."""
    P, X, Y, M, bank = problem(power)
    Z, Z_old = X, X
    for _ in range(1 + N_ITER):
        Psi = Z + alpha * (Z - Z_old)
        X = Y * factor(Psi)
        W = Y - bank.E.T @ (bank.E @ Y - target(bank, M, Y))
        Z, Z_old = P(X), Z
        Y = np.maximum(np.abs(Z) + lam * W, 0) / (1 + lam)
    return Z


def admm(lam: float, rho: float | Array, scale: float = 1.0, power: float = 1.0) -> Array:
    """Iterate Algorithm 2 with eq. 17's full inverse, on the bank ``scale E``.

    `rho` may be given for each iteration. `lam` goes along with it, and the scaled duals the other
    way.
    """
    P, X, Y, M, bank = problem(power)
    E, M = scale * bank.E, scale * M
    rhos = np.broadcast_to(rho, N_ITER)
    lams = lam * rhos / rhos[0]
    Z, V, U = P(X), np.zeros_like(X), np.zeros_like(Y)
    for i, (rho, lam) in enumerate(zip(rhos, lams, strict=True)):
        inverse = np.linalg.inv(lam * E.T @ E + rho * np.eye(E.shape[1]))
        shrunk = rhos[max(i - 1, 0)] / rho
        V, U = shrunk * V, shrunk * U
        Psi = Z + V
        X = (Y + rho * np.abs(Psi)) / (1 + rho) * factor(Psi)
        Phi = Y + U
        W = inverse @ (lam * E.T @ target(replace(bank, E=E), M, Y) + rho * Phi)
        Z = P(X - V)
        Ups = W - U
        Y = np.maximum(np.abs(X) + rho * Ups, 0) / (1 + rho)
        V = V + Z - X
        U = U + Y - W
    return Z


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        pytest.param(GriffinLim(), lambda: griffin_lim(0.0), id="Griffin-Lim"),
        pytest.param(GriffinLim(momentum=0.99), lambda: griffin_lim(0.99), id="fast Griffin-Lim"),
        pytest.param(AdmmGla(rho=0.2), lambda: admm_gla(0.2), id="ADMM on a fixed magnitude"),
        pytest.param(AdmmGla(rho=0.0), lambda: admm_gla(0.0), id="the same with the magnitude imposed"),
        pytest.param(Raar(beta=0.8), lambda: raar(0.8), id="RAAR"),
        pytest.param(Ipalm(alpha=0.9, lam=10.0), lambda: ipalm(0.9, 10.0), id="iPALM"),
        pytest.param(Admm(lam=8.0, rho=0.1), lambda: admm(8.0, 0.1), id="ADMM"),
        # The paper's lam on its own bank E is lam ||E||^2 on the scaled one.
        pytest.param(SWING, lambda: admm(8.0 * SWING.penalties(N_ITER)[0] / 0.1, SWING.penalties(N_ITER)), id="swing"),
        pytest.param(Admm(lam=8.0, rho=0.1), lambda: admm(8.0 / 0.04**2, 0.1, 0.04), id="ADMM, small bank"),
    ],
)
def test_iterations_follow_their_equations(method: Solver, reference: Callable[[], Array]) -> None:
    np.testing.assert_allclose(iterated(method), signal_of(reference()), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("power", [1.5, 2.0])
def test_joint_methods_follow_their_equations_on_power_mels(power: float) -> None:
    for method, reference in (
        (Ipalm(alpha=0.9, lam=10.0), ipalm(0.9, 10.0, power)),
        (Admm(lam=8.0, rho=0.1), admm(8.0, 0.1, power=power)),
    ):
        np.testing.assert_allclose(iterated(method, power), signal_of(reference), rtol=1e-9, atol=1e-11)


def signal_of(Z: Array) -> Array:
    projection = problem()[0]
    projection.synthesise(complex_lanes(Z))
    return projection.samples


@pytest.mark.parametrize(
    "method",
    [GriffinLim(), GriffinLim(momentum=0.9), AdmmGla(), Raar(), Ipalm()],
    ids=lambda method: repr(method),
)
def test_a_bin_without_phase_stays_zero(method: Solver) -> None:
    projection, X, Y, M, bank = problem()
    iterate(method, complex_lanes(0 * X), to_lanes(Y), to_lanes(M), bank, projection, N_ITER)
    assert not projection.samples.any()


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_joint_methods_aim_at_the_magnitude_mel_that_attains_the_mel(power: float) -> None:
    _, _, Y, _, bank = problem(power)
    M = bank.E @ (3 * Y) ** power
    magnitude_mel = M if power == 1 else bank.E @ (3 * Y)
    for start, expected in ((3 * Y, 0 * M), (Y, bank.E @ Y - magnitude_mel)):
        y, out = to_lanes(start)[0].ravel(), np.empty(len(M) * LANES)
        misfit(y, 0, to_lanes(M), 0, mel_runs(bank, "float64"), out, y)
        np.testing.assert_allclose(out.reshape(-1, LANES), expected[:, :LANES], atol=1e-12)


def test_the_swing_goes_down_and_halfway_up() -> None:
    assert SWING.penalties(1).tolist() == pytest.approx([0.03])
    rhos = SWING.penalties(101)
    assert (np.diff(np.log(rhos[:51])) < 0).all()
    assert (np.diff(np.log(rhos[50:])) > 0).all()
    assert rhos[[0, 50, 100]].tolist() == pytest.approx([1.0, 101**-0.75, 0.15])
    assert SWING.penalties(0).size == 0


def test_default_lam_is_the_papers() -> None:
    assert Admm().lam == pytest.approx(5000 * bank_of(MelSpec()).norm ** 2, rel=2e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GriffinLim(momentum=1.5), r"momentum must be in \[0, 1\), got 1.5"),
        (lambda: AdmmGla(rho=-1.0), "rho must not be negative, got -1.0"),
        (lambda: Raar(beta=0.0), r"beta must be in \(0, 1\], got 0.0"),
        (lambda: Ipalm(alpha=1.0), r"alpha must be in \[0, 1\), got 1.0"),
        (lambda: Ipalm(lam=0.0), "lam must be positive, got 0.0"),
        (lambda: Admm(rho=0.0), "rho must be positive, got 0.0"),
        (lambda: Admm(lam=float("nan")), "lam must be positive, got nan"),
        (lambda: Admm(schedule="swang"), "schedule must be 'constant' or 'swing', got 'swang'"),  # type: ignore[arg-type]
    ],
)
def test_parameters_out_of_range_are_refused(make: Callable[[], Solver], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make()
