"""How work goes to a device: placement, a lock for the GPU, and batches that its memory holds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from melmill.stages.numeric.errors import DeviceMissing, ParameterError
from melmill.stages.numeric.melspec import Precision

Result = TypeVar("Result")

# One kernel that reads and writes all that a step touches, once. By default the compiler splits a
# long one and passes values on through memory.
_ONE_KERNEL = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 1000}

# A batch's shortest utterance has at least this share of the frames of its longest, so that little
# padding is computed.
_ALIKE = 0.75


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Say where and how a batch is computed.

    Parameters
    ----------
    device : torch.device
    dtype : {torch.float32, torch.float64}
    fused : bool
        Compile each element-wise step to one kernel. This needs float32, and a C++ compiler on the
        CPU or Triton on CUDA.
    """

    device: torch.device
    dtype: torch.dtype
    fused: bool

    def tensor(self, values: ArrayLike) -> Tensor:
        """Return values as a tensor of the precision on the device."""
        return torch.as_tensor(values, dtype=self.dtype).to(self.device)

    def kernel(self, function: Callable[..., None]) -> Callable[..., None]:
        """Return an element-wise function, compiled where `fused` is set; it overwrites tensors."""
        return _compiled(function) if self.fused else function


def placement(device: str, dtype: Precision) -> Placement:
    """Return how to compute on a device, as torch names it.

    Raises
    ------
    ParameterError
        Torch knows no device of that name.
    DeviceMissing
        It is a CUDA device and there is none.
    """
    try:
        known = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ParameterError("device", f"must be 'cpu' or 'cuda', got {device!r}") from error
    if known.type == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(
            f"device {device!r} needs a CUDA device, and torch {torch.__version__} finds none in this process: use "
            "'cpu', or run where there is one (a pool of GPU workers, a torch built for CUDA)"
        )
    # Twice the precision is for tests, which need no speed.
    fused = known.type == "cuda" and dtype == "float32"
    return Placement(device=known, dtype=getattr(torch, dtype), fused=fused)


def device_name(device: str) -> str:
    """Return what a device is called, for people: ``cuda (NVIDIA H200)``."""
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        return device
    return f"{device} ({torch.cuda.get_device_name(device)})"


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep matrix products from being rounded to 10 bits (TF32), whatever the process is set to."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class FifoLock:
    """A lock that threads get in the order in which they asked for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for those that asked before, then hold the lock."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._queue[0] is ticket)
            yield
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()


# A worker computes on one GPU, so that models and solvers share one lock.
_GPU = FifoLock()


def device_lock(device: torch.device) -> AbstractContextManager[None]:
    """Return what a task holds while it computes on a device. The CPU needs no lock."""
    return nullcontext() if device.type == "cpu" else _GPU.hold()


def batches(n_frames: Sequence[int], most_frames: int) -> list[list[int]]:
    """Group utterances of like length, the longest first.

    Parameters
    ----------
    n_frames : sequence of int
        Frames of each utterance.
    most_frames : int
        Frames of a padded batch. An utterance that has more is a batch by itself.

    Returns
    -------
    list of list of int
        The batches' utterances, as indices.

    Examples
    --------
    >>> batches([90, 100, 40, 95], 250)
    [[1, 3], [0], [2]]
    """
    grouped: list[list[int]] = []
    for index in sorted(range(len(n_frames)), key=lambda i: -n_frames[i]):
        longest = n_frames[grouped[-1][0]] if grouped else 0
        if grouped and n_frames[index] >= _ALIKE * longest and (len(grouped[-1]) + 1) * longest <= most_frames:
            grouped[-1].append(index)
        else:
            grouped.append([index])
    return grouped


def in_halves(work: Callable[[Sequence[int]], list[Result]], batch: Sequence[int]) -> list[Result]:
    """Return the results of a batch, computed in halves if memory does not hold it whole."""
    try:
        return work(batch)
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Past the handler, whose traceback keeps the tensors of the attempt.
    torch.cuda.empty_cache()
    middle = len(batch) // 2
    return [*in_halves(work, batch[:middle]), *in_halves(work, batch[middle:])]


@cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    return torch.compile(function, fullgraph=True, options=dict(_ONE_KERNEL))
