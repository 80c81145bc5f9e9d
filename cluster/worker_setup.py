"""What a worker that melmill starts does first; named as a preload module, so that restarted ones do it too."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker


def dask_setup(worker: Worker) -> None:
    """Ignore ctrl-C, which a terminal sends to workers as well: the client lets them finish what they are at."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
