"""How far the nodes of a store's last run are, from the store alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from melmill.flows.trained import trained_page
from melmill.flows.training_place import TrainingFolder
from melmill.stages.stage import WHOLE_KINDS, Kind
from melmill.storage.errors import StoreError
from melmill.storage.location import Location
from melmill.storage.store import NodeEntry, Store


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """How far one node is.

    Parameters
    ----------
    node, stage : str
    shards, done : int
        Shards of its corpus, and those with a record; of a report or a training there is one.
    quarantined : int
        Utterances that this node could not process.
    audio_s, compute_s : float
        Of what is done, s.
    note : str
        What a training that is not done said last, and when; empty elsewhere.
    """

    node: str
    stage: str
    shards: int
    done: int
    quarantined: int
    audio_s: float
    compute_s: float
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def node_states(store: Store) -> list[NodeState]:
    """Return the state of every node of the last run; raise StoreError where the store has seen none."""
    manifest = store.latest_manifest()
    if manifest is None:
        raise StoreError(f"store {store.location.url!r} has seen no run yet: run a pipeline on it")
    shards: dict[tuple[str, str], int] = {}
    for entry in manifest.nodes.values():
        for place in entry.catalogues:
            if place not in shards:
                catalogue = store.catalogue(*place)
                shards[place] = 0 if catalogue is None else catalogue.n_shards
    return [_state(store, name, entry, shards) for name, entry in manifest.nodes.items()]


def _state(store: Store, name: str, entry: NodeEntry, shards: dict[tuple[str, str], int]) -> NodeState:
    records = store.product(entry.folder, entry.key).records().values()
    is_whole = entry.kind in WHOLE_KINDS
    return NodeState(
        node=name,
        stage=entry.stage,
        shards=1 if is_whole else sum(shards[place] for place in entry.catalogues),
        done=min(len(records), 1) if is_whole else len(records),
        quarantined=sum(record.n_quarantined for record in records),
        audio_s=sum(record.duration_s for record in records),
        compute_s=sum(record.compute_s for record in records),
        note=_said(store, name, entry) if entry.kind == Kind.VOCODER and not records else "",
    )


def _said(store: Store, name: str, entry: NodeEntry) -> str:
    log = TrainingFolder(store.product(entry.folder, entry.key).location, name).log
    return log.decode().rstrip().rpartition("\n")[2]


def latest_report(store: Store) -> Location | None:
    """Return the folder of the newest report of the last run; None where there is none."""
    manifest = store.latest_manifest()
    found = []
    for entry in manifest.nodes.values() if manifest else ():
        if entry.kind == "report":
            folder = store.product(entry.folder, entry.key)
            found += [
                (record.started_at, folder.location / "report" / name) for name, record in folder.records().items()
            ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def training_pages(store: Store) -> list[str]:
    """Return where the pages of the last run's trainings are, of those that are done."""
    entries = [entry for entry in store.nodes.values() if entry.kind == Kind.VOCODER]
    return [page for entry in entries for page in trained_page(store.product(entry.folder, entry.key))]
