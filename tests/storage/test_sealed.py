"""JSON with its checksum: every flip of a single bit is noticed."""

from __future__ import annotations

import json

import pytest

from melmill.storage.records import sealed, unsealed

FIELDS = {"node": "mel", "absent": ["84-121123-0000"], "files": {"c/0": {"n_bytes": 12}}, "compute_s": 0.1, "text": "é"}


def test_fields_come_back_in_their_order() -> None:
    assert list(unsealed(sealed(FIELDS)).items()) == list(FIELDS.items())


def test_every_flipped_bit_is_found_or_changes_nothing() -> None:
    data = sealed(FIELDS)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            try:
                found = unsealed(bytes(flipped))
            except (ValueError, UnicodeDecodeError):
                continue
            # A flip in the checksum's name makes it an unknown field.
            assert {name: found[name] for name in FIELDS} == FIELDS, (place, bit)


def test_what_has_no_checksum_is_believed() -> None:
    assert unsealed(json.dumps(FIELDS).encode()) == FIELDS


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff"])
def test_what_is_not_fields_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected a mapping|Expecting|decode|property"):
        unsealed(data)
