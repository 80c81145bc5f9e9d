"""What tests of several families do alike."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from melmill.stages.vocode.files.checkpoint import read
from melmill.stages.vocode.network import Checkpoint, Vocoder


class Golden:
    """A folder of what an official implementation answered."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / "golden" / name
        if not self.folder.is_dir():
            pytest.skip(f"no official answers at {self.folder}")

    def array(self, name: str) -> Tensor:
        return torch.from_numpy(np.load(self.folder / f"{name}.npy"))

    def json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return found

    def checkpoint(self, name: str) -> Checkpoint:
        return read(name, (self.folder / name).read_bytes())


def distance(ours: Tensor, official: Tensor) -> float:
    """Return the largest difference, relative to the largest official value."""
    assert ours.shape == official.shape
    return float((ours - official).abs().max() / official.abs().max())


def randomised(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors of a model's names and shapes that keep the size of what goes through."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) / math.sqrt(max(1, tensor[0].numel()))
        for name, tensor in model.state_dict().items()
    }


def batched(arrays: Sequence[Tensor], value: float = 0.0) -> Tensor:
    """Return tensors padded with `value` at the ends of their axes and stacked."""
    shape = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    batch = torch.full((len(arrays), *shape), value, dtype=arrays[0].dtype)
    for row, array in zip(batch, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return batch


def check_that_a_batch_equals_its_utterances(model: Vocoder, n_frames: Sequence[int]) -> None:
    """Run utterances of different lengths together, the padding filled with values that would be heard, and alone."""
    generator = torch.Generator().manual_seed(1)
    mels = [torch.rand(model.spec.n_mels, n, generator=generator) for n in n_frames]
    draws = [model.noise(n, generator) for n in n_frames]
    together = model(
        batched(mels, value=3.0),
        torch.tensor(n_frames),
        [batched(kind, value=0.5) for kind in zip(*draws, strict=True)],
    )
    for y, mel, noise in zip(together, mels, draws, strict=True):
        alone = model(mel[None], noise=[draw[None] for draw in noise])
        n_samples = model.n_samples(mel.shape[1])
        assert alone.shape == (1, n_samples)
        assert float(alone.abs().max()) > 0.01
        assert distance(y[:n_samples], alone[0]) < 1e-5
