"""Read from a store alone how far the nodes of its last run are, and what pages a run made."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from melmill.flows.runs.listening.stored import digest
from melmill.flows.tasks.report import is_verdict, report_folder, report_record
from melmill.flows.tasks.trained import trained_page
from melmill.flows.tasks.training import TrainingFolder
from melmill.stages.contract import TRAINED_KINDS, WHOLE_KINDS, Kind
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.files.location import Location
from melmill.storage.product import Address
from melmill.storage.records import Record
from melmill.storage.runs import SILENT_S, Manifest, RunState
from melmill.storage.store import RUN_ID, NodeEntry, Store

# Throughput is measured over this time, s.
WINDOW_S = 300.0


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """How far one node is.

    Parameters
    ----------
    node, stage : str
    shards, done, failed : int
        Shards of its corpus, those with a record, and those that the last run gave up. Reports and
        trainings have one.
    quarantined : int
        Utterances that this node could not process.
    audio_s, compute_s, task_s : float
        Sums over what is done, s: audio, time inside the stage, and time of whole tasks.
    peak_mem_bytes : int
        Largest resident size of a worker process at one of its tasks; 0 where unknown.
    recent, recent_task_s : int, float
        Tasks done in the last `WINDOW_S`, and their time, s.
    last_at : str or None
        Time of its last record, ISO 8601, UTC.
    note : str
        The last line of the log of a training that is not done; empty elsewhere.
    """

    node: str
    stage: str
    shards: int
    done: int
    failed: int
    quarantined: int
    audio_s: float
    compute_s: float
    task_s: float
    peak_mem_bytes: int
    recent: int
    recent_task_s: float
    last_at: str | None
    note: str = ""

    @property
    def left(self) -> int:
        """Shards without a record."""
        return max(0, self.shards - self.done)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _DoneTask:
    """The facts of a record that a status needs."""

    finished: float
    quarantined: int
    audio_s: float
    compute_s: float
    task_s: float
    peak_mem_bytes: int

    @classmethod
    def of(cls, record: Record) -> _DoneTask:
        task_s = record.wall_s or record.compute_s
        finished = datetime.fromisoformat(record.started_at).timestamp() + task_s
        return cls(finished, record.n_quarantined, record.duration_s, record.compute_s, task_s, record.peak_mem_bytes)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far the last run of a store is at one moment.

    `run` is None if no run with something to do wrote its state.
    """

    at: datetime
    nodes: tuple[NodeState, ...]
    run: RunState | None

    @property
    def n_tasks(self) -> int:
        """Tasks of all nodes."""
        return sum(node.shards for node in self.nodes)

    @property
    def n_done(self) -> int:
        """Tasks with a record."""
        return sum(node.done for node in self.nodes)

    @property
    def n_failed(self) -> int:
        """Tasks that the last run gave up."""
        return sum(node.failed for node in self.nodes)

    @property
    def span_s(self) -> float:
        """Time that the recent tasks were done in: `WINDOW_S`, or less where the run is younger."""
        age = WINDOW_S if self.run is None else (self.at - datetime.fromisoformat(self.run.started_at)).total_seconds()
        return min(WINDOW_S, max(1.0, age))

    @property
    def tasks_per_min(self) -> float:
        """Tasks done per minute, over `span_s`."""
        return 60 * sum(node.recent for node in self.nodes) / self.span_s

    @property
    def time_left_s(self) -> float | None:
        """Time until all is done, s, at the recent pace; None if nothing was done recently."""
        busy = sum(node.recent_task_s for node in self.nodes) / self.span_s
        if not busy or not self.n_done:
            return None
        overall = sum(node.task_s for node in self.nodes) / self.n_done
        return sum(node.left * (node.task_s / node.done if node.done else overall) for node in self.nodes) / busy

    @property
    def last(self) -> NodeState | None:
        """The node with the newest record."""
        return max((node for node in self.nodes if node.last_at), key=lambda node: str(node.last_at), default=None)

    @property
    def silent_s(self) -> float:
        """Time since the driver of a running run wrote its state, s; 0 if nothing is running."""
        if self.run is None or self.run.state != "running":
            return 0.0
        return (self.at - datetime.fromisoformat(self.run.updated_at)).total_seconds()

    @property
    def over(self) -> bool:
        """Whether the last run ended, or all is done and no driver is active."""
        if self.run is not None and self.run.state != "running":
            return True
        is_active = self.run is not None and self.silent_s <= SILENT_S
        return not is_active and all(not node.left for node in self.nodes)


