"""Recordings that stay in their corpus: read and decoded again, and proven to be those of ingest.

An ingest node with ``audio: reference`` stores no samples. Its table has two hashes of each
utterance: of the file's bytes, and of the samples that were made of them. Every read compares both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.storage.errors import SourceChanged, SourceError, StoreError
from melmill.storage.files.sources import SourceTree
from melmill.storage.utterance import Utterance

if TYPE_CHECKING:
    import pyarrow as pa

    from melmill.storage.tables import Row

# Columns of an ingested table.
CONTENT, SAMPLES = "content_sha256", "samples_sha256"

# Files that are read at a time from an object store, which answers in tens of milliseconds.
_REMOTE_READERS = 16

# Tables of shards whose hashes are kept.
_MOST_KNOWN = 256

_NO_COPY = "The store holds no copy of its samples (audio: reference)"

# Returns the samples (n_samples,) of an utterance from the bytes of its file.
Convert = Callable[[Utterance, bytes], NDArray[Any]]


class Digests(NamedTuple):
    """Hold the SHA-256 of a file's bytes and of the samples that ingest made of them."""

    content: str
    samples: str


@dataclass(frozen=True, kw_only=True)
class Recordings:
    """Say where the recordings of an ingest node lie, and what converts them.

    It holds plain values, so that manifests keep it and tasks carry it to other machines.

    Parameters
    ----------
    node : str
        Name of the ingest node, for messages.
    root : str
        Absolute path or URL of the corpus.
    stage : str
        Name of the reader.
    fields : mapping of str to object
        Those of the reader that are not as by default, but for the root.
    """

    node: str
    root: str
    stage: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, object]:
        return {name: self.__dict__[name] for name in ("node", "root", "stage", "fields")}

    def read(self, utterances: Sequence[Utterance], digests: Mapping[str, Digests]) -> dict[str, NDArray[Any]]:
        """Return the samples of utterances by id, the very same that ingest made.

        Parameters
        ----------
        utterances : sequence of Utterance
        digests : mapping of str to Digests
            By utterance id.

        Raises
        ------
        SourceChanged
            A file is gone, or holds other bytes.
        SourceError
            This machine can't read the corpus, or decodes a file otherwise than ingest did.
        PackageMissing
            This process lacks a package that ingest had.
        """
        files = zip(utterances, self._files(utterances), strict=True)
        return {one.utterance_id: self._samples(one, data, digests[one.utterance_id]) for one, data in files}

    def _files(self, utterances: Sequence[Utterance]) -> Iterator[bytes]:
        if "://" not in self._tree.url or len(utterances) < 2:
            yield from map(self._file, utterances)
            return
        with ThreadPoolExecutor(_REMOTE_READERS) as pool:
            yield from pool.map(self._file, utterances)

    def _file(self, utterance: Utterance) -> bytes:
        try:
            return self._tree.read_patiently(utterance.path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise SourceChanged(
                f"{self._place(utterance)} is gone since it was ingested. {_NO_COPY}: restore it, or run with "
                "--follow, which leaves it out of the results"
            ) from error
        except OSError as error:
            raise SourceError(f"{self._place(utterance)} can't be read here: {error.strerror or error}") from error
        except SourceError as error:
            raise SourceError(
                f"node {self.node!r} keeps its recordings in the corpus (audio: reference): {error} If the corpus has "
                f"moved, set root: of {self.node!r} to its new place and run the pipeline: nothing is made twice"
            ) from error

    def _samples(self, utterance: Utterance, data: bytes, expected: Digests) -> NDArray[Any]:
        content = hashlib.sha256(data).hexdigest()
        if content != expected.content:
            raise SourceChanged(
                f"{self._place(utterance)} has changed since it was ingested: SHA-256 {content[:12]}, expected "
                f"{expected.content[:12]}. {_NO_COPY}: restore the file, or run with --follow, which makes it anew. "
                "If it has its old size and time, touch it before you do"
            )
        try:
            y = self._convert(utterance, data)
        except (ImportError, MemoryError):
            raise
        except Exception as error:
            raise self._decoded_otherwise(utterance, f"it can't be decoded here: {error}") from error
        if samples_sha256(y) != expected.samples:
            raise self._decoded_otherwise(utterance, "it has other samples here than when it was ingested")
        return y

    def _decoded_otherwise(self, utterance: Utterance, how: str) -> SourceError:
        return SourceError(
            f"{self._place(utterance)} is the file that was ingested, but {how}. Use the versions of melmill and its "
            "decoders that ingested it, which its record names, or audio: stored"
        )

    def _place(self, utterance: Utterance) -> str:
        return f"node {self.node!r}: {utterance.path!r} of the corpus at {self.root!r}"

    @cached_property
    def _tree(self) -> SourceTree:
        return SourceTree(self.root)

    @cached_property
    def _convert(self) -> Convert:
        return _make(self)


MakeConvert = Callable[[Recordings], Convert]


def _unknown(recordings: Recordings) -> Convert:
    raise StoreError(f"node {recordings.node!r}: nothing was set that reads recordings of {recordings.stage!r}")


_make: MakeConvert = _unknown


def convert_with(make: MakeConvert) -> None:
    """Set what makes the conversion of recordings: `melmill` does when it is imported.

    Readers lie in a layer above, and the store knows none of them.
    """
    global _make
    _make = make


def samples_sha256(y: NDArray[Any]) -> str:
    """Return the SHA-256 of samples ``(n_samples,)`` in little-endian order."""
    return hashlib.sha256(np.ascontiguousarray(y, dtype=y.dtype.newbyteorder("<")).data).hexdigest()


def with_digests(rows: Sequence[Row], arrays: Mapping[str, NDArray[Any]], place: str) -> list[Row]:
    """Return the rows of an ingested table with the hashes that later reads compare.

    Parameters
    ----------
    rows : sequence of Row
        With the hash of each file, which the reader gives.
    arrays : mapping of str to ndarray
        By utterance id.
    place : str
        For messages.

    Raises
    ------
    StoreError
        An utterance has no hash of its file.
    """
    hashed = {str(row["utterance_id"]) for row in rows if row.get(CONTENT)}
    if missing := arrays.keys() - hashed:
        raise StoreError(
            f"{place}: the row of {min(missing)!r} has no {CONTENT}. A reader must give it where recordings stay in "
            "the corpus (audio: reference)"
        )
    return [{**row, SAMPLES: samples_sha256(arrays[str(row["utterance_id"])])} for row in rows]


class KnownDigests:
    """Hashes of the ingested tables that were read last."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Digests]] = {}

    def of(self, sha256: str, read: Callable[[], pa.Table]) -> dict[str, Digests]:
        """Return the hashes of a table by utterance id; the table of that SHA-256 is read once."""
        if sha256 not in self._known:
            table = read()
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            columns = (table[name].to_pylist() for name in ("utterance_id", CONTENT, SAMPLES))
            rows = zip(*columns, strict=True)
            self._known[sha256] = {name: Digests(content, samples) for name, content, samples in rows}
        return self._known[sha256]
