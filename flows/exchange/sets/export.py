"""Write training sets from a store: in chunks that are whole or not there, resumed by their checksums."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.flows.exchange.export import check_outside
from melmill.flows.exchange.sets import splits
from melmill.flows.exchange.sets.card import card
from melmill.flows.exchange.sets.layout import LAYOUTS, Content, Item, SetInfo, SetLayout
from melmill.flows.exchange.sets.summary import SetSummary
from melmill.flows.execution.errors import RunFailed
from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.formats.exchange.pcm import Bits
from melmill.stages.ingest.reader import READERS
from melmill.storage.errors import DamagedData, SourceError, StoreFull, StoreUnwritable
from melmill.storage.files.ledger import LEDGER, Exported, ExportFolder, Page
from melmill.storage.files.location import Location
from melmill.storage.reading.views import ProductView
from melmill.storage.records import StoredFile, record_name
from melmill.storage.store import Store

# Utterances of a chunk of files, and audio in a shard, s.
_FILES = 64
SHARD_S = 1800.0
_LISTS = "lists"
SUMS = "SHA256SUMS"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SetRequest:
    """Say which training set is wanted.

    Parameters
    ----------
    nodes : tuple of str
        A node of waveforms, perhaps one of mels, and any of features.
    to : str
        Name of a layout.
    split : str
        ``subset``, or shares such as ``dev=0.05,test=0.05``. Empty: all are ``train``.
    split_list : (str, str) or None
        Content and name of a list of ids or speakers with their splits.
    share_speakers : bool
        Whether splits may share speakers.
    bits : {16, 24}
    licence : str
        Empty: that of the corpus, if its reader knows it.
    """

    nodes: tuple[str, ...]
    to: str
    split: str = ""
    split_list: tuple[str, str] | None = None
    share_speakers: bool = False
    bits: Bits = 16
    licence: str = ""


class _Chunk(NamedTuple):
    split: str
    number: int
    n_chunks: int
    items: tuple[Item, ...]

    @property
    def page(self) -> str:
        """Name of its page in the ledger."""
        return f"{self.split}-{self.number:06d}"


def export_set(
    store: Store, request: SetRequest, folder: str, progress: Progress = lambda done, total: None
) -> SetSummary:
    """Write a training set to a folder, or go on with one.

    A chunk of files is written again only if what it is made of has changed, or a file is not as it was
    written. The lists of all files, the dataset card and ``SHA256SUMS`` are written last.

    Raises
    ------
    PipelineError
        There are no such nodes or layout, or they do not fit each other.
    StoreError
        The folder holds another export, or other files of the same names.
    RunFailed
        The folder can't be written any more, or the store is damaged. What is written stays.
    """
    started = time.monotonic()
    maker = _Maker(store, request, Location(folder))
    try:
        maker.run(progress)
    except (StoreFull, StoreUnwritable, DamagedData, SourceError) as error:
        raise RunFailed(str(error)) from error
    maker.summary.duration_s = round(time.monotonic() - started, 3)
    return maker.summary


class _Maker:
    def __init__(self, store: Store, request: SetRequest, location: Location) -> None:
        check_outside(location, store)
        self.layout = layout_of(request.to)
        self.audio, self.mel, self.features = _views(store, request.nodes, self.layout)
        views = [view for view in (self.audio, self.mel, *self.features.values()) if view is not None]
        self.folder = ExportFolder(location)
        self.summary = SetSummary(
            store=store.location.url,
            folder=location.url,
            to=self.layout.name,
            nodes=list(request.nodes),
            keys=[view.description.key for view in views],
            licence=request.licence or _licence(store, self.audio),
        )
        self.request = request
        self.shard_of: dict[str, int] = {}
        items = _split(self._items(views), request)
        self.summary.left_out = len(self.shard_of) - len(items)
        mel = None if self.mel is None else self.mel.description.mel
        sr = self.audio.folder.array_spec.sr
        self.info = SetInfo(
            name=store.location.url.rpartition("/")[2], url=location.url, sr=sr, bits=request.bits, items=items, mel=mel
        )
        self.layout.check(self.info)
        self._count()

    def _count(self) -> None:
        summary, items = self.summary, self.info.items
        summary.utterances = len(items)
        summary.hours = round(sum(one.n_samples for one in items) / self.info.sr / 3600, 6)
        summary.splits = {name: len(self.info.of(name)) for name in self.info.splits}
        summary.with_text = sum(bool(one.text) for one in items)
        summary.speakers = len(self.info.speakers)

    def _items(self, views: Sequence[ProductView]) -> list[Item]:
        """Return the utterances that all nodes have, in the order of their ids."""
        catalogue = self.audio.catalogue
        records = [view.folder.records() for view in views]
        items = []
        for index in catalogue.current_shards:
            name = record_name(index)
            done = [one.get(name) for one in records]
            current = catalogue.shard(index).current
            if any(one is None for one in done):
                self.summary.missing += len(current)
                continue
            absent = {absent for one in done if one is not None for absent in one.absent}
            for one in current:
                if one.utterance_id in absent:
                    self.summary.quarantined += 1
                    continue
                self.shard_of[one.utterance_id] = index
                said = (one.text, one.speaker_id, one.sex, one.subset)
                items.append(Item(one.utterance_id, splits.TRAIN, one.n_samples, *said))
        if not items:
            raise PipelineError(
                f"nodes {', '.join(self.request.nodes)} have no utterance that is done: run the pipeline"
            )
        return sorted(items)

    def run(self, progress: Progress) -> None:
        """Write all chunks, then the lists, and remove what is of none of them."""
        summary, request = self.summary, self.request
        self.folder.claim(
            {
                "node": ",".join(request.nodes),
                "key": ",".join(summary.keys),
                "format": self.layout.name,
                "bits": request.bits,
                "split": request.split or (request.split_list[1] if request.split_list else ""),
            }
        )
        chunks = self._chunks()
        known, done = self._pages(), 0
        for chunk in chunks:
            self._write(chunk)
            done += len(chunk.items)
            progress(done, summary.utterances)
        self._remove(known, {chunk.page for chunk in chunks})
        self._write_lists(chunks)

    def _chunks(self) -> list[_Chunk]:
        """Return the utterances in chunks; those of a shard come from all over the corpus."""
        chunks = []
        for split in self.info.splits:
            items = self.info.of(split)
            if self.layout.in_shards:
                items.sort(key=lambda one: hashlib.sha256(one.id.encode()).digest())
            parts = list(_parts(items, self.layout.in_shards, self.info.sr))
            chunks += [_Chunk(split, number, len(parts), tuple(part)) for number, part in enumerate(parts)]
        return chunks

    def _write(self, chunk: _Chunk) -> None:
        source, page = self._fingerprint(chunk), self.folder.page(chunk.page)
        if page.source == source and all(self.folder.is_whole(name, one) for name, one in page.files.items()):
            self.summary.kept += len(page.files)
            self.summary.clipped_samples += sum(one.n_clipped for one in page.files.values())
            return
        self._withdraw_lists()
        made = self.layout.files(chunk.split, chunk.number, chunk.n_chunks, self._contents(chunk), self.info)
        files = {}
        for number, (name, data) in enumerate(made.files.items()):
            stored = StoredFile.of(data)
            n_clipped = made.n_clipped if number == 0 else 0
            files[name] = Exported(n_bytes=stored.n_bytes, sha256=stored.sha256, n_clipped=n_clipped)
        self._check_free(made.files, page)
        # The ledger knows the files before they are there, so that a killed export may replace its own.
        self.folder.write_page(chunk.page, Page(source="", files={**page.files, **files}))
        for name, data in made.files.items():
            is_new = self.folder.write(name, data, ours=name in page.files)
            self.summary.written += is_new
            self.summary.kept += not is_new
        for name in page.files.keys() - files.keys():
            self.folder.location.remove(name)
            self.summary.removed += 1
        self.folder.write_page(chunk.page, Page(source=source, files=files))
        self.summary.clipped_samples += made.n_clipped

    def _check_free(self, files: Mapping[str, bytes], page: Page) -> None:
        """Raise StoreError if another program has a file of these names, before the ledger knows them."""
        for name, data in files.items():
            if name not in page.files and self.folder.location.size(name) is not None:
                self.folder.write(name, data, ours=False)

    def _contents(self, chunk: _Chunk) -> list[Content]:
        by_shard: dict[int, list[str]] = {}
        for one in chunk.items:
            by_shard.setdefault(self.shard_of[one.id], []).append(one.id)
        audio, mels = _read(self.audio, by_shard), {} if self.mel is None else _read(self.mel, by_shard)
        features = {node: _read(view, by_shard) for node, view in self.features.items()}
        return [
            Content(one, audio[one.id], mels.get(one.id), {node: made[one.id] for node, made in features.items()})
            for one in chunk.items
        ]

    def _fingerprint(self, chunk: _Chunk) -> str:
        """Return a hash of all that decides the bytes of a chunk."""
        # A recording that changed is in another shard, under the key that it had.
        shards = [self.shard_of[one.id] for one in chunk.items]
        said = [self.summary.keys, self.info.sr, self.info.bits, self.layout.name, chunk.n_chunks, chunk.items, shards]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def _pages(self) -> set[str]:
        """Return the names of the pages that the ledger has."""
        names = (self.folder.location / LEDGER).sizes()
        return {name.removesuffix(".json") for name in names} - {"export", _LISTS}

    def _remove(self, known: set[str], used: set[str]) -> None:
        """Remove the files of chunks that are not of the set any more."""
        kept = {name for page in used for name in self.folder.page(page).files}
        for page in sorted(known - used):
            self._withdraw_lists()
            for name in self.folder.page(page).files.keys() - kept:
                self.folder.location.remove(name)
                self.summary.removed += 1
            self.folder.location.remove(f"{LEDGER}/{page}.json")

    def _withdraw_lists(self) -> None:
        """Remove the lists before files change: they never name one that is not there."""
        for name in self.folder.page(_LISTS).files:
            self.folder.location.remove(name)

    def _write_lists(self, chunks: Sequence[_Chunk]) -> None:
        lists = dict(self.layout.lists(self.info))
        lists["README.md"] = card(self.info, self.layout, self.summary)
        sums = {name: one.sha256 for chunk in chunks for name, one in self.folder.page(chunk.page).files.items()}
        sums |= {name: StoredFile.of(data).sha256 for name, data in lists.items()}
        lists[SUMS] = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items())).encode()
        page = self.folder.page(_LISTS)
        known = page.files
        made = {
            name: Exported(n_bytes=(stored := StoredFile.of(data)).n_bytes, sha256=stored.sha256)
            for name, data in lists.items()
        }
        self._check_free(lists, page)
        self.folder.write_page(_LISTS, Page(source="", files={**known, **made}))
        for name, data in lists.items():
            if known.get(name) == made[name] and self.folder.is_whole(name, made[name]):
                self.summary.kept += 1
            else:
                self.summary.written += self.folder.write(name, data, ours=name in known)
        for name in known.keys() - made.keys():
            self.folder.location.remove(name)
        self.folder.write_page(_LISTS, Page(source="", files=made))


def layout_of(name: str) -> SetLayout:
    """Return a layout by its name; raise PipelineError with the nearest one."""
    name = {"hf": "parquet"}.get(name, name)
    if name not in LAYOUTS:
        raise PipelineError(f"there is {LAYOUTS.unknown(name)}")
    return LAYOUTS[name]


def _views(
    store: Store, nodes: Sequence[str], layout: SetLayout
) -> tuple[ProductView, ProductView | None, dict[str, ProductView]]:
    """Return the view of waveforms, that of mels if there is one, and those of features by their nodes."""
    views = []
    for node in nodes:
        try:
            views.append(store[node])
        except KeyError as error:
            raise PipelineError(f"store {store.location.url!r}: {error.args[0]}") from error
    audio = [view for view in views if view.folder.array_spec.n_mels is None]
    features = {
        node: view
        for node, view in zip(nodes, views, strict=True)
        if view.description.kind in ("features", "embedding")
    }
    of_features = [id(view) for view in features.values()]
    mels = [view for view in views if view.folder.array_spec.n_mels is not None and id(view) not in of_features]
    if len(audio) != 1 or len(mels) > 1:
        raise PipelineError(
            f"--to {layout.name} takes one node of waveforms, and perhaps one of mels, got {len(audio)} and "
            f"{len(mels)}: name them as in speech,mel"
        )
    if mels and not layout.takes_mel:
        # Not by `index`, which would compare arrays.
        named = next(node for node, view in zip(nodes, views, strict=True) if view is mels[0])
        takers = ", ".join(name for name, one in LAYOUTS.items() if one.takes_mel)
        raise PipelineError(f"--to {layout.name} holds no mels, got node {named!r}: use {takers}")
    if features and not layout.takes_features:
        takers = ", ".join(name for name, one in LAYOUTS.items() if one.takes_features)
        raise PipelineError(f"--to {layout.name} holds no features, got node {next(iter(features))!r}: use {takers}")
    if any(view.description.catalogue != audio[0].description.catalogue for view in (*mels, *features.values())):
        raise PipelineError(f"nodes {' and '.join(nodes)} are of two corpora: name nodes of one")
    return audio[0], mels[0] if mels else None, features


def _licence(store: Store, view: ProductView) -> str:
    """Return the licence of the corpus that a node is made of, if its reader knows it."""
    address = view.description.catalogue
    if address is None:
        return ""
    reader = READERS.get(store.product(*address).description.stage)
    return reader.facts.licence if reader is not None and reader.facts is not None else ""


def _split(items: list[Item], request: SetRequest) -> tuple[Item, ...]:
    if request.split_list is not None:
        made = splits.by_list(items, *request.split_list)
    elif request.split == "subset":
        made = splits.by_subset(items)
    elif request.split:
        made = splits.by_shares(items, splits.shares_of(request.split), together=not request.share_speakers)
    else:
        made = items
    if not request.share_speakers:
        splits.check_apart(made)
    return tuple(made)


def _parts(items: Sequence[Item], in_shards: bool, sr: int) -> Iterator[list[Item]]:
    """Yield utterances in chunks of some number, or of some duration."""
    part: list[Item] = []
    n_samples = 0
    for one in items:
        full = n_samples >= SHARD_S * sr if in_shards else len(part) >= _FILES
        if part and full:
            yield part
            part, n_samples = [], 0
        part.append(one)
        n_samples += one.n_samples
    if part:
        yield part


def _read(view: ProductView, by_shard: Mapping[int, Sequence[str]]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for index, ids in by_shard.items():
        arrays |= view.folder.read_arrays(view.catalogue.shard(index), ids)
    return {name: np.asarray(array) for name, array in arrays.items()}
