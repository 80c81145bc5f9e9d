"""Silent damage to a file."""

from __future__ import annotations

import os
from pathlib import Path


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Keep nothing of a file but its name."""
    os.truncate(path, 0)


def flip(path: Path, where: float = 0.5) -> None:
    """Flip one bit of a file, at a share in [0, 1) of its length."""
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
