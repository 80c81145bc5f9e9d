"""Make the writes of running processes fail, and shift their clocks, on demand."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")
_LAYOUT = struct.Struct("=qq")


def build(folder: Path) -> Path | None:
    """Compile the preloaded library. Return None if there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)], check=True)
    return library


class Orders:
    """Orders to the processes that are started with `environment`.

    Parameters
    ----------
    library : Path or None
        The result of `build`.
    file : Path
        The file that holds the orders.
    """

    def __init__(self, library: Path | None, file: Path) -> None:
        self.file = file
        self.give()
        self.environment = {} if library is None else {"LD_PRELOAD": str(library), "MELMILL_FAULTS_ORDERS": str(file)}

    def give(self, *, fsync_fails: bool = False, clock_off_s: int = 0) -> None:
        """Set the orders from now on."""
        # In place and at once: the file is mapped.
        data = _LAYOUT.pack(fsync_fails, clock_off_s)
        if self.file.exists():
            with self.file.open("r+b", buffering=0) as file:
                file.write(data)
        else:
            self.file.write_bytes(data)
