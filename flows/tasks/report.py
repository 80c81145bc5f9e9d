"""The task that ends a run: all scores in, the report's tables and page out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from melmill.cluster.process import reset_peak
from melmill.flows.tasks.receipt import Receipt
from melmill.flows.tasks.shard import Source, facts_of, versions
from melmill.flows.tasks.throughput import throughput
from melmill.stages.contract import Scores, Waveform, as_float
from melmill.stages.report.stage import Aggregate
from melmill.stages.task_context import enter
from melmill.storage.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from melmill.stages.report.inputs import Example, Pick
    from melmill.storage.catalogue import Catalogue
    from melmill.storage.utterance import Shard

HEADLINE = "headline.csv"


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One node that led to a report, and how it was made."""

    source: Source
    uses: str
    version: int
    parameters: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, ...]]
    catalogue: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class ReportJob:
    """Everything that a report needs: names and parameters, no data.

    Parameters
    ----------
    store : str
    node : Source
    stage : Aggregate
    ancestors : mapping of str to Ancestor
        All nodes before it, by name, each after those that it reads.
    record_name : str
    pipeline : str
        The pipeline's name, the page's default title.
    pool : str
        Workers that it is for, in words.
    attempt : int
    """

    store: str
    node: Source
    stage: Aggregate
    ancestors: Mapping[str, Ancestor]
    record_name: str
    pipeline: str
    pool: str = ""
    attempt: int = 1

    def run(self) -> Receipt:
        """Read all scores, make the report and commit its files."""
        reset_peak()
        started, clock = datetime.now(UTC), time.perf_counter()
        store = Store.open(self.store)
        places = {ancestor.catalogue for ancestor in self.ancestors.values()}
        catalogues = {place: store.product(*place).read_catalogue() for place in places}
        scores = self._scores(store, catalogues)
        tables = self._tables(store, scores)
        examples = [self._example(store, catalogues, pick) for pick in self.stage.pick(scores)]
        enter("computing")
        clock_compute = time.perf_counter()
        files = self.stage.render(tables, examples)
        files[HEADLINE] = self.stage.headline(scores).to_csv().encode()
        compute_s = time.perf_counter() - clock_compute
        n_utterances = sum(catalogue.n_utterances for catalogue in catalogues.values())
        audio_s = sum(catalogue.duration_s for catalogue in catalogues.values())
        enter("writing")
        facts = facts_of(started, compute_s, self.attempt, pool=self.pool)
        store.product(self.node.folder, self.node.key).commit_files(
            self.record_name, files, facts, clock, folder=f"report/{self.record_name}"
        )
        return Receipt(
            n_utterances=n_utterances,
            n_quarantined=0,
            audio_s=audio_s,
            compute_s=compute_s,
            wall_s=time.perf_counter() - clock,
            peak_mem_bytes=facts.peak_mem_bytes,
            host=facts.host,
        )

    def _table(self, store: Store, name: str, part: Any) -> pd.DataFrame:  # noqa: ANN401 - a literal of read_table
        source = self.ancestors[name].source
        return store.product(source.folder, source.key).read_table(part)

    def _scored(self) -> dict[str, list[str]]:
        """Return the score nodes of every scored node."""
        found: dict[str, list[str]] = {}
        for name, ancestor in self.ancestors.items():
            if isinstance(ancestor.source.product, Scores):
                found.setdefault(ancestor.source.product.scored, []).append(name)
        return found

    def _scores(self, store: Store, catalogues: Mapping[tuple[str, str], Catalogue]) -> pd.DataFrame:
        from melmill.storage.reading.views import scores, with_utterances

        return scores(
            with_utterances(self._table(store, name, "table"), catalogues[self.ancestors[name].catalogue], node=scored)
            for scored, names in self._scored().items()
            for name in names
        )

    def _tables(self, store: Store, scores: pd.DataFrame) -> Any:  # noqa: ANN401 - Tables is imported where it is made
        import pandas as pd

        from melmill.stages.report.inputs import Made, Tables

        traces = [self._table(store, name, "trace").assign(node=name) for name in self._scored()]
        quarantine = [self._table(store, name, "quarantine").assign(node=name) for name in self.ancestors]
        found = {
            "traces": pd.concat(traces, ignore_index=True) if any(map(len, traces)) else None,
            "quarantine": pd.concat(quarantine, ignore_index=True) if any(map(len, quarantine)) else None,
        }
        return Tables(
            scores=scores,
            throughput=throughput(
                {
                    name: list(store.product(one.source.folder, one.source.key).records().values())
                    for name, one in self.ancestors.items()
                }
            ),
            made=[
                Made(
                    name=name,
                    uses=ancestor.uses,
                    version=ancestor.version,
                    key=ancestor.source.key,
                    inputs=[source for sources in ancestor.inputs.values() for source in sources],
                    parameters=ancestor.parameters,
                )
                for name, ancestor in self.ancestors.items()
            ],
            versions=versions(),
            pipeline=self.pipeline,
            **{name: frame for name, frame in found.items() if frame is not None},
        )

    def _example(self, store: Store, catalogues: Mapping[tuple[str, str], Catalogue], pick: Pick) -> Example:
        from melmill.stages.report.inputs import Example

        sources = {
            scored: self.ancestors[names[0]]
            for scored, names in self._scored().items()
            if pick.utterance_id in catalogues[self.ancestors[names[0]].catalogue]
        }
        first = next(iter(sources.values()))
        reference = self.ancestors[first.inputs["against"][0]].source
        catalogue = catalogues[first.catalogue]
        shard = catalogue.shard(catalogue.shard_of(pick.utterance_id))
        text = next(u.text for u in shard.utterances if u.utterance_id == pick.utterance_id)
        made = {scored: _waveform(store, self.ancestors[scored].source, shard, pick.utterance_id) for scored in sources}
        reconstructions = {scored: y for scored, y in made.items() if y is not None}
        y = _waveform(store, reference, shard, pick.utterance_id)
        if y is None:
            raise ValueError(f"{pick.utterance_id!r} was picked, but {reference.name!r} does not hold it")
        return Example(
            utterance_id=pick.utterance_id,
            text=text,
            why=pick.why,
            sr=_rate(reference),
            reference=y,
            reconstructions=reconstructions,
            rates={scored: _rate(self.ancestors[scored].source) for scored in reconstructions},
        )


def _waveform(store: Store, source: Source, shard: Shard, utterance_id: str) -> NDArray[np.float32] | None:
    y = store.product(source.folder, source.key).read_arrays(shard, [utterance_id]).get(utterance_id)
    return None if y is None else as_float(y)


def _rate(source: Source) -> int:
    if not isinstance(source.product, Waveform):
        raise ValueError(f"{source.name!r} holds no waveforms")
    return source.product.sr
