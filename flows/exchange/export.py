"""Export a product to a folder: files that other programs read, or the files of a vocoder."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from melmill.flows.exchange.metadata import MetadataFile, metadata_csv
from melmill.flows.execution.errors import RunFailed
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.tasks.trained import TRAINED
from melmill.stages.contract import Kind
from melmill.stages.formats.format import FORMATS, ExchangeFormat, formats_for
from melmill.storage.errors import DamagedData, SourceError, StoreFull, StoreUnwritable
from melmill.storage.files.ledger import Exported, ExportFolder, Page
from melmill.storage.files.location import Location
from melmill.storage.reading.views import ProductView
from melmill.storage.records import Record, StoredFile, record_name
from melmill.storage.store import Store
from melmill.storage.utterance import shortened

# Encoders release the interpreter's lock, and files wait for the disk. More threads gain nothing.
MAX_THREADS = 8
# Bytes that the name of a file may have.
LONGEST_NAME = 255

Progress = Callable[[int, int], None]


@dataclass(kw_only=True)
class ExportSummary:
    """Hold the result of an export; its fields are what `melmill export --json` prints.

    Parameters
    ----------
    store, node, key, folder : str
    format : str
    bits : int or None
        None where the format has no choice of bits.
    written, kept : int
        Files that were written, and files that were already there and whole.
    quarantined, missing : int
        Utterances that the node could not process, and utterances that no run has processed yet.
    removed : int
        Files of earlier calls that were removed, as their utterances left the corpus or changed.
    clipped : dict of str to int
        Samples clipped at full scale, by file, for files that have some.
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
    removed: int = 0
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
    format_: str | None = None,
    bits: int | None = None,
    utterances: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
) -> ExportSummary:
    """Write a node's arrays to a folder, each at the path of its source with another suffix.

    A table of them is in ``metadata.csv``: file, text, speaker and duration.

    Waveforms keep their lengths and their loudness. Samples past full scale are clipped and
    counted. Files that an earlier call wrote and that are whole stay as they are. Those of
    utterances that the corpus has no more are removed.

    Parameters
    ----------
    store : Store
    node : str
        A node of the last run that makes waveforms or mels.
    folder : str
        Path or URL.
    format_ : str or None
        Name of an exchange format, see `melmill.stages.formats.format`. None: FLAC for waveforms,
        ``.npy`` files ``(n_mels, n_frames)`` for mels.
    bits : int or None
        Bits per sample; None: the format's default.
    utterances : sequence of str
        Patterns of the ids wanted (``84-*``); empty: all.
    progress : callable
        Called with the number of files that are done and of all files.

    Raises
    ------
    PipelineError
        There is no such node or format, or the format can't hold the node's product.
    StoreError
        The folder holds another export, or other files of the same names.
    RunFailed
        The folder can't be written any more, or the store is damaged. Or the corpus can't be read, or
        has changed, where recordings stay in it. Files that are written stay.
    """
    started = time.monotonic()
    exporter = _Exporter(store, node, Location(folder), format_, bits, utterances, progress)
    try:
        exporter.run()
    except (StoreFull, StoreUnwritable, DamagedData, SourceError) as error:
        raise RunFailed(str(error)) from error
    exporter.summary.duration_s = round(time.monotonic() - started, 3)
    return exporter.summary


