"""A batch of mels on its way to a device, and its waveforms on their way back.

- Batches in three steps, so that the host works on some while the device works on another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from melmill.stages.vocode.family import Noise


class Stopwatch:
    """Tells for how long the processor was at work between its making and `stop`."""

    def __init__(self) -> None:
        self._began = self._ended = time.perf_counter()

    def stop(self) -> None:
        """End the time."""
        self._ended = time.perf_counter()

    def wait(self) -> float:
        """Wait for the device to come to `stop`; return the time, s."""
        return self._ended - self._began


class _CudaStopwatch(Stopwatch):
    """Tells for how long a CUDA device was, which does later what it is given now."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device)
        self._first, self._last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._first.record(self._stream)

    def stop(self) -> None:
        self._last.record(self._stream)

    def wait(self) -> float:
        self._last.synchronize()
        return float(self._first.elapsed_time(self._last)) / 1e3


@dataclass(frozen=True, kw_only=True, eq=False)
class Staged:
    """A padded batch in the host's memory, pinned where a CUDA device is to copy it while it computes.

    Parameters
    ----------
    mels : sequence of Tensor of float32, shape (n_mels, n_frames)
        What the batch is made of.
    draws : sequence of tuple of Tensor
        The noise of each, as `Vocoder.noise` draws it.
    mel : Tensor of float32, shape (batch, n_mels, n_frames)
    lengths : Tensor of int64, shape (batch,), or None
        Frames of each; None: all have the same.
    noise : sequence of Tensor, shape (batch, ...)
    """

    mels: Sequence[Tensor]
    draws: Sequence[Noise]
    mel: Tensor
    lengths: Tensor | None
    noise: Sequence[Tensor]

    @property
    def n_frames(self) -> list[int]:
        """Frames of each mel."""
        return [mel.shape[1] for mel in self.mels]


@dataclass(frozen=True, kw_only=True, eq=False)
class Launched:
    """Waveforms of a batch, whole once `clock` was waited for.

    Parameters
    ----------
    y : Tensor of float32, shape (batch, n_samples)
        In the host's memory.
    n_frames : sequence of int
        Frames of each mel.
    clock : Stopwatch
        Of the device.
    """

    y: Tensor
    n_frames: Sequence[int]
    clock: Stopwatch


def stage(mels: Sequence[Tensor], draws: Sequence[Noise], silence: float, device: torch.device) -> Staged:
    """Pad mels with `silence`, and noise with zeros, to batches that the device can copy."""
    pinned = device.type == "cuda"
    n_frames = [mel.shape[1] for mel in mels]
    lengths = None if len(set(n_frames)) == 1 else torch.tensor(n_frames, pin_memory=pinned)
    return Staged(
        mels=mels,
        draws=draws,
        mel=_stacked(mels, silence, pinned),
        lengths=lengths,
        noise=[_stacked(kind, 0.0, pinned) for kind in zip(*draws, strict=True)],
    )


def started(device: torch.device) -> Stopwatch:
    """Return a running stopwatch of a device."""
    return _CudaStopwatch(device) if device.type == "cuda" else Stopwatch()


def to_host(y: Tensor) -> Tensor:
    """Return a tensor as float32 in the host's memory; from CUDA it arrives when the device is done."""
    if y.device.type != "cuda":
        return y.float()
    return torch.empty(y.shape, dtype=torch.float32, pin_memory=True).copy_(y, non_blocking=True)


def _stacked(tensors: Sequence[Tensor], filling: float, pinned: bool) -> Tensor:
    """Stack tensors of one rank, each padded at the ends of its axes to the largest."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    stacked = torch.full((len(tensors), *shape), filling, dtype=tensors[0].dtype, pin_memory=pinned)
    for row, tensor in zip(stacked, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked


Batch = TypeVar("Batch")
Prepared = TypeVar("Prepared")
Computed = TypeVar("Computed")
Finished = TypeVar("Finished")


def overlapped(
    batches: Sequence[Batch],
    prepare: Callable[[Batch], Prepared],
    compute: Callable[[Prepared], Computed],
    finish: Callable[[Computed], Finished],
    turn: AbstractContextManager[None],
) -> list[Finished]:
    """Return what becomes of batches, computed one after the other in this thread.

    While one is computed, a thread prepares the next and another finishes the one before; the first is prepared before
    the turn comes, and the last finished after it. What any of the steps raises is raised here.

    Parameters
    ----------
    batches : sequence
    prepare, compute, finish : callable
        Steps of a batch. `compute` may return before a device is done: at most two batches are with it then.
    turn : context manager
        Held while batches are computed.
    """
    finished: list[Future[Finished]] = []
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
        prepared = [ahead.submit(prepare, batch) for batch in batches[:1]]
        with turn:
            for index in range(len(batches)):
                ready = prepared.pop().result()
                prepared += [ahead.submit(prepare, batch) for batch in batches[index + 1 : index + 2]]
                if index > 1:
                    finished[index - 2].result()
                finished.append(behind.submit(finish, compute(ready)))
    return [one.result() for one in finished]
