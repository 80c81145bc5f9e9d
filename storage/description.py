"""What a product is: the node that made it, its parameters, its inputs and the layout of its array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from melmill.storage.arrays import ArraySpec
from melmill.storage.sealed import sealed, unsealed

Address = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ProductDescription:
    """Describe a product, as ``node.json`` in its folder does.

    Parameters
    ----------
    node, key : str
        Name of the node and fingerprint of all that decides its result.
    kind : str
        ``utterances``, ``waveform``, ``mel``, ``scores`` or ``report``.
    stage, version : str, int
        What made it.
    parameters : mapping
        Plain values that JSON can hold.
    inputs : mapping of str to sequence of (node, key)
        By port.
    shard_duration_s : float
        Audio that a shard holds at most, s.
    catalogue : (node, key) or None
        Whose utterances it has; None for reports.
    array : ArraySpec or None
        Layout of its array, None where it is a table or a report.
    mel : mapping or None
        The mel spec as plain values: of a mel itself, or of the mel that waveforms were made from.
    conversions : mapping of str to str
        How each field of that mel that was not as needed was converted, ``lossless`` or ``lossy``; empty where none.
    sr : int or None
        Sampling rate of its waveforms or of those under its mels, Hz.
    scored : str or None
        Node whose waveforms its scores are about.
    """

    node: str
    key: str
    kind: str
    stage: str
    version: int
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Sequence[Address]]
    shard_duration_s: float
    catalogue: Address | None = None
    array: ArraySpec | None = None
    mel: Mapping[str, Any] | None = None
    conversions: Mapping[str, str] = field(default_factory=dict)
    sr: int | None = None
    scored: str | None = None

    @property
    def slot_length(self) -> int:
        """Entries of one slot of its array; 0 where it has none."""
        return self.array.slot_length(self.shard_duration_s) if self.array else 0

    def comparable(self) -> dict[str, Any]:
        """Return the fields as they are after a round trip through JSON: equal for equal descriptions."""
        return unsealed(self.to_json())

    def to_json(self) -> bytes:
        """Return the description as the bytes of its file."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> ProductDescription:
        """Return the description of a file's bytes; raise ValueError, TypeError or KeyError where they are none."""
        fields = unsealed(data)
        fields["inputs"] = {port: [_address(pair) for pair in pairs] for port, pairs in fields["inputs"].items()}
        fields["catalogue"] = fields["catalogue"] and _address(fields["catalogue"])
        fields["array"] = fields["array"] and ArraySpec(**fields["array"])
        return cls(**fields)


def _address(pair: Sequence[str]) -> Address:
    node, key = pair
    return node, key