class _Exporter:
    """Write shard after shard."""

    def __init__(
        self,
        store: Store,
        node: str,
        location: Location,
        format_: str | None,
        bits: int | None,
        utterances: Sequence[str],
        progress: Progress,
    ) -> None:
        try:
            self.view = store[node]
        except KeyError as error:
            raise PipelineError(f"store {store.location.url!r}: {error.args[0]}") from error
        spec = self.view.folder.array_spec
        kind = Kind.WAVEFORM if spec.n_mels is None else Kind(self.view.description.kind)
        self.format = format_for(kind, format_, f"node {node!r}")
        self.bits = bits_for(self.format, bits, f"node {node!r}")
        if bits is not None and bits > 16 and spec.dtype == "int16":
            raise PipelineError(
                f"node {node!r} is stored as int16, so that {bits} bits hold no more than 16: leave --bits out, or "
                "run again with dtype: float32"
            )
        check_outside(location, store)
        self.folder = ExportFolder(location)
        self.metadata = MetadataFile(self.folder)
        self.all_names = _names(self.view, self.format.suffix)
        self.names = _wanted(self.all_names, utterances)
        self.progress = progress
        self.n_files = 0
        self.summary = ExportSummary(
            store=store.location.url,
            node=node,
            key=self.view.description.key,
            folder=location.url,
            format=self.format.name,
            bits=self.bits,
        )

    def run(self) -> None:
        """Write all shards that are done, and then the table of all files that are there."""
        summary = self.summary
        self.metadata.check()
        self.folder.claim({name: getattr(summary, name) for name in ("node", "key", "format", "bits")})
        records = self.view.folder.records()
        shards = self._shards(records)
        self.n_files = sum(len(present) for _, present in shards.values())
        done: dict[str, str] = {}
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
            for index, (record, present) in shards.items():
                self._export(index, record, present, pool)
                done |= {name: self.names[name] for name in present}
        self._remove_retired()
        self.metadata.write(metadata_csv({**self._earlier(records), **done}, self.view.catalogue))

    @cached_property
    def _stale(self) -> Mapping[int, Set[str]]:
        """Files that earlier calls made of utterances that are retired now, by their shard."""
        catalogue, stale = self.view.catalogue, {}
        for index, retired in catalogue.retired.items():
            page = self.folder.page(record_name(index))
            if page.files:
                gone = [u for u in catalogue.shard(index).utterances if u.utterance_id in retired]
                stale[index] = page.files.keys() & {
                    _file_name(_source(u.path, u.utterance_id), self.format.suffix) for u in gone
                }
        return {index: files for index, files in stale.items() if files}

    def _remove_retired(self) -> None:
        """Remove files of retired utterances, unless a later shard has made them anew."""
        if not self._stale:
            return
        made: set[str] = set()
        for index in self.view.catalogue.current_shards:
            made |= self.folder.page(record_name(index)).files.keys() - self._stale.get(index, set())
        self.metadata.withdraw()
        for index, files in self._stale.items():
            for file in sorted(files - made):
                self.folder.location.remove(file)
                self.summary.removed += 1
            page = self.folder.page(record_name(index))
            left = {file: one for file, one in page.files.items() if file not in files}
            self.folder.write_page(record_name(index), Page(source=page.source, files=left))

    def _earlier(self, records: Mapping[str, Record]) -> dict[str, str]:
        """Return the files of utterances that were not asked for, but are there since earlier calls."""
        catalogue, files = self.view.catalogue, {}
        for index in catalogue.current_shards if len(self.names) < len(self.all_names) else ():
            record, page = records.get(record_name(index)), self.folder.page(record_name(index))
            if record is not None and page.source == _fingerprint(record):
                for utterance in catalogue.shard(index).current:
                    name, file = utterance.utterance_id, self.all_names[utterance.utterance_id]
                    there = name not in self.names and name not in record.absent and file in page.files
                    if there and self.folder.location.size(file) == page.files[file].n_bytes:
                        files[name] = file
        return files

    def _shards(self, records: Mapping[str, Record]) -> dict[int, tuple[Record, list[str]]]:
        """Return record and utterances of every finished shard; count the others as missing."""
        catalogue, shards = self.view.catalogue, {}
        for index in catalogue.current_shards:
            record = records.get(record_name(index))
            ids = [u.utterance_id for u in catalogue.shard(index).current if u.utterance_id in self.names]
            if record is None:
                self.summary.missing += len(ids)
                continue
            absent = set(record.absent)
            present = [name for name in ids if name not in absent]
            self.summary.quarantined += len(ids) - len(present)
            if present:
                shards[index] = (record, present)
        return shards

    def _export(self, index: int, record: Record, present: Sequence[str], pool: ThreadPoolExecutor) -> None:
        source, page = _fingerprint(record), self.folder.page(record.name)
        known = page.files if page.source == source else {}
        whole = {
            name: known[file]
            for name in present
            if (file := self.names[name]) in known and self.folder.is_whole(file, known[file])
        }
        self._count(whole)
        self.summary.kept += len(whole)
        self._show_progress()
        todo = [name for name in present if name not in whole]
        if todo:
            self.metadata.withdraw()
            ours = frozenset(page.files).union(*self._stale.values())
            made = self._written(index, todo, ours, pool)
            files = {self.names[name]: one for name, one in made.items()}
            # Stale ones stay listed until they are removed.
            stale = {file: page.files[file] for file in self._stale.get(index, ())}
            self.folder.write_page(record.name, Page(source=source, files={**stale, **known, **files}))

    def _written(
        self, index: int, todo: Sequence[str], ours: Set[str], pool: ThreadPoolExecutor
    ) -> dict[str, Exported]:
        arrays = self.view.folder.read_arrays(self.view.catalogue.shard(index), todo)
        sr = self.view.folder.array_spec.sr

        def write(name: str) -> tuple[Exported, bool]:
            data, n_clipped = self.format.encode(arrays[name], sr, self.bits)
            stored = StoredFile.of(data)
            exported = Exported(n_bytes=stored.n_bytes, sha256=stored.sha256, n_clipped=n_clipped)
            return exported, self.folder.write(self.names[name], data, ours=self.names[name] in ours)

        made = {}
        for name, (exported, is_new) in zip(todo, pool.map(write, todo), strict=True):
            made[name] = exported
            self.summary.written += is_new
            self.summary.kept += not is_new
            self._show_progress()
        self._count(made)
        return made

    def _count(self, made: Mapping[str, Exported]) -> None:
        self.summary.clipped.update({self.names[name]: one.n_clipped for name, one in made.items() if one.n_clipped})

    def _show_progress(self) -> None:
        self.progress(self.summary.written + self.summary.kept, self.n_files)


