"""Learned priors: their file, the mels they fit, and what the network computes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from melmill.stages.invert.inversion import pose
from melmill.stages.numeric.batched.inverter import invert_linears
from melmill.stages.numeric.batched.prior import Gate, PriorNetwork, agreeing, bank_of
from melmill.stages.numeric.compiled.inverter import invert_linear
from melmill.stages.numeric.compiled.prior import guess
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.lanes.sweep import from_lanes
from melmill.stages.numeric.mel import mel_spectrogram, to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior, Sizes, decoded
from melmill.stages.numeric.solver import Recipe
from melmill.stages.numeric.solvers.admm import Admm
from tests.priors import HEADED, SMALL, random_prior

SPEC = MelSpec(n_fft=64, win_length=64, hop_length=16, n_mels=10)
CAPPED = replace(SPEC, sr=22050, fmax=6000.0)


def noise(n_samples: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    y: NDArray[np.float32] = (0.1 * rng.standard_normal(n_samples) * np.sin(np.arange(n_samples) / 90)).astype("f4")
    return y


def bounded(Y: NDArray[Any], spec: MelSpec) -> NDArray[Any]:
    """Return a magnitude whose bins below all bands are at most half of the lowest bin in one."""
    lowest = int(np.flatnonzero(mel_bank(spec).sum(axis=0))[0])
    return np.concatenate([np.minimum(Y[:lowest], 0.5 * Y[lowest]), Y[lowest:]])


def guessed(M: NDArray[np.float32], spec: MelSpec, prior: Prior) -> NDArray[np.float32]:
    Y = from_lanes(guess(M, spec, prior).Y, M.shape[1])
    return Y.astype(np.float32)


def reference(M: NDArray[np.float32], prior: Prior, n_updates: int = 10) -> NDArray[np.float64]:
    """Compute a prior by torch, in double precision, with GELU in place of the gate."""
    w = {name: torch.from_numpy(values).double() for name, values in prior.weights.items()}
    spec, width, reach = prior.spec, prior.sizes.width, prior.sizes.kernel // 2
    E = torch.from_numpy(mel_bank(spec).copy()).double()
    m = torch.from_numpy(M).double()
    top = m.max()
    m = m / top
    x = torch.log((m / E.sum(1, keepdim=True)) ** (1 / spec.power) + 1e-4)

    def norm(h: Tensor, name: str) -> Tensor:
        return functional.layer_norm(h, (width,), w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(h: Tensor, name: str) -> Tensor:
        return functional.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    h = norm(functional.conv1d(x[None], w["embed.weight"], w["embed.bias"], padding=reach)[0].T, "embed_norm")
    for i in range(prior.sizes.n_blocks):
        block = f"blocks.{i}."
        taps, bias = w[f"{block}time.weight"][:, None], w[f"{block}time.bias"]
        mixed = functional.conv1d(h.T[None], taps, bias, padding=reach, groups=width)[0].T
        inner = functional.gelu(linear(norm(mixed, f"{block}norm"), f"{block}up"))
        h = h + w[f"{block}scale"] * linear(inner, f"{block}down")
    sums = E.sum(0)
    inside = torch.nonzero(sums > 0)[:, 0]
    nearest = [int(inside[(inside - k).abs().argmin()]) for k in range(len(sums))]
    smooth = ((E / sums.clamp(min=1e-30))[:, nearest]).T @ x
    h = norm(h, "out_norm")
    if prior.sizes.head:
        h = functional.gelu(linear(h, "head"))
    S = torch.exp(smooth + linear(h, "out").T) ** spec.power
    for _ in range(n_updates):
        ratio = E.T @ (m / (E @ S + 1e-8)) / sums.clamp(min=1e-30)[:, None]
        S = S * torch.where((sums > 0)[:, None], ratio, 1.0)
    return np.asarray((S * top).numpy() ** (1 / spec.power))


@pytest.mark.parametrize(
    ("spec", "n_frames"),
    [
        pytest.param(SPEC, 1, id="one frame"),
        pytest.param(SPEC, 16, id="a whole group"),
        pytest.param(SPEC, 17, id="a frame more"),
        pytest.param(SPEC, 50, id="several groups"),
        pytest.param(CAPPED, 40, id="bins above fmax"),
        pytest.param(replace(SPEC, power=2.0), 40, id="power"),
        pytest.param(replace(SPEC, power=1.5), 40, id="another power"),
    ],
)
@pytest.mark.parametrize("sizes", [SMALL, HEADED], ids=["plain", "with a head"])
def test_the_network_is_the_one_that_torch_computes(spec: MelSpec, n_frames: int, sizes: Sizes) -> None:
    prior = random_prior(spec, seed=n_frames, sizes=sizes)
    M = mel_spectrogram(noise((n_frames - 1) * 16), spec) if n_frames > 1 else mel_spectrogram(noise(8), spec)
    assert M.shape[1] == n_frames
    expected = bounded(reference(M, prior), spec)
    # The gate is within 3e-4 of GELU at each of its inputs.
    np.testing.assert_allclose(guessed(M, spec, prior), expected, rtol=0.01, atol=2e-3 * expected.max())


def test_a_guess_agrees_with_the_mel() -> None:
    M = mel_spectrogram(noise(2000), SPEC)
    Y = guessed(M, SPEC, random_prior(SPEC))
    misfit = np.linalg.norm(mel_bank(SPEC) @ Y - M) / np.linalg.norm(M)
    assert misfit < 0.05  # of a guess that is a neper off
    assert (Y >= 0).all()


def test_loudness_scales_a_guess_and_silence_stays_silent() -> None:
    prior, M = random_prior(SPEC), mel_spectrogram(noise(2000), SPEC)
    M[:, 30:50] = 0
    Y = guessed(M, SPEC, prior)
    np.testing.assert_allclose(guessed(8 * M, SPEC, prior), 8 * Y, rtol=1e-6)
    assert not Y[:, 30:50].any()
    assert Y[:, :30].all()
    assert not guessed(0 * M, SPEC, prior).any()


def test_a_guess_does_not_depend_on_what_may_differ() -> None:
    other = replace(SPEC, log="db", floor=1e-10, norm=None, shift=3.0, scale=0.5)
    prior, y = random_prior(SPEC), noise(1000)
    Y = guessed(to_linear(mel_spectrogram(y, SPEC), SPEC), SPEC, prior)
    assert prior.fits(other) is None
    np.testing.assert_allclose(guessed(to_linear(mel_spectrogram(y, other), other), other, prior), Y, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sr": 22050}, "sr is 22050, needed 16000; fmax is 11025.0, needed 8000.0"),
        ({"hop_length": 32}, "hop_length is 32, needed 16"),
        ({"n_mels": 12}, "n_mels is 12, needed 10"),
        ({"power": 2.0}, "power is 2.0, needed 1.0"),
        ({"htk": True}, "htk is True, needed False"),
    ],
)
def test_another_mel_is_refused_with_the_reason(change: dict[str, Any], reason: str) -> None:
    prior, spec = random_prior(SPEC), replace(SPEC, **change)
    assert prior.fits(spec) == reason
    with pytest.raises(ContractError, match=r"the prior 'random' was trained with another mel: .* Leave prior out"):
        pose(np.ones((spec.n_mels, 9)), spec, Recipe(method=None, prior=prior))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_starts_from_the_same_guesses(dtype: Any) -> None:
    prior = random_prior(SPEC)
    recipe = Recipe(method=Admm(), n_iter=2, prior=prior, dtype=dtype)
    problems = [
        pose(mel_spectrogram(noise(n, seed=n), SPEC), SPEC, replace(recipe, seed=n), n) for n in (700, 690, 100)
    ]
    # A prior that was read again is the same one.
    problems[1] = replace(problems[1], recipe=replace(problems[1].recipe, prior=decoded("again", prior.encoded())))
    for (y, *_), p in zip(invert_linears(problems, SPEC, "cpu"), problems, strict=True):
        expected, *_ = invert_linear(p.linear, SPEC, p.recipe, p.length)
        plain, *_ = invert_linear(p.linear, SPEC, replace(p.recipe, prior=None), p.length)
        assert y.dtype == expected.dtype == np.dtype(dtype)
        atol = (1e-3 if dtype == "float32" else 1e-9) * np.abs(expected).max()
        np.testing.assert_allclose(y, expected, rtol=0, atol=atol)
        assert np.abs(plain - expected).max() > 10 * atol


@pytest.mark.parametrize("sizes", [SMALL, HEADED], ids=["plain", "with a head"])
def test_a_file_holds_the_prior(sizes: Sizes) -> None:
    prior = random_prior(CAPPED, sizes=sizes)
    data = prior.encoded()
    read = decoded("x.safetensors", data)
    assert (read.spec, read.sizes, read.name) == (CAPPED, sizes, "x.safetensors")
    for name, values in prior.weights.items():
        np.testing.assert_array_equal(read.weights[name], values)
    assert read == prior
    assert hash(read) == hash(prior)
    assert read.encoded() == data
    assert random_prior(CAPPED, seed=1) != prior
    assert random_prior(SPEC) != prior
    # Any reader of safetensors finds whole tensors after an aligned header.
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert start % 8 == 0
    assert max(ends) == len(data) - start


def relabelled(data: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new)


def test_a_file_without_a_head_is_one_that_an_older_melmill_reads() -> None:
    def about(sizes: Sizes) -> dict[str, Any]:
        data = random_prior(SPEC, sizes=sizes).encoded()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found: dict[str, Any] = json.loads(header["__metadata__"]["melmill"])
        return found

    plain, headed = about(SMALL), about(HEADED)
    assert (plain["version"], "head" in plain["sizes"]) == (1, False)
    assert (headed["version"], headed["sizes"]["head"]) == (2, 40)


FILE = random_prior(SPEC).encoded()
DAMAGED = {
    "empty": (b"", r"must be a file that a prior's training exported, got 'x', .* \(0 bytes"),
    "header cut": (FILE[:100], "truncated or no prior"),
    "tensors cut": (FILE[:-2], "truncated or no prior .*a tensor of shape"),
    "no safetensors": (b"PK\x03\x04" * 100, "truncated or no prior"),
    "of another kind": (relabelled(FILE, b"melmill prior", b"melmill other"), "its format is 'melmill other'"),
    "of later code": (relabelled(FILE, rb"\"version\": 1", rb"\"version\": 3"), "has version 3, expected 1 or 2: "),
    "odd sizes": (relabelled(FILE, rb"\"width\": 16", rb"\"width\": 17"), "width must be a multiple of 8, got 17"),
    "other sizes": (relabelled(FILE, rb"\"width\": 16", rb"\"width\": 24"), "has shape .* expected"),
    "fewer blocks": (relabelled(FILE, rb"\"n_blocks\": 2", rb"\"n_blocks\": 1"), "has an unknown tensor 'blocks.1"),
    "more blocks": (relabelled(FILE, rb"\"n_blocks\": 2", rb"\"n_blocks\": 3"), "lacks tensor 'blocks.2"),
    "not finite": (FILE[:-2] + np.float16(np.nan).tobytes(), "out.bias holds values that are not finite"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused(damage: str) -> None:
    data, message = DAMAGED[damage]
    with pytest.raises(ParameterError, match=message) as raised:
        decoded("x", data)
    assert str(raised.value).startswith("prior ")
    assert "\n" not in str(raised.value)


def test_sizes_are_those_that_kernels_compute() -> None:
    with pytest.raises(ParameterError, match="kernel must be odd, got 4"):
        Sizes(kernel=4)
    with pytest.raises(ParameterError, match="hidden must be a multiple of 8, got 20"):
        Sizes(hidden=20)
    with pytest.raises(ParameterError, match="n_blocks must be at least 1, got 0"):
        Sizes(n_blocks=0)


def test_computing_a_prior_imports_no_torch() -> None:
    code = "import sys, melmill.stages.numeric.compiled.prior; print(*{'torch', 'librosa'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("sizes", [SMALL, HEADED], ids=["plain", "with a head"])
@pytest.mark.parametrize("spec", [SPEC, CAPPED, replace(SPEC, power=2.0), replace(SPEC, power=1.5)])
def test_the_network_to_train_is_the_one_that_inverters_compute(spec: MelSpec, sizes: Sizes) -> None:
    prior = random_prior(spec, sizes=sizes)
    network = PriorNetwork(spec, prior.sizes)
    network.take(prior.weights)
    for name, values in network.tensors().items():
        np.testing.assert_array_equal(values, prior.weights[name])
    M = mel_spectrogram(noise(800), spec)
    top = float(M.max())
    m = torch.from_numpy(M.T / top)[None]
    with torch.no_grad():
        Y = agreeing(network(m).exp(), m, bank_of(spec, torch.device("cpu")))[0].T.numpy() * top ** (1 / spec.power)
    expected = guessed(M, spec, prior)
    np.testing.assert_allclose(bounded(Y, spec), expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_the_slope_of_the_gate_is_right() -> None:
    x = torch.linspace(-9, 9, 91, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Gate.apply, (x,))
    gated = Gate.apply(x)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(gated, functional.gelu(x), rtol=0, atol=4e-4)
