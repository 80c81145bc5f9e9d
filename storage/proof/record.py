"""A record: the proof that a node's work on a shard is stored. Nothing else counts as done."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

RECORDS = "records"

_SEAL = "sha256"
_SUFFIX = ".json"
# A hundred years, s. A record that says more is none.
_LONGEST_S = 100 * 365 * 24 * 3600.0


def sealed(fields: Mapping[str, object]) -> bytes:
    """Return fields, in their order and with their checksum, as the bytes of a JSON file."""
    return (json.dumps({**fields, _SEAL: _checksum(fields)}, indent=1) + "\n").encode()


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the fields of a file's bytes. Older versions wrote no checksum; that is accepted.

    Raises
    ------
    ValueError
        The bytes are not JSON, not fields, or do not fit their checksum.
    """
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError(f"expected a mapping, got {type(fields).__name__}")
    seal = fields.pop(_SEAL, None)
    if seal is not None and seal != _checksum(fields):
        raise ValueError("its checksum is not that of its fields")
    return fields


def _checksum(fields: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Size and SHA-256 (hexadecimal) of a file as it was written."""

    n_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> StoredFile:
        """Return size and checksum of a file that holds `data`."""
        return cls(n_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What only the worker knows about an attempt.

    Parameters
    ----------
    compute_s : float
        Time spent computing, s.
    started_at : str
        ISO 8601, UTC.
    host : str
        Name of the machine.
    attempt : int
        Number of the attempt, from 1.
    versions : mapping of str to str
        Of the packages that decide the result.
    pool, device, worker : str
        Pool of the task, what it computed on, and which process of `host` (and thread, on the CPU)
        did it.
    busy_s : float or None
        Part of `compute_s` in which the device was busy. None where the stage does not measure it.
    peak_mem_bytes : int
        Largest resident size of the worker process during the task. 0 where it was not measured.
    levels : mapping of str to int, float or str
        What an ingest node counted of the levels of its recordings. Empty for nothing to say.
    counts : mapping of str to int
        What another node counted of its utterances. Empty for nothing to say.
    """

    compute_s: float
    started_at: str
    host: str
    attempt: int
    versions: Mapping[str, str]
    pool: str = ""
    device: str = ""
    worker: str = ""
    busy_s: float | None = None
    peak_mem_bytes: int = 0
    levels: Mapping[str, int | float | str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Facts):
    """The proof that what a node made of one shard is stored, with the facts of the attempt.

    Parameters
    ----------
    node, key : str
        Whose product it is.
    name : str
        Of the record: the shard's number in six digits or more, or ``all-<hash>`` for what is made
        of all shards.
    n_utterances : int
        In the shard.
    absent : tuple of str
        Ids without data in this product, as they were quarantined here or before.
    n_quarantined : int
        Quarantined here.
    files : mapping of str to StoredFile
        By name relative to the product's folder.
    duration_s : float
        Audio in the shard, s.
    wall_s : float
        From the task's start until all files were stored, s. 0 where it was not measured.
    n_retired : int
        Utterances that the corpus of a training had retired before.
    at : str
        Where the files are, if another store has them: its folder of the product. Empty: here.
    """

    node: str
    key: str
    name: str
    n_utterances: int
    absent: tuple[str, ...]
    n_quarantined: int
    files: Mapping[str, StoredFile]
    duration_s: float
    wall_s: float = 0.0
    n_retired: int = 0
    at: str = ""

    def file_place(self, file: str) -> str:
        """Return a name of the record, or where it is in another store, which `split_place` takes apart."""
        return f"{self.at}//{file}" if self.at else file

    def to_json(self) -> bytes:
        """Return the record as the bytes of its file."""
        fields = asdict(self)
        # Whose it is stands first in the file, and the facts last.
        fields |= {name: fields.pop(name) for name in Facts.__dataclass_fields__}
        # Older versions don't know these, and read stores where nothing is retired or counted.
        for name in ("n_retired", "counts", "at"):
            if not fields[name]:
                del fields[name]
        return sealed(fields)

    @classmethod
    def from_json(cls, data: bytes) -> Record | None:
        """Return the record of a file's bytes, None for other bytes, which count as no record."""
        try:
            fields = unsealed(data)
            fields["files"] = {name: StoredFile(**stored) for name, stored in fields["files"].items()}
            record = cls(**fields | {"absent": tuple(fields["absent"])})
            return record if record._is_plausible() else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    @classmethod
    def of_name(cls, data: bytes, name: str) -> Record | None:
        """Return a record if it has the name of its file: one that was copied proves nothing there."""
        record = cls.from_json(data)
        return record if record is not None and record.name == name else None

    def _is_plausible(self) -> bool:
        """Tell whether all fields have their types, and times and numbers are such."""
        texts = (self.node, self.key, self.name, self.host, self.pool, self.device, self.worker, self.at, *self.absent)
        counts = (self.n_utterances, self.n_quarantined, self.attempt, self.peak_mem_bytes)
        times = (self.duration_s, self.compute_s, self.wall_s, self.busy_s or 0.0)
        return (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(count, int) and count >= 0 for count in counts)
            and all(isinstance(time, int | float) and 0 <= time <= _LONGEST_S for time in times)
            and all(isinstance(file.n_bytes, int) and isinstance(file.sha256, str) for file in self.files.values())
            and isinstance(self.versions, dict)
            and all(isinstance(count, int) for count in self.counts.values())
            and datetime.fromisoformat(self.started_at).tzinfo is not None
        )


def split_place(place: str) -> tuple[str, str]:
    """Return the folder of another store's product, empty for this one, and the file's name below it.

    >>> split_place("s3://team/store/mel/0a//data/c/0"), split_place("data/c/0")
    (('s3://team/store/mel/0a', 'data/c/0'), ('', 'data/c/0'))
    """
    at, _, file = place.rpartition("//")
    return at, file


def record_name(index: int) -> str:
    """Return the name of the record of a shard.

    >>> record_name(12)
    '000012'
    """
    return f"{index:06d}"


def record_order(name: str) -> tuple[float, str]:
    """Return the sort key of a record's name: shards by number, then what is made of all shards.

    As texts, names of more than six digits would come too early.

    >>> sorted(["1000000", "all-0f", "999999"], key=record_order)
    ['999999', '1000000', 'all-0f']
    """
    return (int(name), "") if name.isdecimal() else (math.inf, name)


def record_file(name: str) -> str:
    """Return the file of a record, relative to its product's folder."""
    return f"{RECORDS}/{name}{_SUFFIX}"


def record_names(files: Iterable[str]) -> list[str]:
    """Return the names of the records among the files of a ``records`` folder, in order."""
    return sorted((file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX)), key=record_order)
