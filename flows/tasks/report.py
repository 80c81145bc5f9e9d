"""The task of a report: give the stage all that led to it, and commit the files that it returns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melmill.flows.runs.evaluation import StoredEvaluation
from melmill.flows.runs.listening.results import heard_tests
from melmill.flows.runs.listening.stored import heard, read_tests
from melmill.flows.tasks.job import NodeJob, Source, Stopwatch, versions
from melmill.flows.tasks.levels import current_levels
from melmill.flows.tasks.task import Receipt
from melmill.flows.tasks.throughput import throughput
from melmill.stages.contract import WHOLE_KINDS, EmbeddingRows, Inspections, Scores, TrustRows, Waveform, as_float
from melmill.stages.numeric.errors import StageError
from melmill.stages.report.contract import PAIR_COLUMNS, Example, HeardTest, Provenance, ReportStage
from melmill.storage.errors import DamagedData, StoreError
from melmill.storage.product import Address, Part, ProductFolder
from melmill.storage.runs import NodeEntry
from melmill.storage.store import RUNS, Store

if TYPE_CHECKING:
    import pandas as pd

    from melmill.stages.report.comparison.evaluation import Evaluation, RunAt
    from melmill.stages.score.sets.values import EmbeddedSet
    from melmill.storage.catalogue import Catalogue
    from melmill.storage.corpus.partners import Partner
    from melmill.storage.records import Record
    from melmill.storage.utterance import Shard

# Files of every report: the page, and the table for the terminal.
PAGE = "index.html"
HEADLINE = "headline.csv"
# File of a report that is a gate: whether it passed.
VERDICT = "verdict.json"
# Page in the store that shows scores over its runs.
TRENDS_PAGE = f"{RUNS}/trends.html"
# The same from the page of a report, which is in <node>/<key>/report/<record>/.
TRENDS_LINK = f"../../../../{TRENDS_PAGE}"

_SET_PARTS: tuple[Part, Part] = ("table", "trace")


def report_folder(record_name: str) -> str:
    """Return the folder of a report's files, relative to that of the product."""
    return f"report/{record_name}"


def is_verdict(record: Record) -> bool:
    """Tell whether a record is that of a gate."""
    return f"{report_folder(record.name)}/{VERDICT}" in record.files


def report_record(catalogues: Iterable[Catalogue], listened: str = "") -> str:
    """Return the name of the record of a report on corpora as they are in catalogues.

    `listened` is a digest of what listeners said of its nodes, empty if that is nothing.
    """
    # A report shows the texts of its examples, and groups by speaker.
    digests = "".join(catalogue.digest + catalogue.labels_digest for catalogue in catalogues) + listened
    return f"all-{hashlib.sha256(digests.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One node that led to a report, how its product was made, and whether it pairs two corpora."""

    source: Source
    uses: str
    version: int
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, ...]]
    catalogue: Address
    is_paired: bool = False

    @property
    def entry(self) -> NodeEntry:
        """What a manifest says of it."""
        product = self.source.product
        return NodeEntry(
            folder=self.source.folder,
            key=self.source.key,
            kind=product.kind.value,
            stage=self.uses,
            catalogues=(self.catalogue,),
            scored=product.scored if isinstance(product, Scores) else None,
            recordings=self.source.recordings,
        )