class StatusReader:
    """Read the status of a store again and again; each record is read once.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._runs: list[str] = []
        self._manifest: Manifest | None = None
        self._catalogues: dict[Address, Catalogue | None] = {}
        self._done: dict[Address, dict[str, _DoneTask]] = {}

    def read(self) -> RunStatus:
        """Return the status now; raise StoreError if no run used the store yet."""
        # Only a new run changes what names mean, and which utterances there are.
        runs = self.store.run_ids()
        if runs != self._runs or self._manifest is None:
            self._runs, self._manifest = runs, self.store.latest_manifest()
            self._catalogues, self._done = {}, {}
        if self._manifest is None:
            raise StoreError(f"store {self.store.location.url!r} has no runs yet: run a pipeline on it")
        now = datetime.now(UTC)
        run = self.store.latest_state()
        nodes = tuple(self._state(name, entry, run, now) for name, entry in self._manifest.nodes.items())
        return RunStatus(at=now, nodes=nodes, run=run)

    def _catalogues_of(self, entry: NodeEntry) -> list[Catalogue]:
        for address in entry.catalogues:
            if address not in self._catalogues:
                self._catalogues[address] = self.store.catalogue(*address)
        found = (self._catalogues[address] for address in entry.catalogues)
        return [catalogue for catalogue in found if catalogue is not None]

    def _records(self, entry: NodeEntry, catalogues: Sequence[Catalogue]) -> Mapping[str, _DoneTask]:
        address = (entry.folder, entry.key)
        folder = self.store.product(*address)
        names = set(folder.record_names())
        if entry.kind not in WHOLE_KINDS and catalogues:
            names &= catalogues[0].current_records.keys()
        elif entry.kind == Kind.REPORT:
            # Records of other names are of the corpora as they were.
            names &= {report_record(catalogues, digest(self.store))}
        known = {name: done for name, done in self._done.get(address, {}).items() if name in names}
        new = folder.records(names - known.keys())
        if entry.kind not in WHOLE_KINDS and catalogues:
            new = folder.current(catalogues[0], new)
        self._done[address] = known | {name: _DoneTask.of(record) for name, record in new.items()}
        return self._done[address]

    def _state(self, name: str, entry: NodeEntry, run: RunState | None, now: datetime) -> NodeState:
        is_whole = entry.kind in WHOLE_KINDS
        catalogues = self._catalogues_of(entry)
        records = self._records(entry, catalogues).values()
        recent = [done for done in records if now.timestamp() - done.finished <= WINDOW_S]
        last = max((done.finished for done in records), default=None)
        note = ""
        if entry.kind in TRAINED_KINDS and not records:
            log = TrainingFolder(self.store.product(entry.folder, entry.key).location, name).log
            note = log.decode().rstrip().rpartition("\n")[2]
        return NodeState(
            node=name,
            stage=entry.stage,
            # A node that pairs two corpora has the shards of the first.
            shards=1 if is_whole else sum(len(catalogue.current_shards) for catalogue in catalogues[:1]),
            done=min(len(records), 1) if is_whole else len(records),
            failed=0 if run is None else int(run.nodes.get(name, {}).get("failed", 0)),
            quarantined=sum(done.quarantined for done in records),
            audio_s=sum(done.audio_s for done in records),
            compute_s=sum(done.compute_s for done in records),
            task_s=sum(done.task_s for done in records),
            peak_mem_bytes=max((done.peak_mem_bytes for done in records), default=0),
            recent=len(recent),
            recent_task_s=sum(done.task_s for done in recent),
            last_at=None if last is None else datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds"),
            note=note,
        )


@dataclass(frozen=True, kw_only=True)
class RunPages:
    """What a run shows for itself.

    Parameters
    ----------
    report : Location or None
        Folder of its newest report.
    trainings : tuple of str
        URLs of the pages of its trainings that are done.
    """

    report: Location | None
    trainings: tuple[str, ...]


def run_pages(store: Store, run_id: str | None = None, node: str | None = None) -> RunPages:
    """Return the newest report and the trainings' pages of a run.

    Parameters
    ----------
    store : Store
    run_id : str or None
        None: the last run.
    node : str or None
        Look at this report or training only.

    Raises
    ------
    StoreError
        There is no such run. Or it has no such node, or one that makes something else.
    """
    manifest = _manifest(store, run_id)
    entries = {} if manifest is None else dict(manifest.nodes)
    if node is not None:
        entries = {node: _reporting_entry(entries, node)}
    reports: list[tuple[str, Location]] = []
    trainings: list[str] = []
    for entry in entries.values():
        folder = store.product(entry.folder, entry.key)
        if entry.kind in TRAINED_KINDS:
            trainings += trained_page(folder)
        elif entry.kind == Kind.REPORT:
            until = None if run_id is None else _next_run(store, run_id, entry)
            reports += [
                (record.started_at, folder.location / report_folder(name))
                for name, record in folder.records().items()
                if (until is None or run_id_at(record.started_at) < until) and (node or not is_verdict(record))
            ]
    newest = max(reports, key=lambda pair: pair[0], default=None)
    return RunPages(report=None if newest is None else newest[1], trainings=tuple(trainings))


def _manifest(store: Store, run_id: str | None) -> Manifest | None:
    if run_id is None:
        return store.latest_manifest()
    run_ids = store.run_ids()
    if run_id in run_ids:
        return store.manifest(run_id)
    near = difflib.get_close_matches(run_id, run_ids, n=1)
    hint = (
        f"; did you mean {near[0]!r}?"
        if near
        else f" (its last run is {run_ids[-1]!r})"
        if run_ids
        else " or any other"
    )
    raise StoreError(f"store {store.location.url!r} has no run {run_id!r}{hint}")


def _reporting_entry(entries: Mapping[str, NodeEntry], node: str) -> NodeEntry:
    known = [name for name, entry in entries.items() if entry.kind in WHOLE_KINDS]
    if node in known:
        return entries[node]
    if node in entries:
        problem = f"node {node!r} makes {entries[node].kind}, not a report or a training"
    else:
        problem = f"the run has no node {node!r}"
    near = difflib.get_close_matches(node, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f" (reports and trainings: {', '.join(known) or 'none'})"
    raise StoreError(problem + hint)


def _next_run(store: Store, run_id: str, entry: NodeEntry) -> str | None:
    """Return the first run after `run_id` that has the same product, which it may have extended."""
    for later in store.run_ids():
        manifest = store.manifest(later) if later > run_id else None
        if manifest and (entry.folder, entry.key) in {(other.folder, other.key) for other in manifest.nodes.values()}:
            return later
    return None


def run_id_at(time: str) -> str:
    """Return the id that a run would have that started at a time, ISO 8601."""
    return datetime.fromisoformat(time).astimezone(UTC).strftime(RUN_ID)
