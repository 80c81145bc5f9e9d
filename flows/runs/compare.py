"""Compare two runs of stores, and play what got worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from melmill.flows.runs.addresses import parse_address
from melmill.flows.runs.baseline import label, resolved
from melmill.flows.runs.evaluation import StoredEvaluation, check_same_project
from melmill.stages.contract import as_float
from melmill.stages.errors import NotComparable
from melmill.stages.report.contract import Example
from melmill.storage.corpus.partners import Partner
from melmill.storage.errors import SourceError, StoreError
from melmill.storage.proof.record import record_name
from melmill.storage.runs import NodeEntry

if TYPE_CHECKING:
    from melmill.stages.report.comparison.runs import Comparison, NodePair

SIDES = ("A", "B")


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """A comparison of two runs, as tables, text and pages.

    Parameters
    ----------
    comparison : Comparison
        Its tables: ``tests``, ``worse_slices``, ``worst``, and what is ``not_comparable``.
    a, b : StoredEvaluation
        What the stores hold of both runs.
    """

    comparison: Comparison
    a: StoredEvaluation
    b: StoredEvaluation

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: what `melmill compare --json` prints."""
        made = self.comparison.as_dict()
        for row in made["worst"]:
            row["recording"] = self.recording(row["node"], row["utterance_id"])
        return made

    def html(self) -> bytes:
        """Return a page that loads nothing, with players where the stores have waveforms."""
        from melmill.stages.report.comparison.page import comparison_page

        examples, problems = self.examples()
        return comparison_page(self.comparison, examples, problems)

    def markdown(self, page: str = "") -> str:
        """Return tables in Markdown, which link to utterances of the page at this address."""
        from melmill.stages.report.comparison.page import comparison_markdown

        return comparison_markdown(self.comparison, page)

    def junit(self) -> bytes:
        """Return JUnit's XML: a test case for each test, which fails where a metric got worse."""
        from melmill.stages.report.comparison.junit import of_comparison

        return of_comparison(self.comparison)

    def examples(self) -> tuple[list[tuple[str, Example]], list[str]]:
        """Return the audio of the worst utterances, each with the node as the comparison names it.

        And why some can't be played, a line each.
        """
        from melmill.stages.report.comparison.page import worst_first_heard

        pairs = {pair.name: pair for pair in self.comparison.pairs}
        found, problems = [], []
        for node, utterance_id, why in worst_first_heard(self.comparison):
            try:
                example = self._example(pairs[node], utterance_id, why)
            except (StoreError, SourceError, NotComparable) as error:
                problems.append(f"{utterance_id} of {node} can't be played: {error}")
                continue
            if example is not None:
                found.append((node, example))
        return found, problems

    def _example(self, pair: NodePair, utterance_id: str, why: str) -> Example | None:
        """Return what the stores have of an utterance; None where they have no waveforms."""
        sides = ((self.a, pair.a), (self.b, pair.b))
        takes = {
            f"{side}: {node}": found
            for side, (run, node) in zip(SIDES, sides, strict=True)
            if (found := _scored_waveform(run, node, utterance_id)) is not None
        }
        if not takes:
            return None
        recorded = self.b.recorded(pair.b)
        reference = None if recorded is None else _waveform(self.b, self.b.nodes[recorded], utterance_id)
        y, sr = reference or (np.zeros(0, np.float32), next(iter(takes.values()))[1])
        return Example(
            utterance_id=utterance_id,
            text=_text(self.b, pair.b, utterance_id),
            why=why,
            sr=sr,
            reference=y,
            reconstructions={name: wave for name, (wave, _) in takes.items()},
            rates={name: rate for name, (_, rate) in takes.items()},
        )

    def recording(self, node: str, utterance_id: str) -> str | None:
        """Return where the recording of an utterance lies in its corpus; None if nobody knows."""
        pair = next(pair for pair in self.comparison.pairs if pair.name == node)
        entry = self.b.nodes.get(self.b.recorded(pair.b) or "")
        if entry is None:
            return None
        folder = entry.catalogues[0][0]
        stages = self.b.document.get("stages", {})
        declared = stages.get(folder, {}) if isinstance(stages, dict) else {}
        root = declared.get("root") if isinstance(declared, dict) else None
        catalogue = self.b.catalogue(entry)
        if not isinstance(root, str) or utterance_id not in catalogue:
            return None
        shard = catalogue.shard(catalogue.shard_of(utterance_id))
        path = next(one.path for one in shard.utterances if one.utterance_id == utterance_id)
        return f"{root.rstrip('/')}/{path}"


