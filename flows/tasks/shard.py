"""The task over one shard: read the inputs, run the stage, write the product and its record."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from numpy.typing import NDArray

from melmill.flows.execution.isolation import process_apart
from melmill.flows.pipeline.keys import is_drawn, utterance_seed
from melmill.flows.tasks.job import Held, NodeJob, Source, Stopwatch
from melmill.flows.tasks.judging import judge
from melmill.flows.tasks.prepared import PORT, knowing, with_spans
from melmill.flows.tasks.task import Receipt
from melmill.flows.tasks.trained import TrainedFiles
from melmill.flows.tasks.work import Ingesting, ItemT, Processing, SourceItem, Work, outcome_of
from melmill.stages.blame import Blame, Verdict, blame
from melmill.stages.contract import (
    CountingStage,
    IngestStage,
    Item,
    Outcome,
    PreparingStage,
    Prints,
    PrintsStage,
    Rejected,
    Trained,
    Waveform,
    rejection,
)
from melmill.stages.ingest.levels import Levels
from melmill.stages.numeric.errors import StageError
from melmill.storage.arrays import n_not_finite
from melmill.storage.corpus.items import items_shard
from melmill.storage.corpus.partners import Partner
from melmill.storage.errors import StoreError
from melmill.storage.files.location import Location
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import Address, Quarantined, ShardContents
from melmill.storage.records import record_name
from melmill.storage.store import Store
from melmill.storage.utterance import Shard

# Files in a row that this machine can't read, after which it tries no more of a shard.
MAX_UNREADABLE = 3


@dataclass(frozen=True)
class _ShardWork(Generic[ItemT]):
    """What there is to do for a shard.

    `items` go through `work`. `absent` are the ids that an input lacks. `unreadable` holds, by id,
    why a file could not be read.
    """

    work: Work[ItemT]
    items: Sequence[ItemT]
    absent: Sequence[str] = ()
    unreadable: Mapping[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PairedInput:
    """Say which utterances of another corpus a shard reads.

    Parameters
    ----------
    port : str
        Where they are read.
    catalogue : (str, str)
        Folder and key of the ingest node whose catalogue lists them.
    partners : mapping of str to Partner
        By id of the shard's own utterance.
    """

    port: str
    catalogue: tuple[str, str]
    partners: Mapping[str, Partner]


@dataclass(frozen=True, kw_only=True)
class ShardJob(NodeJob):
    """The work of one node on one shard.

    For its other fields see `melmill.flows.tasks.job.NodeJob`.

    Parameters
    ----------
    ports : mapping of str to Source
        What is read at each port.
    catalogue : (str, str)
        Folder and key of the ingest node whose catalogue lists the utterances.
    shard : int
    isolated : bool
        Process the utterances one by one in a child process. An utterance that kills or hangs it is
        quarantined.
    time_limit_s : float or None
        Longest time that one isolated utterance may take, s.
    paired : PairedInput or None
        What is read of another corpus.
    share : float
        Share of utterances that reach the stage with inputs; see `SampledStage`.
    prints : sequence of int
        Shards of the corpus whose table the stage needs; see `PrintsStage`.
    retired : mapping of str to frozenset of str
        Utterances of that table that count no more, by record.
    suspects : frozenset of str
        Utterances that failed on another machine.
    trusted : bool
        Whether the machine is known to work, so that what fails is to blame itself.
    """

    ports: Mapping[str, Source]
    catalogue: tuple[str, str]
    shard: int
    isolated: bool = False
    time_limit_s: float | None = None
    paired: PairedInput | None = None
    share: float = 1.0
    prints: Sequence[int] = ()
    retired: Mapping[str, frozenset[str]] = field(default_factory=dict)
    suspects: frozenset[str] = frozenset()
    trusted: bool = False

    def suspecting(self, suspects: Collection[str], *, trusted: bool) -> ShardJob:
        """Return the job with what other machines made of its utterances."""
        return replace(self, suspects=frozenset(suspects), trusted=trusted)

    def run(self) -> Receipt:
        """Do the work and commit it; return the receipt."""
        return self.run_holding(Held())

    def run_holding(self, held: Held) -> Receipt:
        """Do the work and commit it; take inputs that are held, and hand on the arrays made."""
        watch = Stopwatch()
        store = Store.open(self.store)
        shard = store.read_shard(*self.catalogue, self.shard)
        if isinstance(self.stage, IngestStage):
            return self._finish(watch, store, shard, self._files(self.stage, shard), held)
        return self._finish(watch, store, shard, self._arrays(store, shard, held), held)

    @property
    def reads(self) -> frozenset[Address]:
        """Folder and key of the arrays of its own shard that it reads."""
        return frozenset((source.folder, source.key) for port, source in self.ports.items() if self._is_own(port))

    @property
    def makes(self) -> frozenset[Address]:
        """Folder and key of its product."""
        return frozenset({(self.node.folder, self.node.key)})

    def _is_own(self, port: str) -> bool:
        """Tell whether a port reads arrays of the same shard."""
        paired = self.paired is not None and port == self.paired.port
        return not paired and not isinstance(self.ports[port].product, Trained | Prints)

    def done(self) -> Receipt | None:
        """Return the receipt of the shard's record if its files have their sizes; else None."""
        folder = self.node.in_store(Store(Location(self.store)))
        record = folder.record(record_name(self.shard))
        if record is None or folder.damage(record):
            return None
        quarantined: tuple[str, ...] = ()
        if record.n_quarantined:
            try:
                quarantined = tuple(folder.read_table("quarantine", [record.name])["utterance_id"])
            except StoreError:
                return None
        return Receipt(
            n_utterances=record.n_utterances,
            n_quarantined=record.n_quarantined,
            quarantined=quarantined,
            audio_s=record.duration_s,
            compute_s=record.compute_s,
            wall_s=record.wall_s,
            peak_mem_bytes=record.peak_mem_bytes,
            host=record.host,
        )

    def _finish(self, watch: Stopwatch, store: Store, shard: Shard, todo: _ShardWork[ItemT], held: Held) -> Receipt:
        with watch.computing():
            outcomes = [self._checked(outcome) for outcome in self._outcomes(todo)]
        ids = [item.utterance.utterance_id for item in todo.items]
        by_id = {**todo.unreadable, **dict(zip(ids, outcomes, strict=True))}
        judge(by_id, self.suspects, trusted=self.trusted)
        contents = _with_hashes(self._contents(by_id, todo.absent), todo.items)
        if isinstance(self.stage, PreparingStage):
            contents = self._with_spans(contents, todo.items, outcomes)
        busy = [outcome.busy_s for outcome in outcomes if outcome.busy_s is not None]
        facts = watch.facts(self, busy_s=sum(busy) if busy else None)
        if isinstance(self.stage, IngestStage):
            facts = replace(facts, levels=Levels.of(contents.rows or ()).as_dict())
        elif contents.spans is not None and isinstance(self.stage, PreparingStage):
            facts = replace(
                facts, counts=self.stage.counts([(one.n_samples, one.reason) for one in contents.spans], self._sr)
            )
        elif isinstance(self.stage, CountingStage):
            facts = replace(facts, counts=self.stage.counts(contents.rows or ()))
        made = items_shard(shard, contents.spans or (), self._sr) if self._reshapes else shard
        record = self.node.in_store(store).commit(made, contents, facts, watch.started_s)
        if (record.host, record.worker, record.started_at) == (facts.host, facts.worker, facts.started_at):
            # Otherwise the record is another writer's, whose arrays may differ.
            held.put((self.node.folder, self.node.key), contents.arrays)
        return watch.receipt(
            facts,
            n_utterances=record.n_utterances,
            n_quarantined=record.n_quarantined,
            quarantined=tuple(one.utterance_id for one in contents.quarantined),
            audio_s=shard.duration_s,
        )

    @property
    def _reshapes(self) -> bool:
        """Whether it trims or splits utterances."""
        return isinstance(self.node.product, Waveform) and self.node.product.reshaped

    @property
    def _sr(self) -> int:
        """Rate of the waveforms that it prepares, Hz."""
        product = self.ports[PORT].product
        if not isinstance(product, Waveform):
            raise StageError(f"node {self.node.name!r} prepares {product.kind}: name a node that makes waveforms")
        return product.sr

    def _with_spans(self, contents: ShardContents, items: Sequence[Any], outcomes: Sequence[Outcome]) -> ShardContents:
        place = f"node {self.node.name!r}, shard {self.shard}"
        return with_spans(contents, items, outcomes, reshapes=self._reshapes, place=place)

    def _files(self, stage: IngestStage, shard: Shard) -> _ShardWork[SourceItem]:
        """Read the source files of a shard."""
        tree = SourceTree(stage.root)
        items, unreadable = [], {}
        for utterance in shard.current:
            try:
                items.append(SourceItem(utterance=utterance, data=tree.read_patiently(utterance.path)))
            except OSError as error:
                unreadable[utterance.utterance_id] = Outcome(rejected=rejection(error))
                if blame(error).blame is Blame.MACHINE and not items and len(unreadable) == MAX_UNREADABLE:
                    raise
        return _ShardWork(Ingesting(stage=stage), items, unreadable=unreadable)

    def _arrays(self, store: Store, shard: Shard, held: Held) -> _ShardWork[Item]:
        """Read the arrays of a shard at every port, or take those that are held."""
        arrays: dict[str, dict[str, NDArray[Any]]] = {}
        trained, processor = None, None
        for port, source in self.ports.items():
            if isinstance(source.product, Trained):
                trained = TrainedFiles(
                    store=self.store, name=source.name, folder=source.folder, key=source.key, product=source.product
                )
            elif isinstance(source.product, Prints) and isinstance(self.stage, PrintsStage):
                processor = knowing(self.stage, source.in_store(store), self.prints, self.shard, self.retired)
            elif self.paired is not None and port == self.paired.port:
                arrays[port] = _paired_arrays(store, source, self.paired)
            else:
                at_hand = held.get((source.folder, source.key))
                if at_hand is None:
                    at_hand = source.in_store(store).read_arrays(shard, self._wanted(shard))
                arrays[port] = at_hand
        items, absent = [], []
        for utterance in shard.current:
            utterance_id = utterance.utterance_id
            drawn = is_drawn(utterance_id, self.share)
            inputs = {port: by_id[utterance_id] for port, by_id in arrays.items() if drawn and utterance_id in by_id}
            if all(self.stage.inputs[port].absent_ok for port in arrays.keys() - inputs.keys()):
                items.append(Item(utterance=utterance, inputs=inputs, seed=utterance_seed(utterance_id)))
            else:
                absent.append(utterance_id)
        products = {port: source.product for port, source in self.ports.items()}
        work = Processing(
            stage=self.stage, inputs=products, product=self.node.product, trained=trained, processor=processor
        )
        return _ShardWork(work, items, absent)

    def _wanted(self, shard: Shard) -> list[str] | None:
        """Return the ids of the utterances whose arrays are needed; None for all."""
        if self.share >= 1.0:
            return None
        return [one.utterance_id for one in shard.current if is_drawn(one.utterance_id, self.share)]

    def _outcomes(self, todo: _ShardWork[ItemT]) -> list[Outcome]:
        """Return one outcome per item; an item that the stage can't process is rejected alone."""
        if not todo.items:
            return []
        # Opened here even where a child opens it again, so that no utterance is blamed if opening
        # fails.
        process = todo.work.opened()
        if self.isolated:
            return process_apart(todo.work, todo.items, self.time_limit_s)
        try:
            return list(process(todo.items))
        except Exception as error:
            if blame(error).blame >= Blame.LIKELY_MACHINE:
                raise
            return [outcome_of(process, item) for item in todo.items]

    def _checked(self, outcome: Outcome) -> Outcome:
        """Return an outcome, rejected if the store would refuse its array, and with it the shard."""
        made = [outcome.array, *(span.array for span in outcome.spans or ())]
        arrays = [array for array in made if array is not None]
        if outcome.rejected is not None or not (n_bad := sum(map(n_not_finite, arrays))):
            return outcome
        n_values = sum(array.size for array in arrays)
        return Outcome(
            rejected=Rejected(
                reason=f"{self.stage.uses} made {n_bad:,} of {n_values:,} values that are not finite",
                verdict=Verdict(blame=Blame.LIKELY_UTTERANCE),
            ),
            busy_s=outcome.busy_s,
        )

    def _contents(self, outcomes: Mapping[str, Outcome], absent: Sequence[str]) -> ShardContents:
        arrays, rows, traces, quarantined = {}, [], {}, []
        for utterance_id, outcome in outcomes.items():
            if outcome.rejected is not None:
                quarantined.append(
                    Quarantined(
                        utterance_id=utterance_id,
                        node=self.node.name,
                        stage=self.stage.uses,
                        reason=outcome.rejected.reason,
                        detail=outcome.rejected.detail,
                    )
                )
                continue
            if outcome.array is not None:
                arrays[utterance_id] = outcome.array
            if outcome.row is not None:
                rows.append({"utterance_id": utterance_id, **outcome.row})
            if outcome.trace is not None:
                traces[utterance_id] = outcome.trace
        return ShardContents(
            arrays=arrays,
            rows=rows or None,
            traces=traces or None,
            quarantined=quarantined,
            absent=absent,
            partners=None if self.paired is None else self.paired.partners,
        )


def _paired_arrays(store: Store, source: Source, paired: PairedInput) -> dict[str, NDArray[Any]]:
    """Return the arrays of another corpus by the id of the utterance that each belongs to."""
    wanted: dict[int, list[str]] = {}
    for partner in paired.partners.values():
        wanted.setdefault(partner.shard, []).append(partner.utterance_id)
    folder = source.in_store(store)
    found: dict[str, NDArray[Any]] = {}
    for index, ids in sorted(wanted.items()):
        found |= folder.read_arrays(store.read_shard(*paired.catalogue, index), ids)
    return {
        name: found[partner.utterance_id] for name, partner in paired.partners.items() if partner.utterance_id in found
    }


def _with_hashes(contents: ShardContents, items: Sequence[object]) -> ShardContents:
    """Return contents with the hash of each file that was refused, so that a mended one is noticed."""
    files = {item.utterance.utterance_id: item.data for item in items if isinstance(item, SourceItem)}
    quarantined = [
        replace(one, content_sha256=hashlib.sha256(files[one.utterance_id]).hexdigest())
        if one.utterance_id in files
        else one
        for one in contents.quarantined
    ]
    return replace(contents, quarantined=quarantined)
