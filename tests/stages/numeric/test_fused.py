"""Steps as torch's compiler fuses them for a GPU, against themselves run plainly.

Both run on torch's CPU device.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from melmill.stages.numeric.batched.device import Placement
from melmill.stages.numeric.batched.iteration import Iteration, Pair, Start, iterate, iteration, packed, parts, store
from melmill.stages.numeric.batched.projection import Projection
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import Solver
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.admm_gla import AdmmGla
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.numeric.solvers.ipalm import Ipalm
from melmill.stages.numeric.solvers.raar import Raar

SPEC = MelSpec(n_fft=64, win_length=64, hop_length=16, n_mels=10)
LENGTHS = [500, 330]


def place(*, fused: bool) -> Placement:
    return Placement(device=torch.device("cpu"), dtype=torch.float32, fused=fused)


def begun(method: Solver, power: float = 1.0, *, fused: bool) -> tuple[Projection, Iteration]:
    """Return random data about to be iterated on."""
    projection = Projection(SPEC.stft, LENGTHS, place(fused=False))
    random = torch.Generator().manual_seed(0)
    own = projection.framing.own
    shape = (*own.shape[:2], SPEC.stft.n_bins)
    Y, phase = torch.rand(shape, generator=random) * own, 6 * torch.rand(shape, generator=random)
    M = torch.rand((*shape[:2], SPEC.n_mels), generator=random) * own
    X = torch.polar(Y, phase)
    projection.synthesise(X.clone())
    start = Start(X, projection.analyse(), Y, M)
    bank = replace(bank_of(SPEC), power=power)
    return projection, iteration(method, 2, start, bank, place(fused=fused))


@pytest.mark.parametrize(
    "method",
    [
        Admm(schedule="swing"),
        AdmmGla(),
        GriffinLim(),
        GriffinLim(momentum=0.9),
        Ipalm(),
        Raar(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_steps_are_one_graph_on_packed_spectra(method: Solver, power: float) -> None:
    projection, plain = begun(method, power, fused=False)
    other = begun(method, power, fused=False)[1]
    Z, now = projection.analyse(), plain.parameters[0]
    plain.step(Z, *plain.state, *plain.rest, now)
    traced = torch.compile(other.step, fullgraph=True, backend="aot_eager")
    state = [packed(part) if part.is_complex() else part for part in other.state]
    traced(packed(Z), *state, *other.rest, now)
    for one, expected in zip(other.state, plain.state, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++ on the CPU")
def test_compiled_kernels_give_what_they_are_compiled_from() -> None:
    projection, plain = begun(Admm(), fused=False)
    iterate(plain, projection, place(fused=False))
    compiled, fused = begun(Admm(), fused=True)
    compiled = Projection(SPEC.stft, LENGTHS, place(fused=True))
    compiled.signal.copy_(begun(Admm(), fused=False)[0].signal)
    iterate(fused, compiled, place(fused=True))
    for y, expected in zip(compiled.samples, projection.samples, strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_packed_spectra_are_in_the_same_memory() -> None:
    Z = torch.tensor([1 - 2j, float("inf") + 0j, -0.0 + 1e-38j], dtype=torch.complex64)
    assert packed(Z).data_ptr() == Z.data_ptr()
    pair = parts(packed(Z))
    torch.testing.assert_close(pair.real, Z.real.contiguous(), rtol=0, atol=0)
    torch.testing.assert_close(pair.imag, Z.imag.contiguous(), rtol=0, atol=0)
    store(packed(Z), pair - Pair(torch.ones(3), torch.zeros(3)))
    assert Z[0] == -2j


def test_a_bin_of_zero_has_no_phase() -> None:
    zero: Tensor = torch.zeros(1, dtype=torch.complex64)
    pair = parts(zero)
    turned = pair.times(torch.ones(1) / pair.modulus())
    assert not turned.real.any()
    assert not turned.imag.any()
