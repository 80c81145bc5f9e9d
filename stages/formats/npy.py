"""NumPy's file format for one array, read without ever unpickling."""

from __future__ import annotations

import io
import math
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from melmill.stages.numeric.errors import Unusable

# The header of an array of numbers takes 128 bytes as a rule.
HEAD_BYTES = 4096
_MAGIC = b"\x93NUMPY"


class NpyHeader(NamedTuple):
    """Hold shape, order and type of an array, and the offset of its values in bytes."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int


def npy_header(head: bytes, size_bytes: int) -> NpyHeader:
    """Read the header of a ``.npy`` file from its first bytes and check it against the file's size.

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` of the file, or the whole file where it is shorter.
    size_bytes : int
        Size of the whole file.

    Raises
    ------
    Unusable
        It is empty, in another format, cut off, or holds something else than numbers. Pickled
        objects are never read.

    References
    ----------
    NumPy enhancement proposal 1: a simple file format for NumPy arrays.
    """
    if size_bytes == 0:
        raise Unusable("file is empty (0 bytes)")
    if not head.startswith(_MAGIC):
        raise Unusable(f"not a .npy file: it starts with {head[:6]!r}, expected {_MAGIC!r}")
    file = io.BytesIO(head)
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read(file)
    except KeyError as error:
        raise Unusable(f"holds no plain numbers: its format is {version!r}, of named fields") from error
    # NumPy tokenizes a header that is no literal, and a header may be nested too deeply for Python.
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        raise Unusable(f"file is truncated or damaged in its header: {str(error).splitlines()[0]}") from error
    if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise Unusable(f"file is damaged in its header: an array can't have the shape {shape!r}")
    header = NpyHeader(shape, fortran, dtype, file.tell())
    if header.dtype.hasobject:
        raise Unusable("holds pickled objects, which are never read: save a plain array of floats")
    expected = header.offset + math.prod(header.shape) * header.dtype.itemsize
    if expected != size_bytes:
        what = "truncated" if expected > size_bytes else "damaged"
        raise Unusable(
            f"file is {what}: an array of shape {header.shape!r} and dtype {header.dtype.name!r} takes {expected:,} "
            f"bytes, the file has {size_bytes:,}"
        )
    return header


def decode_npy(data: bytes) -> NDArray[Any]:
    """Return the array of a ``.npy`` file in its own type; raise Unusable like `npy_header`."""
    header = npy_header(data[:HEAD_BYTES], len(data))
    values = np.frombuffer(data, dtype=header.dtype, offset=header.offset)
    return values.reshape(header.shape, order="F" if header.fortran else "C")


def encode_npy(array: NDArray[Any]) -> bytes:
    """Return an array of numbers as the bytes of a ``.npy`` file, in C order."""
    file = io.BytesIO()
    npy.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return file.getvalue()
