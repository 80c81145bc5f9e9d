"""What a worker that melmill starts does first; named as a preload module, so that restarted ones do it too."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker


def dask_setup(worker: Worker) -> None:
    """Ignore ctrl-C, which a terminal sends to workers as well: the client lets them finish what they are at."""
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(_leave)


def _leave() -> None:
    """End the process as soon as all that was registered for its end is done.

    What Python would do then, taking every module apart, takes long with torch loaded, and nobody needs it.
    """
    atexit.unregister(_leave)
    atexit._run_exitfuncs()  # there is no other way to run the others first
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
