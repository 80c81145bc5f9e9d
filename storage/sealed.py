"""JSON that knows its own checksum, so that a flipped bit is not taken for another value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_SEAL = "sha256"


def sealed(fields: Mapping[str, Any]) -> bytes:
    """Return fields as the bytes of a file, in their order, with their checksum."""
    return (json.dumps({**fields, _SEAL: _checksum(fields)}, indent=1) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the fields of a file's bytes; one without a checksum, as older versions wrote them, is believed.

    Raises
    ------
    ValueError
        The bytes are not JSON, not fields, or not those that were written.
    """
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError(f"expected fields, got {type(fields).__name__}")
    seal = fields.pop(_SEAL, None)
    if seal is not None and seal != _checksum(fields):
        raise ValueError("its checksum is not that of its fields")
    return fields


def _checksum(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()
