"""Processes whose writes fail and whose clock is off, whenever that is ordered."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")
_LAYOUT = struct.Struct("=qq")


def build(folder: Path) -> Path | None:
    """Compile the library that carries orders out; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)], check=True)
    return library


class Orders:
    """What the processes that are started with `environment` are ordered to suffer.

    Parameters
    ----------
    library : Path or None
        As `build` returned it.
    file : Path
        Where the orders stand.
    """

    def __init__(self, library: Path | None, file: Path) -> None:
        self.file = file
        self.give()
        self.environment = {} if library is None else {"LD_PRELOAD": str(library), "MELMILL_FAULTS_ORDERS": str(file)}

    def give(self, *, fsync_fails: bool = False, clock_off_s: int = 0) -> None:
        """Order what holds from now on."""
        # In place and at once: the file is mapped.
        data = _LAYOUT.pack(fsync_fails, clock_off_s)
        if self.file.exists():
            with self.file.open("r+b", buffering=0) as file:
                file.write(data)
        else:
            self.file.write_bytes(data)
