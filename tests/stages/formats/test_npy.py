"""Arrays from .npy files, without trusting them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.formats.npy import HEAD_BYTES, decode_npy, encode_npy, npy_header
from melmill.stages.numeric.errors import Unusable


def with_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (80, 12",  # never closed
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 300,
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "-" * 3000 + "1}",
    ],
)
def test_a_header_that_is_no_literal_is_refused(text: str) -> None:
    with pytest.raises(Unusable, match="truncated or damaged in its header"):
        decode_npy(with_header(text))


def saved(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


M = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(
    "array",
    [
        M,
        M.astype(">f8"),
        M.astype(np.float16),
        np.asfortranarray(M),
        M[::2, ::-1],
        np.zeros((0, 80)),
        np.float64(1.5),
        np.zeros((2, 3, 4), np.int16),
    ],
    ids=["float32", "big endian", "half", "Fortran", "strided", "empty", "scalar", "int16"],
)
def test_what_numpy_saves_is_read_as_numpy_reads_it(array: NDArray[Any]) -> None:
    data = saved(array)
    read = decode_npy(data)
    assert read.dtype == np.asarray(array).dtype
    np.testing.assert_array_equal(read, array)
    header = npy_header(data[:HEAD_BYTES], len(data))
    assert header.shape == np.shape(array)


def test_what_is_written_numpy_reads() -> None:
    np.testing.assert_array_equal(np.load(io.BytesIO(encode_npy(M.T)), allow_pickle=False), M.T)
    assert encode_npy(M.T) == encode_npy(np.ascontiguousarray(M.T))


class _Opens:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_never_opened(tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    data = saved(np.array([_Opens(mark)], dtype=object))
    with pytest.raises(Unusable, match="holds pickled objects, which are never read"):
        decode_npy(data)
    assert not mark.exists()
    np.load(io.BytesIO(data), allow_pickle=True)
    assert mark.exists(), "the file does open what it holds where it may"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"file is empty \(0 bytes\)"),
        (b"RIFF....", "not a .npy file: it starts with b'RIFF..'"),
        (saved(M)[:7], "truncated or damaged in its header"),
        (saved(M)[:60], "truncated or damaged in its header"),
        (saved(M)[:-1], r"truncated: an array of shape \(3, 4\) and dtype 'float32' takes 176 bytes, the file has 175"),
        (saved(M) + b"\0", "damaged: .* takes 176 bytes, the file has 177"),
        (saved(M).replace(b"(3, 4)", b"(3,-4)"), r"damaged in its header: an array can.t have the shape \(3, -4\)"),
        (saved(M).replace(b"(3, 4)", b"(3,True)").replace(b"  \n", b"\n"), "in its header"),
        (saved(M).replace(b"(3, 4)", b"(3, x)"), "truncated or damaged in its header"),
        (saved(M).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"), r"its format is \(9, 0\)"),
    ],
)
def test_a_bad_file_says_why(data: bytes, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        decode_npy(data)
