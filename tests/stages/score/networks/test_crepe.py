"""CREPE: its convolutions against sums over taps, its path against the full table."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.score.networks import crepe
from melmill.stages.score.networks.crepe import Crepe, activations, bin_of, cents_of, path


def small() -> tuple[Crepe, dict[str, NDArray[np.float32]]]:
    """A network with the published shape along time, and few channels; some scales are negative."""
    rng = np.random.default_rng(0)
    channels = [1, 6, 4, 4, 4, 4, 2]
    arrays: dict[str, NDArray[np.float32]] = {}
    for i in range(1, 7):
        taps, shape = (512, 1) if i == 1 else (64, 1), (channels[i],)
        arrays[f"conv{i}.weight"] = (rng.standard_normal((channels[i], channels[i - 1], *taps)) / 8).astype(np.float32)
        for name in ("bias", "_BN.weight", "_BN.bias", "_BN.running_mean"):
            key = f"conv{i}{name}" if name[0] == "_" else f"conv{i}.{name}"
            arrays[key] = rng.standard_normal(shape).astype(np.float32)
        arrays[f"conv{i}_BN.running_var"] = rng.uniform(0.5, 2, shape).astype(np.float32)
    arrays["classifier.weight"] = (rng.standard_normal((360, 8)) / 4).astype(np.float32)
    arrays["classifier.bias"] = rng.standard_normal(360).astype(np.float32)
    return crepe.network_of(arrays), arrays


def naive(frame: NDArray[np.float32], arrays: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    x = frame.astype(np.float64)[np.newaxis]
    x = (x - x.mean()) / max(x.std(ddof=1), 1e-10)
    for i in range(1, 7):
        padded = np.pad(x, ((0, 0), (254, 254) if i == 1 else (31, 32)))
        taps = arrays[f"conv{i}.weight"][:, :, :, 0].astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, taps.shape[2], axis=1)[:, :: 4 if i == 1 else 1]
        y = np.maximum(np.einsum("itj,oij->ot", windows, taps) + arrays[f"conv{i}.bias"][:, np.newaxis], 0)
        norm = [
            arrays[f"conv{i}_BN.{name}"][:, np.newaxis] for name in ("running_mean", "running_var", "weight", "bias")
        ]
        y = (y - norm[0]) / np.sqrt(norm[1] + 0.0010000000474974513) * norm[2] + norm[3]
        x = np.maximum(y[:, 0::2], y[:, 1::2])
    logits = arrays["classifier.weight"].astype(np.float64) @ x.T.reshape(-1) + arrays["classifier.bias"]
    return np.asarray(1 / (1 + np.exp(-logits)))


@pytest.mark.parametrize("n", [1024, 1183, 1184, 2000, 1024 + 160 * 130])  # one frame, two, and more than a batch
def test_it_computes_what_was_published(n: int) -> None:
    network, arrays = small()
    y = np.random.default_rng(1).standard_normal(n).astype(np.float32) + np.float32(0.3)
    found = activations(y, network)
    assert found.shape == (crepe.n_frames(n), 360)
    for frame in {0, len(found) // 2, len(found) - 1}:
        expected = naive(y[160 * frame : 160 * frame + 1024], arrays)
        np.testing.assert_allclose(found[frame], expected, atol=2e-5)


def test_silence_has_activations_too() -> None:
    network, arrays = small()
    found = activations(np.zeros(1024, dtype=np.float32), network)
    np.testing.assert_allclose(found[0], naive(np.zeros(1024, dtype=np.float32), arrays), atol=1e-5)


def test_the_path_is_the_likeliest_of_the_full_table() -> None:
    likely = np.random.default_rng(2).uniform(0, 1, (40, 360)).astype(np.float32)
    likely[:, 100] += 0.2
    inside = slice(39, 248)  # 50 to 550 Hz
    weight = np.maximum(12 - np.abs(np.subtract.outer(np.arange(360), np.arange(360))), 0)
    with np.errstate(divide="ignore"):
        steps = np.log(weight / weight.sum(axis=1, keepdims=True))[inside, inside]
    exponential = np.exp(likely[:, inside].astype(float))
    observed = np.log(exponential / exponential.sum(axis=1, keepdims=True))
    value, before = observed[0], []
    for row in observed[1:]:
        candidates = value[:, np.newaxis] + steps
        before.append(candidates.argmax(axis=0))
        value = row + candidates.max(axis=0)
    expected = [int(value.argmax())]
    for row in reversed(before):
        expected.append(int(row[expected[-1]]))
    assert path(likely).tolist() == [39 + at for at in reversed(expected)]


def test_bins_and_cents() -> None:
    assert bin_of(50.0) == pytest.approx(39.447, abs=1e-3)
    assert cents_of(np.array([0, 60])).tolist() == pytest.approx([1997.3794, 3197.3794])
