"""The safetensors layout: the length of a header, the header as JSON, the bytes of tensors.

References
----------
safetensors, "Format", https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number, by the name of its type."""

# The most that the format allows.
_LONGEST_HEADER = 100_000_000


class Stored(NamedTuple):
    """Hold a tensor as it is stored: the name of its type, its shape, and its bytes, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def is_safetensors(data: bytes) -> bool:
    """Tell by the first bytes: a header of at most 100 MB that begins with a brace."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= _LONGEST_HEADER


def unpacked(data: bytes) -> tuple[dict[str, Stored], Mapping[str, str]]:
    """Return the tensors of a file by name, as views of its bytes, and its metadata.

    Raises
    ------
    ValueError
        The file is truncated or not of this format; the message says why.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    if not is_safetensors(data) or start > len(data):
        raise ValueError("its header is not whole")
    try:
        header = json.loads(data[8:start])
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, Mapping) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is no mapping of texts")
    # Slices of bytes are copies, those of a view are not.
    view = memoryview(data)[start:]
    return {name: _stored(view, name, entry) for name, entry in header.items()}, metadata


def _stored(data: memoryview, name: str, entry: Any) -> Stored:  # noqa: ANN401 - a header may hold anything
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(one) is int and one >= 0 for one in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"tensor {name!r} lacks a type, a shape or a place: {entry!r:.80}") from error
    if dtype not in SIZES:
        raise ValueError(f"tensor {name!r} is of type {dtype!r}, expected one of {', '.join(SIZES)}")
    if not whole or not begin <= end <= len(data) or end - begin != math.prod(shape) * SIZES[dtype]:
        raise ValueError(f"a tensor of shape {list(shape)} lies at bytes {begin} to {end} of {len(data)}")
    return Stored(dtype, shape, data[begin:end])


def packed(tensors: Mapping[str, Stored], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a file. The header is padded, so that tensors are aligned.

    >>> tensors, metadata = unpacked(packed({"a": Stored("F16", (2,), bytes(4))}, {"format": "x"}))
    >>> tensors["a"].shape, metadata
    ((2,), {'format': 'x'})
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in tensors.items():
        end = at + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensor.data for tensor in tensors.values())])