def compare_addresses(
    a: str,
    b: str,
    *,
    nodes: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    by: Sequence[str] = (),
    seed: int = 0,
    other_project: bool = False,
) -> RunComparison:
    """Compare run B with run A, utterance by utterance.

    Parameters
    ----------
    a, b : str
        Addresses: ``STORE``, ``STORE@TAG`` or ``STORE@RUN``, each with ``:NODE``.
    nodes : sequence of str
        Scored nodes that both have. Without any: those of the addresses, or all.
    metrics : sequence of str or None
        Names of metrics. None: all that both have.
    by : sequence of str
        Groups of utterances: ``subset``, ``speaker``, ``sex``, ``chapter``.
    seed : int
        Of the bootstrap.
    other_project : bool
        Whether the runs may be of two projects.

    Raises
    ------
    StoreError
        There is no such store, run or tag. The message names the nearest.
    ParameterError
        The runs are of two projects, or utterances can't be grouped so.
    NotComparable
        A node or a metric was not scored, or there is no utterance in common.
    """
    from melmill.stages.report.comparison.runs import compare_runs, node_pairs

    first, a_node = resolved(a)
    second, b_node = resolved(b)
    if not other_project:
        check_same_project(first, second)
    left, right = (StoredEvaluation.of_run(run, label(parse_address(text))) for run, text in ((first, a), (second, b)))
    pairs = node_pairs(left, right, a_node, b_node, nodes)
    return RunComparison(
        comparison=compare_runs(left, right, pairs, metrics=metrics, by=by, seed=seed), a=left, b=right
    )


Wave = tuple[NDArray[np.float32], int]


def _scored_waveform(run: StoredEvaluation, node: str, utterance_id: str) -> Wave | None:
    """Return the waveform of a scored node that belongs to an utterance, and its rate in Hz."""
    entry = run.nodes.get(node)
    if entry is None:
        return None
    partner = _partner(run, node, utterance_id)
    return _waveform(run, entry, utterance_id if partner is None else partner.utterance_id)


def _partner(run: StoredEvaluation, node: str, utterance_id: str) -> Partner | None:
    """Return what an utterance was scored with, of another corpus; None if it is of its own."""
    for entry in run.nodes.values():
        if entry.kind == "scores" and entry.scored == node:
            folder, catalogue = run.folder(entry), run.catalogue(entry)
            if utterance_id in catalogue:
                record = folder.done(record_name(catalogue.shard_of(utterance_id)))
                return folder.read_partners(record).get(utterance_id)
    return None


def _waveform(run: StoredEvaluation, entry: NodeEntry, utterance_id: str) -> Wave | None:
    """Return a stored waveform and its rate; None where the store has none."""
    folder, catalogue = run.folder(entry), run.catalogue(entry)
    sr = folder.description.sr
    if entry.kind not in ("waveform", "utterances") or sr is None or utterance_id not in catalogue:
        return None
    index = catalogue.shard_of(utterance_id)
    if utterance_id in folder.absent(record_name(index)):
        return None
    return as_float(folder.read_array(catalogue.shard(index), utterance_id)), sr


def _text(run: StoredEvaluation, node: str, utterance_id: str) -> str:
    catalogue = run.catalogue(run.nodes[run.recorded(node) or node])
    if utterance_id not in catalogue:
        return ""
    shard = catalogue.shard(catalogue.shard_of(utterance_id))
    return next(one.text for one in shard.utterances if one.utterance_id == utterance_id)
