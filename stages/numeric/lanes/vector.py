"""What passes over frames are written in: the operations on vectors, and what compiles functions of them."""

from __future__ import annotations

from pathlib import Path

from melmill import vector
from melmill.compiling import kernels
from melmill.vector import LANES, Flat, Lanes, inlined, kept, larger, load, power, root, smaller, store, zeros

__all__ = [
    "LANES",
    "Flat",
    "Lanes",
    "inlined",
    "kept",
    "kernel",
    "larger",
    "load",
    "power",
    "root",
    "smaller",
    "store",
    "zeros",
]

_FOLDER = Path(__file__).parent
kernel = kernels(_FOLDER, _FOLDER.with_name("compiled"), Path(vector.__file__))
