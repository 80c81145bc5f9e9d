"""The description of a product, as it is stored in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from melmill.storage.arrays import ArraySpec
from melmill.storage.records import sealed, unsealed

Address = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ProductDescription:
    """The description of a product, as in ``node.json`` in its folder.

    Parameters
    ----------
    node, key : str
        Name of the node, and fingerprint of everything that decides its result.
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
        Of its utterances. None for reports.
    array : ArraySpec or None
        Layout of its array. None for tables and reports.
    mel : mapping or None
        The mel spec as plain values: of the mels, or of the mels that waveforms were made from.
    conversions : mapping of str to str
        By field of that mel that was not as needed: whether it was converted ``lossless`` or
        ``lossy``.
    sr : int or None
        Sampling rate of its waveforms or of those under its mels, Hz.
    scored : str or None
        Node whose waveforms were scored.
    referenced : bool
        Whether its recordings stay in the corpus. The store has their layout, and no array.
    items_of : (node, key) or None
        Whose catalogue lists what it was made of, where it has one of its own that is not stored;
        see `melmill.storage.corpus.items`.
    """

    node: str
    key: str
    kind: str
    stage: str
    version: int
    parameters: Mapping[str, object]
    inputs: Mapping[str, Sequence[Address]]
    shard_duration_s: float
    catalogue: Address | None = None
    array: ArraySpec | None = None
    mel: Mapping[str, Any] | None = None
    conversions: Mapping[str, str] = field(default_factory=dict)
    sr: int | None = None
    scored: str | None = None
    referenced: bool = False
    items_of: Address | None = None

    @property
    def stored_array(self) -> ArraySpec | None:
        """Layout of the array that the store has of it. None also where recordings stay in the corpus."""
        return None if self.referenced else self.array

    @property
    def slot_length(self) -> int:
        """Entries of one slot of its array, 0 where it has no array."""
        return self.array.slot_length(self.shard_duration_s) if self.array else 0

    def with_codecs(self, codecs: int | None) -> ProductDescription:
        """Return the description of the same product in another version of the codecs; None: in its own."""
        if self.array is None or codecs is None:
            return self
        return replace(self, array=replace(self.array, codecs=codecs))

    def comparable(self) -> dict[str, object]:
        """Return the fields after a round trip through JSON: equal for equal descriptions."""
        return unsealed(self.to_json())

    def to_json(self) -> bytes:
        """Return the description as the bytes of its file."""
        fields = asdict(self) | {"array": self.array and self.array.as_dict()}
        if not self.referenced:
            # Older versions don't know it, and stores from before have files without it.
            del fields["referenced"]
        if self.items_of is None:
            del fields["items_of"]
        return sealed(fields)

    @classmethod
    def from_json(cls, data: bytes) -> ProductDescription:
        """Return the description of a file's bytes.

        Raises
        ------
        ValueError, TypeError, KeyError
            The bytes hold something else.
        """
        fields = unsealed(data)
        fields["inputs"] = {port: [_address(pair) for pair in pairs] for port, pairs in fields["inputs"].items()}
        fields["catalogue"] = fields["catalogue"] and _address(fields["catalogue"])
        fields["items_of"] = fields.get("items_of") and _address(fields["items_of"])
        fields["array"] = fields["array"] and ArraySpec.from_dict(fields["array"])
        return cls(**fields)


def _address(pair: Sequence[str]) -> Address:
    node, key = pair
    return node, key
