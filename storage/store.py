"""The store of a project: its products, its runs, and the products of the last run by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from melmill.storage.arrays import ZSTD_CODECS
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.items import items_shard
from melmill.storage.corpus.shards import read_shard
from melmill.storage.errors import (
    AlreadyThere,
    CatalogueError,
    DamagedMark,
    StoreError,
    StoreMismatch,
    StoreMissing,
    damaged,
)
from melmill.storage.files.location import Location
from melmill.storage.product import (
    ARRAY_METADATA,
    CATALOGUE,
    DESCRIPTION,
    Address,
    ProductDescription,
    ProductFolder,
)
from melmill.storage.reading.recordings import Recordings
from melmill.storage.reading.run_tables import RunTables
from melmill.storage.reading.views import ProductView
from melmill.storage.records import record_name, sealed, unsealed
from melmill.storage.runs import Manifest, NodeEntry, RunFacts, RunOutcome, RunRecord, RunState, Tag
from melmill.storage.utterance import Shard

if TYPE_CHECKING:
    from melmill.storage.reading.accounts import Account

__all__ = ["Manifest", "NodeEntry", "Store"]

T = TypeVar("T")

# What the format of a store stands for. An older melmill refuses a format that it does not know.
FORMATS = (1, 2, 3, 4, 5, 6)
# A melmill that reads only 1 would show retired utterances.
FORMAT_RETIRED = 2
# A melmill that reads only 1 and 2 knows no FLAC, and takes recordings that stay in their corpus for
# lost ones. One that reads up to 3 takes the codecs of float32 for an error.
FORMAT = 4
# A melmill that reads up to 4 takes records of files in another store for damaged ones.
FORMAT_ELSEWHERE = 5
# A melmill that reads up to 5 takes what was trimmed or split for damaged.
FORMAT_ITEMS = 6
MARKER = "melmill.json"
RUNS = "runs"
MANIFEST = "manifest.json"
# How ids of runs are made of the time, UTC: their order as texts is that of the runs.
RUN_ID = "%Y%m%dT%H%M%S%f"
STATE = "state.json"
FACTS = "facts.json"
OUTCOME = "outcome.json"
TAGS = "tags"
_TAG_SUFFIX = ".json"
# Files of runs that are read at the same time on a remote store.
_READERS = 16


class Store(RunTables):
    """The products and runs of a project. `create`, `open` and `find` make one.

    Parameters
    ----------
    location : Location
    run_id : str or None
        Run whose products the names mean. None: the last run.

    Examples
    --------
    ::

        store = melmill.open("runs/librispeech")
        store["mel"]["84-121123-0000"]        # (n_mels, n_frames)
        store.scores()                        # a row per utterance and node
        store.runs()                          # what the store knows of each run
    """

    def __init__(self, location: Location, run_id: str | None = None) -> None:
        self.location = location
        self.run_id = run_id

    @classmethod
    def create(cls, url: str, project: str) -> Store:
        """Return the store at a path or URL, ready for writing. Make it if there is none.

        Raises
        ------
        StoreMismatch
            It belongs to another project.
        StoreUnwritable
            It can't be written, or it can't protect concurrent writers from each other.
        """
        store = cls(Location(url))
        if store._project() is None:
            try:
                store.location.put(MARKER, _marker(project))
            except AlreadyThere as error:
                raise StoreMismatch(f"{store.location.url}: another project has just made a store here") from error
        store._checked(project)
        if store.location.is_remote:
            store.location.check_exclusive(MARKER)
        return store

    @classmethod
    def open(cls, url: str) -> Store:
        """Return the store at a path or URL.

        Raises
        ------
        StoreError
            There is none.
        StoreMismatch
            Its format is another one.
        """
        store = cls(Location(url))
        store._known_mark  # noqa: B018 - it raises
        return store

    @classmethod
    def find(cls, url: str, project: str) -> Store:
        """Return the store at a path or URL, which may not exist yet. Nothing is written.

        Raises
        ------
        StoreMismatch
            It belongs to another project, or has another format.
        """
        store = cls(Location(url))
        return store if store._project() is None else store._checked(project)

    @property
    def project(self) -> str:
        """Name of its project; raise StoreMissing where there is no store."""
        return self._known_mark[1]

    @property
    def format(self) -> int:
        """Version of its format; raise as `project`."""
        return self._known_mark[0]

    @property
    def _known_mark(self) -> tuple[int, str]:
        mark = self._mark()
        if mark is None:
            raise StoreMissing(f"{self.location.url} is not a store: it has no {MARKER}. Is the path right?")
        return mark

    def _project(self) -> str | None:
        mark = self._mark()
        return None if mark is None else mark[1]

    def _mark(self) -> tuple[int, str] | None:
        """Return the store's format and project, None where there is no store."""
        try:
            data = self.location.read(MARKER)
        except FileNotFoundError:
            return None
        try:
            marker = unsealed(data)
            written, project = int(marker["format"]), str(marker["project"])
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedMark(
                f"{self.location.url}/{MARKER} can't be parsed ({error}): not a store, or a damaged one. "
                "`melmill repair` writes it anew if a run names the project."
            ) from error
        if written not in FORMATS:
            raise StoreMismatch(
                f"{self.location.url} has format {written}, and this melmill reads {FORMATS[0]} to {FORMATS[-1]}. "
                "Use the melmill that wrote it, or another store."
            )
        return written, project

    def _checked(self, project: str) -> Store:
        owner = self._project()
        if owner != project:
            raise StoreMismatch(
                f"{self.location.url} is the store of project {owner!r}, not of {project!r}. "
                "Set store: to another place, or name: to the project's."
            )
        return self

    def product(self, node: str, key: str, recordings: Recordings | None = None) -> ProductFolder:
        """Return the folder of a node's product, whether it exists or not.

        `recordings` says where its arrays come from, if they stay in the corpus.
        """
        for name in (node, key):
            if not name or name.startswith(".") or "/" in name or node == RUNS:
                raise StoreError(f"no product can be called {node!r}, key {key!r}")
        return ProductFolder(self.location / node / key, recordings)

    def products(self) -> Iterator[tuple[Address, ProductFolder]]:
        """Yield (node, key) and folder of every product in the store, of all runs."""
        for node in self.location.folders():
            # No node's name begins with an underscore: such folders hold other things, as listening tests.
            for key in (self.location / node).folders() if node != RUNS and not node.startswith("_") else ():
                yield (node, key), self.product(node, key)

    def catalogue(self, node: str, key: str, *, checked: bool = True) -> Catalogue | None:
        """Return the catalogue of an ingest node, or of a node that trims or splits; raise DamagedData.

        It is None where there is none. `Catalogue.find` says what `checked` is.
        """
        folder = self.product(node, key)
        found = Catalogue.find(folder.location / CATALOGUE, checked=checked)
        if found is not None or not folder.location.exists(DESCRIPTION):
            return found
        description = folder.description
        if description.items_of is None or description.sr is None:
            return None
        base = self.catalogue(*description.items_of, checked=checked)
        return None if base is None else base.of_items(folder.stored_table("spans", None, None), description.sr)

    def catalogue_at(self, address: Address) -> Catalogue:
        """Return the catalogue of a node; raise CatalogueError where there is none."""
        node, key = address
        catalogue = self.catalogue(node, key)
        if catalogue is None:
            raise CatalogueError(f"{self.location.url}: the catalogue of node {node!r}, key {key!r}, is gone")
        return catalogue

    def prepare(self, description: ProductDescription, n_slots: int) -> None:
        """Make a product ready for its shards, or grow it; raise as `ProductFolder.prepare`."""
        folder = self.product(description.node, description.key)
        # One that exists keeps its codecs.
        has_new_codecs = description.array is not None and description.array.codecs > ZSTD_CODECS
        if has_new_codecs and not any(map(folder.location.exists, (DESCRIPTION, ARRAY_METADATA))):
            self.raise_format(FORMAT)
        if description.items_of is not None:
            self.raise_format(FORMAT_ITEMS)
        folder.prepare(description, n_slots)

    def raise_format(self, needed: int) -> None:
        """See to it that the store's format is `needed` or a later one."""
        mark = self._mark()
        if mark is not None and mark[0] < needed:
            self.location.replace(MARKER, _marker(mark[1], needed))

    def write_catalogue(self, node: str, key: str, catalogue: Catalogue) -> None:
        """Store what is new in the catalogue of an ingest node.

        Raises
        ------
        AlreadyThere
            Another run extended it.
        """
        if catalogue.revisions.retires_more:
            self.raise_format(FORMAT_RETIRED)
        try:
            catalogue.write_parts(self.product(node, key).location / CATALOGUE)
        except AlreadyThere as error:
            raise AlreadyThere(
                f"another run has changed the catalogue of {node!r} since this one was planned ({error}): run again"
            ) from error

    def write_labels(self, node: str, key: str, catalogue: Catalogue) -> None:
        """Store the texts and speakers of an ingest node that changed; raise as `write_catalogue`."""
        catalogue.write_labels(self.product(node, key).location / CATALOGUE)

    def read_shard(self, node: str, key: str, index: int) -> Shard:
        """Return one shard of a catalogue without reading the others."""
        folder = self.product(node, key)
        items_of = _items_of(folder)
        if items_of is None:
            return read_shard(folder.location / CATALOGUE, index)
        given = self.read_shard(*items_of, index)
        return items_shard(
            given, folder.read_spans(record_name(index)), folder.description.sr or given.utterances[0].sr
        )

    def rewrite_marker(self) -> None:
        """Write the marker file anew if it is damaged, with the project that the last run names.

        Raises
        ------
        DamagedMark
            It is damaged, and there was no run.
        """
        try:
            self._project()
        except DamagedMark:
            manifest = self.latest_manifest()
            if manifest is None:
                raise
            # The lost format was no later one.
            lost = FORMAT_ELSEWHERE if manifest.pipeline.get("also") else FORMAT
            if any(entry.reshapes for entry in manifest.nodes.values()):
                lost = FORMAT_ITEMS
            self.location.replace(MARKER, _marker(manifest.project, lost))

    def new_run_id(self) -> str:
        """Return an id for a run that starts now: the time, and after the ids of earlier runs.

        The clocks of machines differ, and the order of runs must not depend on them.
        """
        now = datetime.now(UTC).replace(tzinfo=None)
        for name in (self.location / RUNS).folders():
            with suppress(ValueError):
                now = max(now, datetime.strptime(name, RUN_ID) + timedelta(microseconds=1))
        return now.strftime(RUN_ID)

    def publish_run(self, run_id: str, manifest: Manifest) -> None:
        """Store a run's manifest; raise AlreadyThere if the run has another one."""
        (self.location / RUNS / run_id).put(MANIFEST, manifest.to_json())
        # This run is now the last one.
        for name in ("nodes", "_catalogues"):
            self.__dict__.pop(name, None)

    def latest_manifest(self) -> Manifest | None:
        """Return the manifest of the run that started last, None where there was no run."""
        return next(filter(None, map(self.manifest, reversed(self.run_ids()))), None)

    def manifest(self, run_id: str) -> Manifest | None:
        """Return the manifest of a run, None where it has none; raise DamagedData."""
        folder = self.location / RUNS / run_id
        return _parsed(folder, MANIFEST, Manifest.from_json)

    def publish_facts(self, facts: RunFacts) -> None:
        """Store the facts of a run; raise AlreadyThere if it has others."""
        (self.location / RUNS / facts.run_id).put(FACTS, facts.to_json())

    def publish_outcome(self, outcome: RunOutcome) -> None:
        """Store the outcome of a run; raise AlreadyThere if it has another one."""
        (self.location / RUNS / outcome.run_id).put(OUTCOME, outcome.to_json())

    def facts(self, run_id: str) -> RunFacts | None:
        """Return the facts of a run, None where it has none; raise DamagedData."""
        return _parsed(self.location / RUNS / run_id, FACTS, RunFacts.from_json)

    def outcome(self, run_id: str) -> RunOutcome | None:
        """Return the outcome of a run, None where it has none; raise DamagedData."""
        return _parsed(self.location / RUNS / run_id, OUTCOME, RunOutcome.from_json)

    def state(self, run_id: str) -> RunState | None:
        """Return the last news of a run's driver, None where there is none."""
        try:
            return RunState.from_json((self.location / RUNS / run_id).read(STATE))
        except FileNotFoundError:
            return None

    def runs(self) -> list[RunRecord]:
        """Return what the store knows of each run, the oldest first; raise DamagedData."""
        at, tags = datetime.now(UTC), self.tags()
        names: dict[str, list[str]] = {}
        for tag in tags.values():
            names.setdefault(tag.run_id, []).append(tag.name)

        def read(run_id: str) -> tuple[Manifest | None, RunFacts | None, RunOutcome | None, RunState | None]:
            return self.manifest(run_id), self.facts(run_id), self.outcome(run_id), self.state(run_id)

        records: list[RunRecord] = []
        last: Manifest | None = None
        run_ids = self.run_ids()
        for run_id, (manifest, facts, outcome, state) in zip(run_ids, self._each(read, run_ids), strict=True):
            last = manifest or last
            if last is None or (manifest is None and state is None):
                continue
            records.append(
                RunRecord(
                    store=self.location.url,
                    run_id=run_id,
                    manifest=last,
                    facts=facts,
                    outcome=outcome,
                    progress=state,
                    tags=tuple(sorted(names.get(run_id, ()))),
                    at=at,
                )
            )
        return records

    def _each(self, read: Callable[[str], T], names: Sequence[str]) -> list[T]:
        """Return what a function reads of each name. On remote stores, many are read at a time."""
        if not self.location.is_remote or len(names) < 2:
            return [read(name) for name in names]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(read, names))

    def tags(self) -> dict[str, Tag]:
        """Return all tags by name, sorted; raise DamagedData."""
        names = self.tag_names()
        tags = self._each(self.tag, names)
        return {name: tag for name, tag in zip(names, tags, strict=True) if tag is not None}

    def tag_names(self) -> list[str]:
        """Return the names of all tags, sorted, also of damaged ones."""
        files = (self.location / TAGS).sizes()
        return sorted(name.removesuffix(_TAG_SUFFIX) for name in files if name.endswith(_TAG_SUFFIX))

    def tag(self, name: str) -> Tag | None:
        """Return a tag, None where there is none of that name; raise DamagedData."""
        return _parsed(self.location / TAGS, tag_file(name), lambda data: Tag.from_json(name, data))

    def write_tag(self, tag: Tag, *, replace: bool = False) -> None:
        """Store a tag.

        Parameters
        ----------
        tag : Tag
        replace : bool
            Whether it may take the place of another one of its name, at once for all readers.

        Raises
        ------
        AlreadyThere
            There is one of that name.
        """
        folder, name = self.location / TAGS, tag_file(tag.name)
        if replace:
            folder.replace(name, tag.to_json())
        else:
            folder.put(name, tag.to_json())

    def remove_tag(self, name: str) -> None:
        """Remove a tag. Its run stays."""
        (self.location / TAGS).remove(tag_file(name))

    def write_state(self, state: RunState) -> None:
        """Store the state of a run in place of its earlier one."""
        (self.location / RUNS / state.run_id).replace(STATE, state.to_json())

    def run_ids(self) -> list[str]:
        """Return the ids of all runs that stored something, the latest last."""
        return (self.location / RUNS).folders()

    def latest_state(self) -> RunState | None:
        """Return the state of the last run that had something to do, None where there was none."""
        return next(filter(None, map(self.state, reversed(self.run_ids()))), None)

    def at(self, run_id: str) -> Store:
        """Return the same store, whose names mean what they meant in a run."""
        return Store(self.location, run_id)

    @cached_property
    def nodes(self) -> Mapping[str, NodeEntry]:
        """Nodes of the run by name, none where there was no run. They are read once."""
        manifest = self.latest_manifest() if self.run_id is None else self.manifest(self.run_id)
        return {} if manifest is None else manifest.nodes

    @cached_property
    def _catalogues(self) -> dict[Address, Catalogue]:
        return {}

    def __getstate__(self) -> dict[str, object]:
        return {"location": self.location, "run_id": self.run_id}

    def __getitem__(self, name: str) -> ProductView:
        entry = self.nodes.get(name)
        if entry is None:
            near = difflib.get_close_matches(name, self.nodes, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"the last run has no node {name!r}{hint} (nodes: {', '.join(self.nodes) or 'none'})")
        if entry.kind == "vocoder":
            raise StoreError(
                f"node {name!r} makes {entry.kind}: it has no arrays. Export it to a folder (`melmill export "
                f"{self.location.url} {name} FOLDER`), then melmill.load_vocoder(FOLDER)"
            )
        if entry.kind == "statistics":
            raise StoreError(f"node {name!r} makes {entry.kind}: it has no arrays. Use statistics({name!r}).")
        if entry.kind == "trust":
            raise StoreError(f"node {name!r} makes {entry.kind}: it has no arrays. Use trust(), or `melmill trust`.")
        if entry.kind == "fingerprints":
            raise StoreError(f"node {name!r} makes {entry.kind}: it has no arrays. It serves dedupe alone.")
        if not entry.catalogues or entry.kind in ("scores", "embeddings", "report", "inspections"):
            raise StoreError(f"node {name!r} makes {entry.kind}: it has no arrays. Use scores(), or `melmill report`.")
        folder = self.product(entry.folder, entry.key, entry.recordings)
        return ProductView(self.location, name, folder, self.catalogue_of(entry))

    def catalogue_of(self, entry: NodeEntry) -> Catalogue:
        """Return the catalogue of an entry's corpus. It is read once."""
        address = entry.catalogues[0]
        if address not in self._catalogues:
            self._catalogues[address] = self.catalogue_at(address)
        return self._catalogues[address]

    def account(self, node: str) -> Account:
        """Return the account of a node of the last run: what of its corpus it holds, and why not the rest.

        Raises
        ------
        KeyError
            There is no such node.
        StoreError
            It is made of whole corpora.
        """
        from melmill.storage.reading.accounts import Account  # which reads stores

        return Account(self, node)


# By the URL of a product: a key means the same for ever.
_known_items_of: dict[str, Address | None] = {}
_MOST_KNOWN = 1000


def _items_of(folder: ProductFolder) -> Address | None:
    """Return whose catalogue lists what a node was made of, if that node has one of its own."""
    url = folder.location.url
    if url not in _known_items_of:
        try:
            description = folder.description
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        if len(_known_items_of) >= _MOST_KNOWN:
            _known_items_of.clear()
        _known_items_of[url] = description.items_of
    return _known_items_of[url]


def tag_file(name: str) -> str:
    """Return the file of a tag, relative to the folder of all tags."""
    return f"{name}{_TAG_SUFFIX}"


def _parsed(folder: Location, name: str, parse: Callable[[bytes], T]) -> T | None:
    """Return what a file holds, None where there is no such file; raise DamagedData."""
    try:
        data = folder.read(name)
    except FileNotFoundError:
        return None
    try:
        return parse(data)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(f"{folder.url}/{name}", f"can't be parsed ({error})") from error


def _marker(project: str, written: int = FORMAT) -> bytes:
    return sealed({"format": written, "project": project})
