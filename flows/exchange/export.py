"""From a product in the store to a folder of files, one an utterance, for other programs to read."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from numpy.typing import NDArray

from melmill.flows.errors import PipelineError, RunFailed
from melmill.stages.formats.encode import AudioFormat, Bits, Encoded, encode_audio
from melmill.stages.formats.npy import encode_npy
from melmill.storage.errors import DamagedData, StoreFull, StoreUnwritable
from melmill.storage.files.location import Location
from melmill.storage.ledger import Exported, ExportFolder, Page
from melmill.storage.reading.views import ProductView
from melmill.storage.records import Record, StoredFile, record_name
from melmill.storage.store import Store

# Encoders let other threads run, and a file waits for the disk; more threads than this gain nothing.
MAX_THREADS = 8

Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How files are written: ``flac`` or ``wav`` of `bits` a sample, or ``npy``."""

    format: str
    bits: Bits | None = None

    def encode(self, array: NDArray[Any], sr: int) -> Encoded:
        """Return an array as the bytes of a file."""
        if self.bits is None:
            return Encoded(encode_npy(array), 0)
        return encode_audio(array, sr, "wav" if self.format == "wav" else "flac", self.bits)


@dataclass(kw_only=True)
class ExportSummary:
    """What came of an export; its fields are what `melmill export --json` prints.

    Parameters
    ----------
    store, node, key, folder : str
    format : str
    bits : int or None
        None for mels.
    written, kept : int
        Files written now, and those that were there whole.
    quarantined, missing : int
        Utterances that the node could not process, and those that no run has come to yet.
    clipped : dict of str to int
        Samples clipped at full scale, by file that has any.
    duration_s : float
    """

    store: str
    node: str
    key: str
    folder: str
    format: str
    bits: int | None
    written: int = 0
    kept: int = 0
    quarantined: int = 0
    missing: int = 0
    clipped: dict[str, int] = field(default_factory=dict)
    duration_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def export(
    store: Store,
    node: str,
    folder: str,
    *,
    format_: AudioFormat | None = None,
    bits: Bits | None = None,
    utterances: Sequence[str] = (),
    report: Report = lambda done, total: None,
) -> ExportSummary:
    """Write a node's arrays to a folder, each at the path of its source with another suffix.

    Waveforms keep their lengths and their loudness: what lies past full scale is clipped, and counted. Files that an
    earlier call wrote and that are whole stay as they are.

    Parameters
    ----------
    store : Store
    node : str
        Of the last run; it makes waveforms or mels.
    folder : str
        Path or URL.
    format_ : {"flac", "wav"} or None
        None: FLAC. Mels are always ``.npy`` files ``(n_mels, n_frames)``.
    bits : {16, 24} or None
        None: 16.
    utterances : sequence of str
        Patterns of the ids wanted (``84-*``); none: all.
    report : callable
        Hears the number of files done and of all.

    Raises
    ------
    PipelineError
        There is no such node, or it can't be written so.
    StoreError
        The folder holds another export, or files of the names wanted.
    RunFailed
        The folder can't be written any more, or the store is damaged; what is written stays.
    """
    started = time.monotonic()
    exporter = _Exporter(store, node, Location(folder), format_, bits, utterances, report)
    try:
        exporter.run()
    except (StoreFull, StoreUnwritable, DamagedData) as error:
        raise RunFailed(str(error)) from error
    exporter.summary.duration_s = round(time.monotonic() - started, 3)
    return exporter.summary


