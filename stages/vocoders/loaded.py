"""A vocoder that is ready: NumPy mels in, NumPy waveforms out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.vocoders.errors import VocoderError
from melmill.stages.vocoders.family import Checkpoint, Noise, Vocoder
from melmill.stages.vocoders.registry import family as find_family
from melmill.stages.vocoders.registry import recognise


def load(checkpoint: Checkpoint, family: str | None = None, device: str = "cpu") -> LoadedVocoder:
    """Make the vocoder of a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
    family : str or None
        Name of its family; None: told by its keys.
    device : str
        Where it computes, in torch's words.

    Raises
    ------
    VocoderError
        No family, or not the one named, recognises it; or its tensors, its configuration and its mel don't fit.
    """
    found = recognise(checkpoint) if family is None else find_family(family)
    if not found.recognises(checkpoint):
        raise VocoderError(
            f"{checkpoint.name}: is no {found.name} checkpoint: its tensors are called "
            f"{', '.join(map(repr, list(checkpoint.state)[:3])) or 'nothing'}. Leave family out to have it told by them"
        )
    return LoadedVocoder(model=found.build(checkpoint).to(device), name=checkpoint.name, device=device)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedVocoder:
    """Turns mels into waveforms; the same mel, seed and device give the same bytes.

    Parameters
    ----------
    model : Vocoder
    name : str
        File name of its checkpoint.
    device : str
        Where `model` is.
    """

    model: Vocoder
    name: str
    device: str

    @property
    def spec(self) -> MelSpec:
        """The mel that it needs."""
        return self.model.spec

    @property
    def family(self) -> str:
        """Name of its family."""
        return self.model.family

    def __call__(
        self, M: NDArray[Any], seed: int = 0, noise: Sequence[NDArray[Any]] | None = None
    ) -> NDArray[np.float32]:
        """Return the waveform of a mel.

        Parameters
        ----------
        M : ndarray of float, shape (n_mels, n_frames)
            Made by `spec`.
        seed : int
            Of what a stochastic vocoder draws; others ignore it.
        noise : sequence of ndarray or None
            The draws themselves, in the official order and shapes, with or without a batch axis of 1.

        Returns
        -------
        ndarray of float32, shape (n_samples,)
            As the network gives it, before any conversion to int16.

        Raises
        ------
        VocoderError
            `M` has other bands, no frames or values that are not finite; or `noise` has other shapes.
        """
        mel = self._checked(M)
        draws = self._drawn(mel, seed) if noise is None else self._given(mel, noise)
        return self._run([mel], [draws])[0]

    def batch(self, mels: Sequence[NDArray[Any]], seed: int | Sequence[int] = 0) -> list[NDArray[np.float32]]:
        """Return the waveforms of mels of any lengths: each is what it is alone, to rounding.

        On a GPU they are worked on together; on the CPU one by one, where padding would only cost.

        Parameters
        ----------
        mels : sequence of ndarray of float, shape (n_mels, n_frames)
        seed : int or sequence of int
            Of all, or of each.
        """
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * len(mels)
        if len(seeds) != len(mels):
            raise VocoderError(f"seed must be one or one for each of {len(mels)} mels, got {len(seeds)}")
        if self.device != "cpu":
            return self.together(mels, seeds)
        checked = [self._checked(M) for M in mels]
        return [self._run([mel], [self._drawn(mel, each)])[0] for mel, each in zip(checked, seeds, strict=True)]

    def together(self, mels: Sequence[NDArray[Any]], seeds: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return the waveforms of one padded batch, see `batch`."""
        if not mels:
            return []
        checked = [self._checked(M) for M in mels]
        return self._run(checked, [self._drawn(mel, seed) for mel, seed in zip(checked, seeds, strict=True)])

    def _checked(self, M: NDArray[Any]) -> Tensor:
        n_mels = self.spec.n_mels
        if M.ndim != 2 or M.shape[0] != n_mels or M.shape[1] == 0:
            raise VocoderError(f"{self.name}: M must have shape ({n_mels}, n_frames), got {M.shape!r}")
        mel = torch.from_numpy(np.ascontiguousarray(M, dtype=np.float32))
        if not torch.isfinite(mel).all():
            raise VocoderError(f"{self.name}: M holds values that are not finite")
        return mel

    def _drawn(self, mel: Tensor, seed: int) -> Noise:
        return self.model.drawn(mel, torch.Generator().manual_seed(seed))

    def _given(self, mel: Tensor, noise: Sequence[NDArray[Any]]) -> Noise:
        wanted = self._drawn(mel, 0)
        given = [torch.from_numpy(np.ascontiguousarray(draw, dtype=np.float32)) for draw in noise]
        draws = tuple(_without_batch(draw, want.ndim) for draw, want in zip(given, wanted, strict=False))
        if len(given) != len(wanted) or not self.model.takes(mel.shape[1], draws):
            raise VocoderError(f"{self.name}: noise must have the shapes {_shapes(wanted)}, got {_shapes(given)}")
        return draws

    def _run(self, mels: list[Tensor], draws: list[Noise]) -> list[NDArray[np.float32]]:
        frames = [mel.shape[1] for mel in mels]
        lengths = None if len(set(frames)) == 1 else torch.tensor(frames)
        batch = _stacked(mels, self.model.silence).to(self.device)
        noise = [_stacked(list(each), 0.0).to(self.device) for each in zip(*draws, strict=True)]
        # Reduced precision is the default of convolutions on newer GPUs, and 1e-3 off.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False, deterministic=True, benchmark=False):
            y = self.model(batch, None if lengths is None else lengths.to(self.device), noise)
        found = y.float().cpu().numpy()
        return [row[: self.model.n_samples(n)].copy() for row, n in zip(found, frames, strict=True)]


def _without_batch(draw: Tensor, n_axes: int) -> Tensor:
    """Return a tensor without leading axes of 1 beyond `n_axes`."""
    while draw.ndim > n_axes and draw.shape[0] == 1:
        draw = draw[0]
    return draw


def _shapes(draws: Sequence[Tensor]) -> str:
    """Say which shapes there are, those of one kind in a row once.

    >>> _shapes([torch.ones(8), torch.ones(8), torch.ones(2, 4)])
    '[2 x (8,), (2, 4)]'
    """
    runs = [(len(list(run)), shape) for shape, run in groupby(tuple(draw.shape) for draw in draws)]
    return "[" + ", ".join(f"{n} x {shape}" if n > 1 else f"{shape}" for n, shape in runs) + "]"


def _stacked(tensors: list[Tensor], filling: float) -> Tensor:
    """Stack tensors of one rank, each padded at the ends of its axes to the largest."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    stacked = tensors[0].new_full((len(tensors), *shape), filling)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked
