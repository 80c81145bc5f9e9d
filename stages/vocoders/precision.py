"""The precision of convolutions and products of matrices, which nothing else is left in."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "float16"]


def at(precision: Precision, device: str) -> torch.autocast:
    """Return a context in which a vocoder computes at a precision on a device; weights and results stay float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=getattr(torch, precision), enabled=precision != "float32")
