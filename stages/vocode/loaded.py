"""A vocoder that is ready: NumPy mels in, NumPy waveforms out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.batches import Launched, Staged, stage, started, to_host
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.family import Checkpoint, Noise, Vocoder
from melmill.stages.vocode.registry import family as find_family
from melmill.stages.vocode.registry import recognise

_HOST_THREADS = 8


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
        Unusable
            `M` has fewer frames than it takes.
        """
        mel = self._checked(M)
        draws = self._drawn(mel, seed) if noise is None else self._given(mel, noise)
        return self._alone(mel, draws)

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
        return [self._alone(mel, self._drawn(mel, each)) for mel, each in zip(checked, seeds, strict=True)]

    def together(self, mels: Sequence[NDArray[Any]], seeds: Sequence[int]) -> list[NDArray[np.float32]]:
        """Return the waveforms of one padded batch, see `batch`."""
        return self.waves(self.launched(self.staged(mels, seeds)))[0] if mels else []

    def staged(self, mels: Sequence[NDArray[Any]], seeds: Sequence[int]) -> Staged:
        """Return a padded batch, checked, with its noise, in the host's memory: the first of three steps."""
        checked = [self._checked(M) for M in mels]
        if self.device == "cpu":
            return self._staged(checked, [self._drawn(mel, seed) for mel, seed in zip(checked, seeds, strict=True)])
        # A start that signal processing makes may take a core longer than the rest takes the device.
        with ThreadPoolExecutor(_HOST_THREADS) as pool:
            return self._staged(checked, list(pool.map(self._drawn, checked, seeds)))

    def part(self, staged: Staged, rows: Sequence[int]) -> Staged:
        """Return some of a batch, padded anew."""
        return self._staged([staged.mels[row] for row in rows], [staged.draws[row] for row in rows])

    def launched(self, staged: Staged) -> Launched:
        """Give a batch to the device, which may still be at it on return: the second step."""
        device = torch.device(self.device)
        clock = started(device)
        mel = staged.mel.to(device, non_blocking=True)
        lengths = None if staged.lengths is None else staged.lengths.to(device, non_blocking=True)
        noise = [draws.to(device, non_blocking=True) for draws in staged.noise]
        # Reduced precision is the default of convolutions on newer GPUs, and 1e-3 off.
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False, deterministic=True, benchmark=False):
            y = to_host(self.model(mel, lengths, noise))
        clock.stop()
        return Launched(y=y, n_frames=staged.n_frames, clock=clock)

    def waves(self, launched: Launched) -> tuple[list[NDArray[np.float32]], float]:
        """Wait for the device; return the waveforms, and for how long it was at work, s: the last step."""
        busy_s = launched.clock.wait()
        rows = zip(launched.y.numpy(), launched.n_frames, strict=True)
        return [row[: self.model.n_samples(n)].copy() for row, n in rows], busy_s

    def _checked(self, M: NDArray[Any]) -> Tensor:
        n_mels = self.spec.n_mels
        if M.ndim != 2 or M.shape[0] != n_mels or M.shape[1] == 0:
            raise VocoderError(f"{self.name}: M must have shape ({n_mels}, n_frames), got {M.shape!r}")
        self.model.check_length(M.shape[1])
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

    def _staged(self, mels: Sequence[Tensor], draws: Sequence[Noise]) -> Staged:
        return stage(mels, draws, self.model.silence, torch.device(self.device))

    def _alone(self, mel: Tensor, draws: Noise) -> NDArray[np.float32]:
        return self.waves(self.launched(self._staged([mel], [draws])))[0][0]


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