@dataclass(frozen=True, kw_only=True)
class ReportJob(NodeJob):
    """The work of a report; for its other fields see `melmill.flows.tasks.job.NodeJob`.

    Parameters
    ----------
    stage : ReportStage
    ancestors : mapping of str to Ancestor
        All nodes before the report, by name, each after those that it reads.
    record_name : str
    pipeline : str
        Name of the pipeline.
    pair_notes : tuple of str
        What a person should know of the pairs of the ancestors, a line each.
    """

    stage: ReportStage
    ancestors: Mapping[str, Ancestor]
    record_name: str
    pipeline: str
    pair_notes: tuple[str, ...] = ()

    def run(self) -> Receipt:
        """Make the report and commit its files; return the receipt.

        Raises
        ------
        StageError
            The stage returned no page, or no headline.
        """
        watch = Stopwatch()
        store = Store.open(self.store)
        data = StoredResults(store, self.ancestors, self.pipeline, self.pair_notes)
        with watch.computing():
            made = self.stage.report(data)
        if PAGE not in made.files:
            raise StageError(
                f"stage {self.stage.uses!r}: report() must return a file {PAGE!r}, got {sorted(made.files)}"
            )
        if not made.headline.strip():
            raise StageError(
                f"stage {self.stage.uses!r}: report() must return a headline of CSV with a first line of column names, "
                f"got {made.headline!r}"
            )
        facts = watch.facts(self)
        self.node.in_store(store).commit_files(
            self.record_name,
            {**made.files, HEADLINE: made.headline.encode()},
            facts,
            watch.started_s,
            folder=report_folder(self.record_name),
        )
        catalogues = data.catalogues.values()
        return watch.receipt(
            facts,
            n_utterances=sum(catalogue.n_utterances for catalogue in catalogues),
            audio_s=sum(catalogue.duration_s for catalogue in catalogues),
        )


