"""The safetensors format: a length, a JSON header, and raw tensors.

References
----------
safetensors, "Format", https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from melmill.stages.vocode.errors import VocoderError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_safetensors(data: bytes) -> bool:
    """Tell by the first bytes: a header of at most 100 MB that begins with a brace."""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= 100_000_000


def read(name: str, data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file; raise VocoderError where it is truncated or not of this format."""
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header: dict[str, Any] = json.loads(data[8:start])
        return {key: _tensor(data[start:], entry) for key, entry in header.items() if key != "__metadata__"}
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise VocoderError(
            f"{name}: is truncated or not safetensors ({len(data)} bytes): {error}. Fetch it again"
        ) from error


def _tensor(data: bytes, entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    if end > len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} lies at bytes {begin} to {end} of {len(data)}")
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
