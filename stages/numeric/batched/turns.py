"""Who uses the GPU of this process: one task after the other, while those that wait read and write."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


class Turns:
    """A lock that is given in the order in which it was asked for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked: deque[object] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for those that asked before, and keep those that ask later waiting."""
        mine = object()
        with self._changed:
            self._asked.append(mine)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._asked[0] is mine)
            yield
        finally:
            with self._changed:
                self._asked.remove(mine)
                self._changed.notify_all()


# One for all: a worker computes on one GPU, whichever model or method does.
_GPU = Turns()


def turn(device: torch.device) -> AbstractContextManager[None]:
    """Return what a task holds while it computes on a device; on the CPU nothing, as every thread has a core."""
    return nullcontext() if device.type == "cpu" else _GPU.turn()
