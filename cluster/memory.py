"""How much memory this process has needed."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_PROCESS = Path("/proc/self")
# "Reset the peak resident set size" (proc(5), clear_refs).
_RESET_PEAK = "5"


def reset_peak() -> None:
    """Let the peak count anew from here, where the system can (Linux); elsewhere it is that of the whole process."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return


def peak_bytes() -> int:
    """Return the largest resident size of this process since `reset_peak`, or since it began where that can't be."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
