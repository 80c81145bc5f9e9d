"""Plan a run: reuse each shard that has a whole record, and do all others."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import Node, build_graph, needed_for
from melmill.flows.pipeline.spec import Pipeline
from melmill.flows.planning.corpus import Surveyed, survey
from melmill.flows.planning.corpus import as_catalogued as stored_catalogue
from melmill.flows.planning.elsewhere import Adopted, OtherStores, whole_mask
from melmill.flows.planning.pairing import Paired, pair
from melmill.flows.runs.listening.stored import digest
from melmill.flows.runs.prune import wait_until_deleted
from melmill.flows.tasks.levels import current_levels
from melmill.flows.tasks.report import report_record
from melmill.flows.tasks.task import ALL_SHARDS
from melmill.flows.tasks.trained import TRAINED
from melmill.stages.contract import CountingStage, IngestStage, ReducingStage
from melmill.stages.ingest.levels import Levels
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.shard_set import ShardSet
from melmill.storage.errors import StoreError
from melmill.storage.product import Address, ProductFolder, Record
from melmill.storage.proof.inventory import Inventory
from melmill.storage.records import record_name
from melmill.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class NodePlan:
    """What one node has to do.

    Parameters
    ----------
    node : Node
    n_shards : int
        Shards of its corpus that hold an utterance which is not retired. 1 for a report or a training.
    pending : set of int
        Shards to do, of any number in little memory. ``{ALL_SHARDS}`` for a report or a training.
    reasons : mapping of str to int
        Why they are to be done, each reason with the number of its shards.
    damaged : mapping of str to str
        What is wrong with the data of a record, by the name of the record.
    outdated : frozenset of str
        Names of the records of shards that are to be made of other pairs of utterances than they
        were.
    quarantined : frozenset of str
        Names of the records to reuse whose shards have utterances in quarantine.
    n_unpacked : int
        Records that are in no pack.
    note : str
        What a person should know of what is reused. Empty for nothing.
    levels : Levels
        Of the recordings of an ingest node that are reused.
    counts : mapping of str to int
        What the records that are reused count of their utterances.
    adopted : Adopted
        What other stores have done. It is reused, and read there.
    """

    node: Node
    n_shards: int
    pending: Set[int]
    reasons: Mapping[str, int]
    damaged: Mapping[str, str] = field(default_factory=dict)
    outdated: frozenset[str] = frozenset()
    quarantined: frozenset[str] = frozenset()
    n_unpacked: int = 0
    note: str = ""
    levels: Levels = field(default_factory=Levels)
    counts: Mapping[str, int] = field(default_factory=dict)
    adopted: Adopted = field(default_factory=Adopted)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that a run needs to know before it starts.

    Parameters
    ----------
    pipeline : Pipeline
    nodes : mapping of str to NodePlan
        Each after those that it reads.
    catalogues : mapping of str to Catalogue
        By ingest node. They hold what is new in the corpus too, and are not written yet.
    corpus_notes : mapping of str to tuple of str
        What a person should know of each corpus, by ingest node.
    paired : mapping of str to Paired
        Pairs of the nodes that read two corpora, by node.
    catalogued_in : mapping of str to str
        URL of the other store that has the catalogue of an ingest node, where its own has none.
    n_prunings : int
        How often products had been deleted in the store when it was made. If it is more often now,
        what it calls done may be gone.
    again : callable or None
        Makes the plan anew. None: it was changed since, so that nobody can.
    listened : str
        Digest of the answers to listening tests that the store has, which reports show. Empty
        without any.
    """

    pipeline: Pipeline
    nodes: Mapping[str, NodePlan]
    catalogues: Mapping[str, Catalogue]
    corpus_notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    paired: Mapping[str, Paired] = field(default_factory=dict)
    catalogued_in: Mapping[str, str] = field(default_factory=dict)
    n_prunings: int = 0
    again: Callable[[], Plan] | None = None
    listened: str = ""

    @property
    def addresses(self) -> frozenset[Address]:
        """The products that it reads and makes."""
        return frozenset((one.node.folder, one.node.key) for one in self.nodes.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know, a line each: of the corpora, of pairs, and of what is reused."""
        return self.notes_after({}, {})

    def notes_after(self, made: Mapping[str, Levels], counted: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
        """Return the notes after a run.

        Parameters
        ----------
        made : mapping of str to Levels
            Levels of the recordings that the run made, by ingest node.
        counted : mapping of str to mapping of str to int
            What the run's records count, by node.
        """
        of_corpora = [f"{name}: {note}" for name, notes in self.corpus_notes.items() for note in notes]
        of_levels = [
            f"{name}: {note}"
            for name, node in self.nodes.items()
            for note in Levels.total([node.levels, made.get(name, Levels())]).notes()
        ]
        of_pairs = [f"{name}: {note}" for name, paired in self.paired.items() for note in paired.notes]
        of_stages = [
            f"{name}: {note}"
            for name, node in self.nodes.items()
            if isinstance(node.node.stage, CountingStage)
            for note in node.node.stage.notes(Counter(node.counts) + Counter(counted.get(name, {})))
        ]
        of_nodes = [node.note for node in self.nodes.values() if node.note]
        return (*of_corpora, *of_levels, *of_pairs, *of_stages, *of_nodes)

    @property
    def n_tasks(self) -> int:
        """Number of all tasks, including those that are reused."""
        return sum(plan.n_shards for plan in self.nodes.values())

    @property
    def n_pending(self) -> int:
        """Number of tasks to run."""
        return sum(len(plan.pending) for plan in self.nodes.values())

    @property
    def n_utterances(self) -> int:
        """Number of utterances in all corpora."""
        return sum(catalogue.n_utterances for catalogue in self.catalogues.values())

    def record_name(self, node: Node, shard: int) -> str:
        """Return the name of the record of a task."""
        if shard != ALL_SHARDS:
            return record_name(shard)
        if node.trains:
            return TRAINED
        return report_record((self.catalogues[corpus] for corpus in node.corpora), self.listened)


def make_plan(
    pipeline: Pipeline, until: str | None = None, *, follow: bool = False, as_catalogued: bool = False
) -> Plan:
    """Return what a run has to do.

    The pipeline is compared with its store and its corpora, and nothing is written.

    Parameters
    ----------
    pipeline : Pipeline
    until : str or None
        Plan this node and what it needs, no more.
    follow : bool
        Whether utterances whose files are gone leave the results, and changed ones are made anew.
    as_catalogued : bool
        Whether the corpora are not looked at: what the store has catalogued of them is planned.

    Raises
    ------
    PipelineError
        The pipeline is wrong, or a corpus or the store can't be used. Without `follow`, also if a
        file that was catalogued is gone or has changed. With `as_catalogued`, also if a corpus is
        not catalogued yet.
    """
    nodes = build_graph(pipeline)
    if until is not None:
        nodes = needed_for(nodes, until)
    again = partial(make_plan, pipeline, until, follow=follow, as_catalogued=as_catalogued)
    try:
        store = Store.find(pipeline.store, pipeline.name)
        addresses = {(node.folder, node.key) for node in nodes.values()}
        n_prunings = wait_until_deleted(store, addresses)
        try:
            with _collector_paused():
                if as_catalogued:
                    surveyed_as = partial(stored_catalogue, store=store)
                else:
                    surveyed_as = partial(
                        survey, store=store, shard_duration_s=pipeline.shard_duration_s, follow=follow
                    )
                plan = _compared(pipeline, nodes, store, surveyed_as)
        except (StoreError, PipelineError):
            if wait_until_deleted(store, addresses) == n_prunings:
                raise
            # What was read has been deleted meanwhile.
            return again()
        return replace(plan, n_prunings=n_prunings, again=again)
    except StoreError as error:
        raise PipelineError(str(error)) from error


def _compared(
    pipeline: Pipeline, nodes: Mapping[str, Node], store: Store, surveyed_as: Callable[..., Surveyed]
) -> Plan:
    # Records first: another run may be storing shards of a catalogue, and then their records.
    records = {name: store.product(node.folder, node.key).inventory() for name, node in nodes.items()}
    others = OtherStores(pipeline, store)
    bases = {node.name: others.catalogued_in(node) for node in nodes.values() if isinstance(node.stage, IngestStage)}
    surveyed = {}
    for name, base in bases.items():
        node = nodes[name]
        there = records[name] if base is store else base.product(node.folder, node.key).inventory()
        surveyed[name] = surveyed_as(node, store=base, records=there)
    catalogues = {name: corpus.catalogue for name, corpus in surveyed.items()}
    pairs = {name: pair(node, nodes, catalogues) for name, node in nodes.items()}
    plan = Plan(
        pipeline=pipeline,
        nodes={},
        catalogues=catalogues,
        corpus_notes={name: corpus.notes for name, corpus in surveyed.items()},
        paired={name: paired for name, paired in pairs.items() if paired is not None},
        listened=digest(store) if any(node.is_whole and not node.trains for node in nodes.values()) else "",
        catalogued_in={name: base.location.url for name, base in bases.items() if base is not store},
    )
    adopted = {}
    for name, node in nodes.items() if others.stores else ():
        corpus = node.corpora[0]
        adopted[name] = others.adopted(node, records[name], nodes[corpus], catalogues[corpus], bases[corpus])
    manifest = store.latest_manifest()
    before = {} if manifest is None else {name: entry.key for name, entry in manifest.nodes.items()}
    node_plans = {
        name: _node_plan(plan, store, node, records[name], before, adopted.get(name, Adopted()))
        for name, node in nodes.items()
    }
    return replace(plan, nodes=node_plans)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause garbage collection, which would search millions of objects without cycles for some."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _node_plan(
    plan: Plan, store: Store, node: Node, records: Inventory, before: Mapping[str, str], adopted: Adopted
) -> NodePlan:
    why_new = _why_new(store, node, before, bool(records.n_records))
    if node.is_whole:
        return _whole_plan(plan, node, records, why_new, adopted)
    folder = store.product(node.folder, node.key)
    catalogue = plan.catalogues[node.corpora[0]]
    current = catalogue.current_mask
    whole = records.whole.sized(len(current))
    outdated: frozenset[str] = frozenset()
    if paired := plan.paired.get(node.name):
        reused = [record_name(shard) for shard in np.flatnonzero(whole).tolist()]
        outdated = frozenset(paired.outdated(folder, folder.records(reused), catalogue))
        whole[[int(name) for name in outdated]] = False
    damaged = {name: records.problems[name] for name in records.problems if ShardSet(current).has_named(name)}
    whys = {**dict.fromkeys(outdated, "its pairs changed"), **dict.fromkeys(damaged, "damaged")}
    pending = ShardSet(current & ~whole & ~whole_mask(adopted.every, len(current)))
    reasons = Counter(why for name, why in whys.items() if pending.has_named(name))
    if n_new := len(pending) - reasons.total():
        reasons[why_new] += n_new
    reused_now = ShardSet(current & whole)
    return NodePlan(
        node=node,
        n_shards=int(np.count_nonzero(current)),
        pending=pending,
        reasons=reasons,
        damaged=damaged,
        outdated=outdated,
        quarantined=frozenset(record_name(shard) for shard in records.quarantined if shard in reused_now)
        | adopted.quarantined,
        n_unpacked=records.n_unpacked,
        note=f"{node.name}: {adopted.note}" if adopted.names else "",
        adopted=adopted,
        levels=current_levels(
            folder,
            catalogue,
            {record_name(shard): said for shard, said in records.levels.items() if shard in reused_now},
        ),
        counts={
            what: int(of_shards[np.flatnonzero(reused_now.mask)].sum()) for what, of_shards in records.counts.items()
        },
    )


def _whole_plan(plan: Plan, node: Node, records: Inventory, why_new: str, adopted: Adopted) -> NodePlan:
    """Return what a node over whole corpora has to do."""
    name = plan.record_name(node, ALL_SHARDS)
    damaged = {one: problem for one, problem in records.problems.items() if one == name}
    is_whole = (name in records.others and not damaged) or bool(adopted.names)
    return NodePlan(
        node=node,
        n_shards=1,
        pending=frozenset() if is_whole else frozenset({ALL_SHARDS}),
        reasons=Counter() if is_whole else Counter(["damaged" if damaged else why_new]),
        damaged=damaged,
        quarantined=frozenset({name} if name in records.others and records.others[name].n_quarantined else ()),
        note=_whole_note(plan, node, records, adopted) if is_whole else "",
        adopted=adopted,
    )


def _whole_note(plan: Plan, node: Node, records: Inventory, adopted: Adopted) -> str:
    if adopted.names:
        return f"{node.name}: {adopted.note}"
    return _outdated(plan, node, records.others[TRAINED]) if node.trains else ""


def _outdated(plan: Plan, node: Node, record: Record) -> str:
    """Say so if the corpus has changed since a training read it, which does not repeat it."""
    catalogue = plan.catalogues[node.corpora[0]]
    n_now, n_retired = catalogue.n_utterances, catalogue.revisions.n_retired - record.n_retired
    if n_now <= record.n_utterances and not n_retired:
        return ""
    since = f", and {n_retired} of the former have changed or are gone" if n_retired else ""
    if isinstance(node.stage, ReducingStage):
        return (
            f"{node.name} summed its corpus up when that had {record.n_utterances} utterances, and now it has "
            f"{n_now}{since}; to sum it up anew, give it another name"
        )
    return (
        f"{node.name} was trained when its corpus had {record.n_utterances} utterances, and now it has {n_now}{since}; "
        "to train anew, give it another seed or another name"
    )


def _why_new(store: Store, node: Node, before: Mapping[str, str], started: bool) -> str:
    """Say why a shard of `node` has no record."""
    if started:
        return "not done yet"
    old = before.get(node.name)
    if old is None:
        return "new node"
    if old == node.key:
        return "not done yet"
    return _difference(node, store.product(node.folder, old))


def _difference(node: Node, folder: ProductFolder) -> str:
    """Say how a node differs from the product that its name meant in the last run."""
    try:
        old = folder.description
    except StoreError:
        return "its last product is gone"
    if old.stage != node.stage.uses:
        return f"stage was {old.stage}"
    if old.version != node.stage.version:
        return f"stage {old.stage} has a new version"
    before, now = _flat(old.parameters), _flat(json.loads(json.dumps(node.parameters)))
    changes = [
        f"{name} was {json.dumps(before.get(name))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return ", ".join(changes) if changes else "its input changed"


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in one mapping, with those of nested mappings among them."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat
