"""Records: the proof that a node's work on one shard is whole; nothing else means done."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from melmill.storage.sealed import sealed, unsealed


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Size and SHA-256 (hexadecimal) of a file as it was written."""

    n_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> StoredFile:
        """Describe the file that holds `data`."""
        return cls(n_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What only the worker knows of an attempt.

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
        Workers that the task was for, what it computed on, and which process (and thread, on the CPU) of `host` did.
    busy_s : float or None
        Of `compute_s`, what the device was at work; None where the stage does not measure it.
    peak_mem_bytes : int
        Largest resident size of the worker process during the task; 0 where it was not taken.
    """

    compute_s: float
    started_at: str
    host: str
    attempt: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    pool: str = ""
    device: str = ""
    worker: str = ""
    busy_s: float | None = None
    peak_mem_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Prove that what a node made of one shard is stored.

    Parameters
    ----------
    node, key : str
        Whose product it is.
    name : str
        Of the record: the shard's number in six digits, or ``all-<hash>`` for what is made of all shards.
    n_utterances : int
        In the shard.
    absent : tuple of str
        Ids without data in this product: quarantined here or before.
    n_quarantined : int
        Quarantined here.
    files : mapping of str to StoredFile
        By name relative to the product's folder.
    duration_s : float
        Audio in the shard, s.
    compute_s, started_at, host, attempt, versions, pool, device, worker, busy_s, peak_mem_bytes
        See `Facts`.
    wall_s : float
        From the task's start until all files were stored, s; 0 where it was not measured.
    """

    node: str
    key: str
    name: str
    n_utterances: int
    absent: tuple[str, ...]
    n_quarantined: int
    files: Mapping[str, StoredFile]
    duration_s: float
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
    wall_s: float = 0.0

    def to_json(self) -> bytes:
        """Return the record as the bytes of its file."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Record | None:
        """Return the record of a file's bytes; None where they are none, which counts as no record."""
        try:
            fields = unsealed(data)
            fields["files"] = {name: StoredFile(**stored) for name, stored in fields["files"].items()}
            return cls(**fields | {"absent": tuple(fields["absent"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def record_name(index: int) -> str:
    """Return the name of the record of a shard.

    >>> record_name(12)
    '000012'
    """
    return f"{index:06d}"