def format_for(kind: Kind, name: str | None, what: str) -> ExchangeFormat:
    """Return the format called `name` if it holds a kind of product; None: the kind's default.

    Parameters
    ----------
    kind : {Kind.WAVEFORM, Kind.MEL, Kind.FEATURES, Kind.EMBEDDING}
    name : str or None
    what : str
        What makes the product, for messages: ``"node 'admm'"``.

    Raises
    ------
    PipelineError
        There is no such format, or it can't hold the product.
    """
    fitting = formats_for(kind)
    if name is not None and name not in FORMATS:
        raise PipelineError(f"there is {FORMATS.unknown(name)}")
    chosen = FORMATS[name or fitting[0]]
    if kind not in chosen.kinds:
        product = {Kind.WAVEFORM: "waveforms", Kind.MEL: "mels"}.get(kind, str(kind))
        raise PipelineError(
            f"{what} makes {product}, which format {chosen.name!r} can't hold: use --format {' or '.join(fitting)}"
        )
    return chosen


def bits_for(format_: ExchangeFormat, bits: int | None, what: str) -> int | None:
    """Return the bits per sample to write: `bits`, or the default of the format, if it has any.

    Raises
    ------
    PipelineError
        The format has no such bits.
    """
    if bits is None:
        return format_.bits[0] if format_.bits else None
    if not format_.bits:
        raise PipelineError(f"{what}: format {format_.name!r} has no choice of bits: leave --bits out")
    if bits not in format_.bits:
        raise PipelineError(f"--bits of {format_.name} must be {' or '.join(map(str, format_.bits))}, got {bits}")
    return bits


def check_outside(location: Location, store: Store) -> None:
    """Raise PipelineError if a folder to export to lies in the store."""
    if f"{location.url}/".startswith(f"{store.location.url}/"):
        raise PipelineError(f"{location.url!r} is in the store {store.location.url!r}: export to a folder of its own")


def _names(view: ProductView, suffix: str) -> dict[str, str]:
    """Return the file of each utterance by id: its path or id, with the suffix.

    A name that would be too long ends with a hash.
    """
    table = view.catalogue.table
    pairs = zip(table["utterance_id"].to_pylist(), table["path"].to_pylist(), strict=True)
    return {name: _file_name(_source(path, name), suffix) for name, path in pairs}


def _source(path: str, utterance_id: str) -> str:
    """Return what a file is named after: the source, or the id of what is only a part of a file."""
    return utterance_id if not path or "//" in path else path


def _wanted(names: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """Return the files of the utterances whose ids match a pattern; of all without patterns."""
    wanted = {
        name: file
        for name, file in names.items()
        if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not wanted:
        raise PipelineError(
            f"--utterances must match ids, got {', '.join(map(repr, patterns))}, which match none of "
            f"{len(names):,}, e.g. {next(iter(names))!r}"
        )
    owners: dict[str, str] = {}
    for name, file in wanted.items():
        if owners.setdefault(file, name) != name:
            raise PipelineError(f"utterances {owners[file]!r} and {name!r} would both be written to {file!r}")
    return wanted


def _file_name(path: str, suffix: str) -> str:
    """Return the path of an exported file, whose last part is a name that file systems take."""
    folder, slash, name = re.sub(r"(?<=[^/])\.[^./]+$", "", path).rpartition("/")
    longest = LONGEST_NAME - len(suffix) - 1
    return f"{folder}{slash}{name if len(name.encode()) <= longest else shortened(name, longest)}.{suffix}"


def _fingerprint(record: Record) -> str:
    """Return a hash of a shard's data; files made from data of another hash are written again.

    Where recordings stay in the corpus, it is one of the table, which has a hash of each of them.
    """
    data = {name: file for name, file in record.files.items() if name.startswith("data/")}
    stored = sorted((name, file.sha256) for name, file in (data or record.files).items())
    return hashlib.sha256(repr(stored).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ExportedTraining:
    """Count the files of an exported training; `melmill export --json` prints the fields."""

    store: str
    node: str
    key: str
    folder: str
    written: int
    kept: int

    def as_dict(self) -> dict[str, str | int]:
        """Return plain values, for JSON."""
        return asdict(self)


def export_training(store: Store, node: str, folder: str) -> ExportedTraining:
    """Write all files that a training made to a folder: weights, page and others.

    Parameters
    ----------
    store : Store
    node : str
        Name of a node of the last run that trains.
    folder : str
        Path or URL.

    Raises
    ------
    PipelineError
        The folder has a file of one of these names with other bytes.
    StoreError, DamagedData
        The training is not done, or its files are not those of its record. Nothing is written then.
    """
    entry, location = store.nodes[node], Location(folder)
    check_outside(location, store)
    product = store.product(entry.folder, entry.key)
    record = product.done(TRAINED)
    files = {name.removeprefix(f"{TRAINED}/"): product.read_whole(record, name) for name in record.files}
    present = [name for name in files if location.exists(name)]
    for name in present:
        if location.read(name) != files[name]:
            raise PipelineError(f"{location.url}/{name} holds something else than {node!r} made: name another folder")
    for name in files.keys() - present:
        location.replace(name, files[name])
    return ExportedTraining(
        store=store.location.url,
        node=node,
        key=entry.key,
        folder=location.url,
        written=len(files) - len(present),
        kept=len(present),
    )
