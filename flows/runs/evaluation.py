"""What a store holds of one run, as comparisons and gates read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from melmill.flows.runs.addresses import ResolvedRun, gone
from melmill.flows.tasks.throughput import throughput
from melmill.stages.contract import WHOLE_KINDS
from melmill.stages.errors import NotComparable
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.presets import preset
from melmill.stages.report.comparison.evaluation import SLICES
from melmill.stages.score.metric import Metric
from melmill.storage.description import ProductDescription
from melmill.storage.product import DESCRIPTION, Address, ProductFolder
from melmill.storage.runs import NodeEntry
from melmill.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from melmill.storage.catalogue import Catalogue

# What metrics compare that depends on the mel of the score node.
_OF_SPEC = ("waveforms", "spectra", "mels")
_UNFINISHED = {
    "running": "{label} is still running: scores that are not there yet are missing",
    "failed": "{label} failed: some scores may be missing",
    "interrupted": "{label} was interrupted: some scores may be missing",
    "lost": "{label} was killed: some scores may be missing",
}
# Fields of a reader that decide the samples, not which files it finds.
_OF_SAMPLES = ("channel", "spec")


class StoredEvaluation:
    """Read from a store what comparisons and gates need of a run.

    `melmill.stages.report.comparison.evaluation.Evaluation` says what each member is.

    Parameters
    ----------
    store : Store
    nodes : mapping of str to NodeEntry
        Nodes of the run, or those that are judged.
    label : str
        What messages call the run.
    document : mapping
        Its pipeline, as plain values.
    notes : sequence of str
        Why it may lack scores, a line each.
    """

    def __init__(
        self,
        store: Store,
        nodes: Mapping[str, NodeEntry],
        label: str,
        document: Mapping[str, object] = MappingProxyType({}),
        notes: Sequence[str] = (),
    ) -> None:
        self.store = store
        self.nodes = nodes
        self.label = label
        self.document = document
        self.notes = notes
        self._digests: dict[Address, Mapping[str, str]] = {}
        self._columns: dict[tuple[str, str, str], Mapping[str, str]] = {}

    @classmethod
    def of_run(cls, run: ResolvedRun, label: str) -> StoredEvaluation:
        """Return what a store holds of a run."""
        state = run.record.state
        notes = [] if state in ("done", "unknown") else [_UNFINISHED[state].format(label=label)]
        made = cls(run.store, run.manifest.nodes, label, run.manifest.pipeline)
        lost = [name for name, entry in made.nodes.items() if entry.kind == "scores" and not made._is_there(entry)]
        made.notes = (*notes, *(f"{label} {gone(name)}" for name in lost))
        return made

    @cached_property
    def _score_nodes(self) -> dict[str, list[str]]:
        """Score nodes whose products are there, by the node whose waveforms they score."""
        found: dict[str, list[str]] = {}
        named = {name: entry for name, entry in self.nodes.items() if entry.kind == "scores"}
        for name, entry in named.items():
            if self._is_there(entry):
                found.setdefault(entry.scored or name, []).append(name)
        if named and not found:
            raise NotComparable(f"{self.label} {gone(next(iter(named)))}")
        return found

    def _is_there(self, entry: NodeEntry) -> bool:
        return self.store.product(entry.folder, entry.key).location.exists(DESCRIPTION)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per utterance and scored node."""
        from melmill.storage.reading import views

        frames = []
        for scored, names in self._score_nodes.items():
            for name in names:
                entry = self.nodes[name]
                catalogue = self.catalogue(entry)
                table = self.folder(entry).read_table("table", catalogue=catalogue)
                frames.append(views.with_utterances(table, catalogue, node=scored))
        made = views.scores(frames)
        for column in dict.fromkeys(SLICES.values()):
            if column not in made.columns:
                made[column] = self._label(made, column)
        return made

    def _label(self, scores: pd.DataFrame, column: str) -> pd.Series[str]:
        import pandas as pd

        found = pd.Series("", index=scores.index, dtype=object)
        for scored, names in self._score_nodes.items():
            values = self._values_of(self.nodes[names[0]], column)
            here = scores["node"] == scored
            found[here] = scores.loc[here, "utterance_id"].map(values).fillna("")
        return found

    def _values_of(self, entry: NodeEntry, column: str) -> Mapping[str, str]:
        """Return a column of a node's catalogue, by utterance id."""
        place = (*entry.catalogues[0], column)
        if place not in self._columns:
            table = self.catalogue(entry).table
            ids, values = (table[name].to_pylist() for name in ("utterance_id", column))
            self._columns[place] = dict(zip(ids, values, strict=True))
        return self._columns[place]

    def judges(self, name: str) -> Sequence[str]:
        """Return the scored nodes that the score node of this name judges."""
        return [
            scored
            for scored, names in self._score_nodes.items()
            if any(name in (one, self.nodes[one].folder) for one in names)
        ]

    def measured_how(self, node: str, metric: Metric) -> Mapping[str, Any]:
        """Return what decides the values of a metric besides the signals."""
        description = self._description(self._score_node(node, metric))
        parameters = description.parameters
        how: dict[str, Any] = {
            "version of the stage": description.version,
            "version": _of(parameters, "versions", metric.name) or 1,
            "lengths": parameters.get("lengths", "same"),
        }
        if metric.package:
            how[f"{metric.package}_installed"] = parameters.get(f"{metric.package}_installed")
        if weights := _of(parameters, "weights", metric.name):
            how["weights"] = weights
        if program := _of(parameters, "predictors", metric.name):
            how["program"] = [program, parameters.get("programs")]
        if metric.needs in _OF_SPEC:
            how["mel"] = self._spec(description)
        return how

    def _score_node(self, node: str, metric: Metric) -> NodeEntry:
        """Return the score node whose values of a metric count: the first that has it."""
        entries = [self.nodes[name] for name in self._score_nodes[node]]
        for entry in entries:
            names = self._description(entry).parameters.get("metrics")
            if isinstance(names, list) and metric.name in names:
                return entry
        return entries[0]

    def _spec(self, description: ProductDescription) -> Mapping[str, Any] | None:
        named = description.parameters.get("spec")
        if isinstance(named, Mapping):
            return named
        (scored,) = description.inputs["from"]
        other = self.store.product(*scored).description
        return other.mel or {**preset("paper").as_dict(), "sr": other.sr}

    def references(self, node: str) -> Mapping[str, str]:
        """Return a digest of each recording that a node was scored against."""
        against = self._against(node)
        if against is None:
            return {}
        if against not in self._digests:
            self._digests[against] = self._contents(against)
        return self._digests[against]

    def _against(self, node: str) -> Address | None:
        for name in self._score_nodes[node]:
            inputs = self._description(self.nodes[name]).inputs.get("against", ())
            if inputs:
                return inputs[0]
        return None

    def _contents(self, address: Address) -> Mapping[str, str]:
        """Return a digest of what decides each waveform of a product: the file, and what was done to it."""
        steps: list[object] = []
        folder = self.store.product(*address)
        description = folder.description
        while description.inputs:
            steps.append([description.stage, description.version, description.parameters])
            sources = sorted({source for port in description.inputs.values() for source in port})
            folder = self.store.product(*sources[0])
            if len(sources) > 1:
                steps.append([self.store.product(*source).description.parameters for source in sources])
            description = folder.description
        steps.append([description.sr, {name: description.parameters.get(name) for name in _OF_SAMPLES}])
        done = hashlib.sha256(json.dumps(steps, sort_keys=True, default=str).encode()).hexdigest()[:16]
        catalogue = folder.read_catalogue()
        hashes, _ = folder.hashes(catalogue)
        lengths = catalogue.table.select(["utterance_id", "n_samples"])
        return {
            name: f"{done}:{hashes.get(name, '')}:{n_samples}"
            for name, n_samples in zip(
                lengths["utterance_id"].to_pylist(), lengths["n_samples"].to_pylist(), strict=True
            )
        }

    @cached_property
    def quarantined(self) -> Mapping[str, frozenset[str]]:
        """Utterances that each node could not process, with their corpora."""
        found = {}
        for name, entry in self._by_shards.items():
            table = self.folder(entry).read_table("quarantine", catalogue=self.catalogue(entry))
            corpus = "/".join(entry.catalogues[0])
            found[name] = frozenset(f"{corpus}/{one}" for one in table["utterance_id"])
        return found

    @property
    def _by_shards(self) -> dict[str, NodeEntry]:
        return {name: entry for name, entry in self.nodes.items() if entry.kind not in WHOLE_KINDS}

    @property
    def n_utterances(self) -> int:
        """Utterances of all corpora."""
        cut = {entry.catalogues[0] for entry in self._by_shards.values() if entry.reshapes}
        catalogues = {
            entry.catalogues[0]: entry for entry in self._by_shards.values() if entry.catalogues[0] not in cut
        }
        return sum(self.catalogue(entry).n_utterances for entry in catalogues.values())

    @cached_property
    def throughput(self) -> pd.DataFrame:
        """One row per node."""
        return throughput(
            {
                name: list(folder.current(self.catalogue(entry), folder.records()).values())
                for name, entry in self._by_shards.items()
                for folder in [self.folder(entry)]
            }
        )

    @cached_property
    def disk_bytes(self) -> Mapping[str, int]:
        """Bytes that each node's product takes in the store, by its records."""
        return {
            name: sum(
                file.n_bytes
                for record in self.folder(entry).records().values()
                # Files that another store has take nothing here.
                if not record.at
                for file in record.files.values()
            )
            for name, entry in self.nodes.items()
        }

    def folder(self, entry: NodeEntry) -> ProductFolder:
        """Return the folder of a node's product.

        Raises
        ------
        NotComparable
            It was pruned. What it lacks is not to be taken for a good result.
        """
        if not self._is_there(entry):
            raise NotComparable(f"{self.label} {gone(next(name for name, one in self.nodes.items() if one == entry))}")
        return self.store.product(entry.folder, entry.key, entry.recordings)

    def catalogue(self, entry: NodeEntry) -> Catalogue:
        """Return the catalogue of a node's corpus."""
        return self.store.catalogue_of(entry)

    def _description(self, entry: NodeEntry) -> ProductDescription:
        return self.folder(entry).description

    def recorded(self, node: str) -> str | None:
        """Return the node of the recordings that a node was scored against; None if there is none."""
        against = self._against(node)
        return next((name for name, entry in self.nodes.items() if (entry.folder, entry.key) == against), None)


def _of(parameters: Mapping[str, Any], field: str, name: str) -> Any:  # noqa: ANN401 - plain values of JSON
    found = parameters.get(field)
    return found.get(name) if isinstance(found, Mapping) else None


def check_same_project(a: ResolvedRun, b: ResolvedRun, *, names: tuple[str, str] = ("A", "b")) -> None:
    """Raise ParameterError, which calls the runs by `names`, unless two runs are of one project."""
    if a.manifest.project != b.manifest.project:
        raise ParameterError(
            names[1],
            f"is a run of project {b.manifest.project!r} in {b.location.url}, and {names[0]} of "
            f"{a.manifest.project!r} in {a.location.url}: compare runs of one project, or give --other-project if "
            "their scores mean the same",
        )
