"""Which utterances of another corpus a shard was computed with, as it stands beside the results."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import NamedTuple

from melmill.storage.errors import damaged

_COLUMNS = ("utterance_id", "partner_id", "partner_shard")


class Partner(NamedTuple):
    """Name an utterance of another corpus, and the shard that holds it."""

    utterance_id: str
    shard: int


def partners_file(name: str) -> str:
    """Return the file of the partners of a record, relative to the product's folder."""
    return f"partners/{name}.csv"


def partners_csv(partners: Mapping[str, Partner]) -> bytes:
    r"""Return partners by id as CSV; equal partners give equal bytes.

    >>> partners_csv({"u1": Partner("gen--u1", 0)})
    b'utterance_id,partner_id,partner_shard\nu1,gen--u1,0\n'
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((name, *partners[name]) for name in sorted(partners))
    return text.getvalue().encode()


def read_partners(data: bytes, place: str) -> dict[str, Partner]:
    """Return the partners of `partners_csv`; raise DamagedData, which names `place`."""
    try:
        rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
        return {row["utterance_id"]: Partner(row["partner_id"], int(row["partner_shard"])) for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise damaged(place, f"can't be parsed ({error})") from error
