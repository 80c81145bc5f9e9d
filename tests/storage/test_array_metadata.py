"""Damaged metadata of an array: named when an utterance is read, and never another array."""

from __future__ import annotations

import json
from typing import Any

import pytest

from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import DamagedData
from melmill.storage.product import ARRAY_METADATA, ProductFolder


def read_one(folder: ProductFolder, catalogue: Catalogue) -> Any:
    shard = catalogue.shard(0)
    absent = folder.absent("000000")
    name = next(one.utterance_id for one in shard.utterances if one.utterance_id not in absent)
    return ProductFolder(folder.location).read_array(shard, name)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"zarr_format": 3, "node_type": "group"}'])
def test_metadata_that_can_not_be_parsed_are_damage(full: ProductFolder, catalogue: Catalogue, data: bytes) -> None:
    full.location.replace(ARRAY_METADATA, data)
    with pytest.raises(DamagedData, match=r"zarr.json: can't be parsed .* Run `melmill repair`"):
        read_one(full, catalogue)


def test_lost_metadata_are_damage(full: ProductFolder, catalogue: Catalogue) -> None:
    full.location.remove(ARRAY_METADATA)
    with pytest.raises(DamagedData, match=r"zarr.json: is missing"):
        read_one(full, catalogue)


def test_metadata_of_a_shorter_array_are_damage(full: ProductFolder, catalogue: Catalogue) -> None:
    """Zarr gives what there is of a slice, so that an utterance would be cut in silence."""
    fields = json.loads(full.location.read(ARRAY_METADATA))
    fields["shape"][0] = 3
    full.location.replace(ARRAY_METADATA, json.dumps(fields).encode())
    with pytest.raises(DamagedData, match=r"zarr.json: describes another array than the product's"):
        read_one(full, catalogue)
