"""A small file system for the stores, which can be filled and made read-only."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

_SIZE = "256m"
_CHUNK = bytes(1 << 20)
_TRIES = 100


class Disk:
    """A folder on a small file system of its own, or a plain folder if nothing can be mounted.

    Parameters
    ----------
    folder : Path
        A folder that does not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        done = _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder))
        self.refusal = done.stderr.strip() if done.returncode else ""
        self._ballast = folder / "ballast"

    @property
    def mounted(self) -> bool:
        """Whether it is a file system of its own."""
        return not self.refusal

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while file.write(_CHUNK[:size]) == size:
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    def lock(self) -> bool:
        """Make it read-only. Return False if that is impossible here."""
        # Refused while a file is open for writing, which none is for long, unless its process was stopped.
        for _ in range(_TRIES):
            if not _run("mount", "-o", "remount,ro", str(self.folder)).returncode:
                return True
            time.sleep(0.005)
        return False

    def unlock(self) -> None:
        """Make it writable again."""
        _run("mount", "-o", "remount,rw", str(self.folder))

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