class _Exporter:
    """Writes shard after shard."""

    def __init__(
        self,
        store: Store,
        node: str,
        location: Location,
        format_: AudioFormat | None,
        bits: Bits | None,
        utterances: Sequence[str],
        report: Report,
    ) -> None:
        self.view = _view(store, node)
        self.encoding = _encoding(self.view, node, format_, bits)
        check_outside(location, store)
        self.folder = ExportFolder(location)
        self.names = _names(self.view, self.encoding.format, utterances)
        self.report = report
        self.n_files = 0
        self.summary = ExportSummary(
            store=store.location.url,
            node=node,
            key=self.view.description.key,
            folder=location.url,
            format=self.encoding.format,
            bits=self.encoding.bits,
        )

    def run(self) -> None:
        """Write all shards that are done."""
        summary = self.summary
        self.folder.claim({name: getattr(summary, name) for name in ("node", "key", "format", "bits")})
        shards = self._shards()
        self.n_files = sum(len(present) for _, present in shards.values())
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
            for index, (record, present) in shards.items():
                self._export(index, record, present, pool)

    def _shards(self) -> dict[int, tuple[Record, list[str]]]:
        """Return the record and the utterances to write of every shard that is done; count those of the others."""
        records, catalogue, found = self.view.folder.records(), self.view.catalogue, {}
        for index in range(catalogue.n_shards):
            record = records.get(record_name(index))
            ids = [u.utterance_id for u in catalogue.shard(index).utterances if u.utterance_id in self.names]
            if record is None:
                self.summary.missing += len(ids)
                continue
            absent = set(record.absent)
            present = [name for name in ids if name not in absent]
            self.summary.quarantined += len(ids) - len(present)
            if present:
                found[index] = (record, present)
        return found

    def _export(self, index: int, record: Record, present: Sequence[str], pool: ThreadPoolExecutor) -> None:
        source, page = _fingerprint(record), self.folder.page(record.name)
        known = page.files if page.source == source else {}
        whole = {name: known[self.names[name]] for name in present if self._is_whole(self.names[name], known)}
        self._count(whole)
        self.summary.kept += len(whole)
        self._report()
        todo = [name for name in present if name not in whole]
        if todo:
            made = self._written(index, todo, frozenset(page.files), pool)
            files = {self.names[name]: one for name, one in made.items()}
            self.folder.write_page(record.name, Page(source=source, files={**known, **files}))

    def _written(
        self, index: int, todo: Sequence[str], ours: Set[str], pool: ThreadPoolExecutor
    ) -> dict[str, Exported]:
        arrays = self.view.folder.read_arrays(self.view.catalogue.shard(index), todo)
        sr = self.view.folder.array_spec.sr

        def write(name: str) -> tuple[Exported, bool]:
            data, n_clipped = self.encoding.encode(arrays[name], sr)
            stored = StoredFile.of(data)
            exported = Exported(n_bytes=stored.n_bytes, sha256=stored.sha256, n_clipped=n_clipped)
            return exported, self.folder.write(self.names[name], data, ours=self.names[name] in ours)

        made = {}
        for name, (exported, is_new) in zip(todo, pool.map(write, todo), strict=True):
            made[name] = exported
            self.summary.written += is_new
            self.summary.kept += not is_new
            self._report()
        self._count(made)
        return made

    def _is_whole(self, file: str, known: Mapping[str, Exported]) -> bool:
        return file in known and self.folder.is_whole(file, known[file])

    def _count(self, made: Mapping[str, Exported]) -> None:
        self.summary.clipped.update({self.names[name]: one.n_clipped for name, one in made.items() if one.n_clipped})

    def _report(self) -> None:
        self.report(self.summary.written + self.summary.kept, self.n_files)


def _view(store: Store, node: str) -> ProductView:
    try:
        return store[node]
    except KeyError as error:
        raise PipelineError(f"store {store.location.url!r}: {error.args[0]}") from error


def _encoding(view: ProductView, node: str, format_: AudioFormat | None, bits: Bits | None) -> Encoding:
    spec = view.folder.array_spec
    if spec.n_mels is not None:
        if format_ is not None or bits is not None:
            raise PipelineError(f"node {node!r} makes mels, which are written as .npy: leave --format and --bits out")
        return Encoding(format="npy")
    if bits == 24 and spec.dtype == "int16":
        raise PipelineError(
            f"node {node!r} is stored as int16, of which 24 bits would hold no more than 16: leave --bits out, or run "
            "again with dtype: float32"
        )
    return Encoding(format=format_ or "flac", bits=bits or 16)


def check_outside(location: Location, store: Store) -> None:
    """Raise PipelineError where a folder to export to lies in the store."""
    if f"{location.url}/".startswith(f"{store.location.url}/"):
        raise PipelineError(f"{location.url!r} is in the store {store.location.url!r}: export to a folder of its own")


def _names(view: ProductView, suffix: str, patterns: Sequence[str]) -> dict[str, str]:
    """Return the file of every utterance wanted, by id: the path of its source, or its id, with another suffix."""
    table = view.catalogue.table
    pairs = zip(table["utterance_id"].to_pylist(), table["path"].to_pylist(), strict=True)
    names = {name: f"{_stem(path or name)}.{suffix}" for name, path in pairs if _matches(name, patterns)}
    if not names:
        raise PipelineError(
            f"--utterances must match ids, got {', '.join(map(repr, patterns))}, which match none of "
            f"{view.catalogue.n_utterances:,}, e.g. {table['utterance_id'][0].as_py()!r}"
        )
    owners: dict[str, str] = {}
    for name, file in names.items():
        if owners.setdefault(file, name) != name:
            raise PipelineError(f"utterances {owners[file]!r} and {name!r} would both be written to {file!r}")
    return names


def _matches(name: str, patterns: Collection[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _stem(path: str) -> str:
    return re.sub(r"(?<=[^/])\.[^./]+$", "", path)


def _fingerprint(record: Record) -> str:
    """Return a hash of the stored data of a shard: another one means that its files are to be made anew."""
    stored = sorted((name, file.sha256) for name, file in record.files.items() if name.startswith("data/"))
    return hashlib.sha256(repr(stored).encode()).hexdigest()
