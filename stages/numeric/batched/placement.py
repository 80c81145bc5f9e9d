"""Where a batch is computed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from melmill.stages.numeric.errors import DeviceMissing
from melmill.stages.numeric.melspec import Precision

# A kernel that reads and writes all that a step touches, once: the compiler would split a long one, and pass on what
# it computed through memory.
_ONE_KERNEL = {"realize_opcount_threshold": 1000, "realize_reads_threshold": 1000}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A device, the precision there, and whether element-wise steps are compiled to one kernel each.

    Parameters
    ----------
    device : torch.device
    dtype : {torch.float32, torch.float64}
    fused : bool
        Needs float32, and a C++ compiler on the CPU or Triton on CUDA.
    """

    device: torch.device
    dtype: torch.dtype
    fused: bool

    def tensor(self, values: Any) -> Tensor:  # noqa: ANN401 - whatever torch takes
        """Return values as a tensor of the precision on the device."""
        return torch.as_tensor(values, dtype=self.dtype).to(self.device)

    def kernel(self, function: Callable[..., None]) -> Callable[..., None]:
        """Return an element-wise function, which overwrites tensors that it is given, compiled where that is asked."""
        return _compiled(function) if self.fused else function


def placement(device: str, dtype: Precision) -> Placement:
    """Return how to compute on a device.

    Raises
    ------
    DeviceMissing
        It is a CUDA device and there is none.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(
            f"device {device!r} needs a CUDA device, and torch {torch.__version__} finds none in this process: use "
            "'cpu', or run where there is one (a pool of GPU workers, a torch built for CUDA)"
        )
    cuda = torch.device(device).type == "cuda"
    # Twice the precision is for tests, which need no speed.
    return Placement(device=torch.device(device), dtype=getattr(torch, dtype), fused=cuda and dtype == "float32")


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


@cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    return torch.compile(function, fullgraph=True, options=dict(_ONE_KERNEL))
