"""Small random checkpoints for tests, official answers, and what to compare with them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from melmill.stages.vocode.files.checkpoint import read
from melmill.stages.vocode.loaded import LoadedVocoder
from melmill.stages.vocode.network import Checkpoint, Vocoder

# Largest difference from an official or a plain implementation, relative to the largest value.
TOLERANCE = 1e-5


class Golden:
    """A folder of what an official implementation answered: ``mel``, ``wav`` and what belongs to the case."""

    def __init__(self, real_data: Path, name: str) -> None:
        self.folder = real_data / "golden" / name
        if not self.folder.is_dir():
            pytest.skip(f"no official answers at {self.folder}")

    def case(self) -> tuple[Path, NDArray[Any], NDArray[Any]]:
        """Return the folder, the mel and the official waveform."""
        return self.folder, self.array("mel"), self.array("wav")

    def array(self, name: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(self.folder / f"{name}.npy")
        return found

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.array(name))

    def json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{name}.json").read_text())
        return found

    def checkpoint(self, name: str) -> Checkpoint:
        return read(name, (self.folder / name).read_bytes())


def relative(y: NDArray[Any] | Tensor, official: NDArray[Any] | Tensor) -> float:
    """Return the largest difference over the largest official value."""
    ours, theirs = np.asarray(y), np.asarray(official)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors, scaled so that layers neither die nor explode."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator) / max(1.0, float(np.prod(shape[1:]))) ** 0.5
        for key, shape in shapes.items()
    }


def randomised(model: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors of a model's names and shapes that keep the size of what goes through."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=generator) / math.sqrt(max(1, tensor[0].numel()))
        for name, tensor in model.state_dict().items()
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


def assert_batch_is_each_alone(
    voc: LoadedVocoder, frames: tuple[int, ...] = (9, 1, 5, 9, 2), tolerance: float = 2e-5
) -> None:
    """Compare a batch of different lengths with one by one."""
    mels = [mel(voc.spec.n_mels, n, seed) for seed, n in enumerate(frames)]
    for M, y in zip(mels, voc.together(mels, [0] * len(mels)), strict=True):
        alone = voc(M)
        assert alone.shape == y.shape == (voc.model.n_samples(M.shape[1]),)
        np.testing.assert_allclose(y, alone, rtol=0.0, atol=tolerance * max(1e-3, np.abs(alone).max(initial=0.0)))


def assert_padding_is_not_heard(model: Vocoder, n_frames: Sequence[int]) -> None:
    """Run utterances of different lengths together, the padding filled with values that would be heard, and alone."""
    generator = torch.Generator().manual_seed(1)
    mels = [torch.rand(model.spec.n_mels, n, generator=generator) for n in n_frames]
    draws = [model.noise(n, generator) for n in n_frames]
    together = model(
        _padded(mels, value=3.0),
        torch.tensor(n_frames),
        [_padded(kind, value=0.5) for kind in zip(*draws, strict=True)],
    )
    for y, M, noise in zip(together, mels, draws, strict=True):
        alone = model(M[None], noise=[draw[None] for draw in noise])
        n_samples = model.n_samples(M.shape[1])
        assert alone.shape == (1, n_samples)
        assert float(alone.abs().max()) > 0.01
        assert relative(y[:n_samples], alone[0]) < TOLERANCE


def _padded(arrays: Sequence[Tensor], value: float) -> Tensor:
    """Return tensors padded with `value` at the ends of their axes and stacked."""
    shape = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
    batch = torch.full((len(arrays), *shape), value, dtype=arrays[0].dtype)
    for row, array in zip(batch, arrays, strict=True):
        row[tuple(slice(size) for size in array.shape)] = array
    return batch
