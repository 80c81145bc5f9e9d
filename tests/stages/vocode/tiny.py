"""Small random checkpoints for tests, and what to compare with."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.vocode.files.checkpoint import read
from melmill.stages.vocode.loaded import LoadedVocoder
from melmill.stages.vocode.network import Checkpoint

# Of what is compared with an official or a plain implementation, relative to its largest value.
TOLERANCE = 1e-5


def relative(y: NDArray[Any], official: NDArray[Any]) -> float:
    """Return the largest difference over the largest official value."""
    assert y.shape == official.shape
    return float(np.abs(y - official).max() / np.abs(official).max())


def tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors, scaled so that layers neither die nor explode."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator) / max(1.0, float(np.prod(shape[1:]))) ** 0.5
        for key, shape in shapes.items()
    }


def with_norms(state: Mapping[str, Tensor], names: tuple[str, str] = ("weight_g", "weight_v")) -> dict[str, Tensor]:
    """Return a state in which every weight is split into a norm and a direction of another length."""
    split: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".weight") and value.ndim == 3:
            norm = value.flatten(1).norm(dim=1)[:, None, None]
            split |= {key.removesuffix("weight") + names[0]: norm, key.removesuffix("weight") + names[1]: 3.0 * value}
        else:
            split[key] = value
    return split


def saved(content: object) -> bytes:
    """Return the bytes of ``torch.save``."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def checkpoint(content: object, **fields: Any) -> Checkpoint:
    """Return a checkpoint as read from a file that holds `content`."""
    found = read("g_0", saved(content))
    return Checkpoint(**{**vars(found), **fields})


def mel(n_mels: int, n_frames: int, seed: int = 0) -> NDArray[np.float32]:
    """Return a random mel of the range of logarithms."""
    return np.random.default_rng(seed).uniform(-8.0, 1.0, (n_mels, n_frames)).astype(np.float32)


def golden(real_data: Path, case: str) -> tuple[Path, NDArray[np.float32], NDArray[np.float32]]:
    """Return the folder, the mel and the official waveform of a golden case."""
    folder = real_data / "golden" / case
    return folder, np.load(folder / "mel.npy"), np.load(folder / "wav.npy")


def assert_batch_is_each_alone(
    voc: LoadedVocoder, frames: tuple[int, ...] = (9, 1, 5, 9, 2), tolerance: float = 2e-5
) -> None:
    """Compare a batch of different lengths with one by one."""
    mels = [mel(voc.spec.n_mels, n, seed) for seed, n in enumerate(frames)]
    for M, y in zip(mels, voc.together(mels, [0] * len(mels)), strict=True):
        alone = voc(M)
        assert alone.shape == y.shape == (voc.model.n_samples(M.shape[1]),)
        np.testing.assert_allclose(y, alone, rtol=0.0, atol=tolerance * max(1e-3, np.abs(alone).max(initial=0.0)))