class StoredResults:
    """Read from a store what a report needs; see `melmill.stages.report.contract.ReportData`.

    Parameters
    ----------
    store : Store
    ancestors : mapping of str to Ancestor
        By name of the node.
    pipeline : str
    pair_notes : sequence of str
    """

    def __init__(
        self, store: Store, ancestors: Mapping[str, Ancestor], pipeline: str, pair_notes: Sequence[str] = ()
    ) -> None:
        self._store = store
        self._ancestors = ancestors
        self.pipeline = pipeline
        self.pair_notes = pair_notes
        self.versions: Mapping[str, str] = versions()
        self.provenance = [
            Provenance(
                name=name,
                uses=ancestor.uses,
                version=ancestor.version,
                key=ancestor.source.key,
                inputs=[source for sources in ancestor.inputs.values() for source in sources],
                parameters=ancestor.parameters,
            )
            for name, ancestor in ancestors.items()
        ]
        # Score nodes by the node whose waveforms they score.
        self._score_nodes: dict[str, list[str]] = {}
        for name, ancestor in ancestors.items():
            if isinstance(ancestor.source.product, Scores):
                self._score_nodes.setdefault(ancestor.source.product.scored, []).append(name)

    @cached_property
    def catalogues(self) -> Mapping[Address, Catalogue]:
        """Catalogues of all corpora and of what was cut of them, by folder and key of the node."""
        addresses = {ancestor.catalogue for ancestor in self._ancestors.values()}
        return {address: self._store.catalogue_at(address) for address in addresses}

    @cached_property
    def trends(self) -> str:
        """Where the page of trends is at the end of this run; empty if no run before it has scores."""
        if self._store.location.exists(TRENDS_PAGE):
            return TRENDS_LINK
        for run_id in self._store.run_ids():
            with suppress(DamagedData):
                outcome = self._store.outcome(run_id)
                if outcome is not None and outcome.scores:
                    return TRENDS_LINK
        return ""

    @property
    def scores(self) -> pd.DataFrame:
        """One row per utterance and scored node."""
        from melmill.storage.reading.views import scores, with_utterances

        return scores(
            with_utterances(self._table(name, "table"), self.catalogues[self._ancestors[name].catalogue], node=scored)
            for scored, names in self._score_nodes.items()
            for name in names
        )

    @property
    def inspections(self) -> pd.DataFrame:
        """One row per recording that a node of the stage `inspect` measured."""
        from melmill.storage.reading.views import by_node, corpus, packed_at_once

        return by_node(
            {
                ancestor.source.product.inspected: packed_at_once(
                    corpus(self._catalogue(name), self._table(name, "table"), node=""), self._catalogue(name)
                )
                for name, ancestor in self._ancestors.items()
                if isinstance(ancestor.source.product, Inspections)
            }
        )

    def recording(self, node: str, utterance_id: str) -> Example | None:
        """Return the audio of an utterance of a node, or None if the node lacks it."""
        catalogue = self._catalogue(node)
        if utterance_id not in catalogue:
            return None
        shard = catalogue.shard(catalogue.shard_of(utterance_id))
        y = self._waveform(node, shard, utterance_id)
        if y is None:
            return None
        text = next(one.text for one in shard.utterances if one.utterance_id == utterance_id)
        return Example(utterance_id=utterance_id, text=text, sr=self._rate(node), reference=y, reconstructions={})

    @property
    def pairs(self) -> pd.DataFrame:
        """One row per recording and file of another system, also of those without a partner."""
        import pandas as pd

        tables = []
        for scored, names in self._score_nodes.items():
            if self._ancestors[names[0]].is_paired:
                partners = self._partners[names[0]]
                ids = [(name, partner.utterance_id) for name, partner in partners.items()]
                found = pd.DataFrame(ids, columns=["utterance_id", "estimate_id"])
                references = self._lengths(names[0])
                estimates = (
                    self._lengths(scored)
                    .add_prefix("estimate_")
                    .rename(columns={"estimate_utterance_id": "estimate_id"})
                )
                both = references.merge(found, on="utterance_id", how="left")
                tables.append(both.merge(estimates, on="estimate_id", how="outer").assign(node=scored))
        if not tables:
            return pd.DataFrame(columns=PAIR_COLUMNS)
        return pd.concat(tables, ignore_index=True)[list(PAIR_COLUMNS)]

    def _lengths(self, name: str) -> pd.DataFrame:
        catalogue = self.catalogues[self._ancestors[name].catalogue]
        table: pd.DataFrame = catalogue.table.select(["utterance_id", "duration_s"]).to_pandas()
        return table

    @cached_property
    def _partners(self) -> Mapping[str, Mapping[str, Partner]]:
        """What the rows of score nodes were computed with, of another corpus: by node and by id."""
        return {
            name: {
                utterance_id: partner
                for record in self._folder(name).records().values()
                for utterance_id, partner in self._folder(name).read_partners(record).items()
            }
            for names in self._score_nodes.values()
            for name in names
            if self._ancestors[name].is_paired
        }

    @property
    def traces(self) -> pd.DataFrame:
        """One row per utterance, scored node and iteration."""
        return self._tables("trace", self._score_nodes)

    @property
    def trust(self) -> pd.DataFrame:
        """One row per damaged version of a recording."""
        from melmill.storage.reading.views import packed_at_once, trust

        damaged = {
            name: ancestor.source.product.damaged
            for name, ancestor in self._ancestors.items()
            if isinstance(ancestor.source.product, TrustRows)
        }
        return trust(
            {name: packed_at_once(self._table(name, "trace"), self._catalogue(name)) for name in damaged}, damaged
        )

    @property
    def sets(self) -> list[EmbeddedSet]:
        """Embeddings of whole sets."""
        from melmill.stages.score.sets.values import embedded_set
        from melmill.storage.reading.views import packed_at_once

        found = []
        for name, ancestor in self._ancestors.items():
            product = ancestor.source.product
            if isinstance(product, EmbeddingRows):
                table, trace = (packed_at_once(self._table(name, part), self._catalogue(name)) for part in _SET_PARTS)
                found.append(
                    embedded_set(
                        table, trace, node=product.scored, embedding=product.embedding, metrics=product.metrics
                    )
                )
        return found

    @property
    def quarantine(self) -> pd.DataFrame:
        """One row per utterance that a node could not process."""
        return self._tables("quarantine", self._ancestors)

    @property
    def listening(self) -> Sequence[HeardTest]:
        """Listening tests in which one of the nodes was heard, those with answers."""
        names = {(one.source.folder, one.source.key): name for name, one in self._ancestors.items()}
        return heard_tests(heard(read_tests(self._store), names), names)

    @property
    def notes(self) -> list[str]:
        """What a person should know of the levels and channels of the recordings, a line each."""
        lines = []
        for name in self._ancestors:
            said = {record.name: record.levels for record in self._records(name)}
            levels = current_levels(self._folder(name), self._catalogue(name), said)
            lines += [f"{name}: {note}" for note in levels.notes()]
        return lines

    @property
    def throughput(self) -> pd.DataFrame:
        """One row per node."""
        return throughput({name: self._records(name) for name in self._ancestors})

    def evaluation(self, at: RunAt | None = None) -> Evaluation:
        """Return what a gate reads: of these scores, or of another run that was published.

        Raises
        ------
        StoreError
            The store of the other run, or the run itself, is gone.
        """
        if at is None:
            nodes = {name: ancestor.entry for name, ancestor in self._ancestors.items()}
            return StoredEvaluation(self._store, nodes, "this run")
        store = Store.open(at.store)
        manifest = store.manifest(at.run_id)
        if manifest is None:
            raise StoreError(f"run {at.run_id!r} of store {at.store!r}, the baseline {at.label!r}, is gone: run again")
        return StoredEvaluation(store.at(at.run_id), manifest.nodes, at.label, manifest.pipeline)

    def example(self, utterance_id: str) -> Example | None:
        """Return the audio of a scored utterance, or None if it was scored without recordings.

        Raises
        ------
        ValueError
            Nothing scored it, or the node of the recordings lacks it.
        """
        scored = [
            name
            for name, score_nodes in self._score_nodes.items()
            if utterance_id in self.catalogues[self._ancestors[score_nodes[0]].catalogue]
        ]
        if not scored:
            raise ValueError(f"{utterance_id!r} is not an utterance of the scored corpora")
        score_node = self._ancestors[self._score_nodes[scored[0]][0]]
        catalogue = self.catalogues[score_node.catalogue]
        shard = catalogue.shard(catalogue.shard_of(utterance_id))
        if "against" not in score_node.inputs:
            return None
        recordings = score_node.inputs["against"][0]
        reference = self._waveform(recordings, shard, utterance_id)
        if reference is None:
            raise ValueError(f"node {recordings!r} does not hold {utterance_id!r}, so it can't be an example")
        waveforms = {name: self._scored_waveform(name, shard, utterance_id) for name in scored}
        return Example(
            utterance_id=utterance_id,
            text=next(one.text for one in shard.utterances if one.utterance_id == utterance_id),
            sr=self._rate(recordings),
            reference=reference,
            reconstructions={name: y for name, y in waveforms.items() if y is not None},
            rates={name: self._rate(name) for name, y in waveforms.items() if y is not None},
        )

    def _folder(self, name: str) -> ProductFolder:
        return self._ancestors[name].source.in_store(self._store)

    def _table(self, name: str, part: Part) -> pd.DataFrame:
        return self._folder(name).read_table(part, catalogue=self._catalogue(name))

    def _catalogue(self, name: str) -> Catalogue:
        return self.catalogues[self._ancestors[name].catalogue]

    def _records(self, name: str) -> list[Record]:
        folder, ancestor = self._folder(name), self._ancestors[name]
        records = folder.records()
        if ancestor.source.product.kind not in WHOLE_KINDS:
            records = folder.current(self._catalogue(name), records)
        return list(records.values())

    def _tables(self, part: Part, names: Mapping[str, object]) -> pd.DataFrame:
        """Return the tables of several nodes below one another, with a column ``node``."""
        import pandas as pd

        from melmill.storage.reading.views import packed_at_once

        named = ((name, packed_at_once(self._table(name, part), self._catalogue(name))) for name in names)
        tables = [table.assign(node=name) for name, table in named]
        if any(len(table) for table in tables):
            return pd.concat(tables, ignore_index=True)
        return next(iter(tables), pd.DataFrame())

    def _scored_waveform(self, name: str, shard: Shard, utterance_id: str) -> NDArray[np.float32] | None:
        """Return the waveform of a scored node that belongs to an utterance of the recordings."""
        score_node = self._score_nodes[name][0]
        if not self._ancestors[score_node].is_paired:
            return self._waveform(name, shard, utterance_id)
        partner = self._partners[score_node].get(utterance_id)
        if partner is None:
            return None
        catalogue = self.catalogues[self._ancestors[name].catalogue]
        return self._waveform(name, catalogue.shard(partner.shard), partner.utterance_id)

    def _waveform(self, name: str, shard: Shard, utterance_id: str) -> NDArray[np.float32] | None:
        y = self._folder(name).read_arrays(shard, [utterance_id]).get(utterance_id)
        return None if y is None else as_float(y)

    def _rate(self, name: str) -> int:
        product = self._ancestors[name].source.product
        if not isinstance(product, Waveform):
            raise ValueError(f"node {name!r} makes {product.kind}, so there is no audio to play")
        return product.sr
