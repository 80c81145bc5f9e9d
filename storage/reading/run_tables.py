"""Tables of what a run holds: utterances, scores, what was left out, and what was measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.product import Part, ProductFolder
from melmill.storage.reading import views as reading
from melmill.storage.reading.recordings import Recordings
from melmill.storage.runs import NodeEntry

if TYPE_CHECKING:
    import pandas as pd

# Name of the record of what was learnt or summed up, and of the folder of its files.
TRAINED = "trained"
# Kinds of what is made of whole corpora.
_WHOLE = ("report", "vocoder", "prior", "statistics")


class RunTables(ABC):
    """Tables of the nodes of a run; `Store` has them."""

    @property
    @abstractmethod
    def nodes(self) -> Mapping[str, NodeEntry]:
        """Nodes of the run by name."""

    @abstractmethod
    def product(self, node: str, key: str, recordings: Recordings | None = None) -> ProductFolder:
        """Return the product of a node."""

    @abstractmethod
    def catalogue_of(self, entry: NodeEntry) -> Catalogue:
        """Return the catalogue of an entry's corpus."""

    def utterances(self) -> pd.DataFrame:
        """Return a row per utterance of the last run: the catalogue, and what ingest measured."""
        import pandas as pd

        frames = [
            reading.corpus(self.catalogue_of(entry), self._table(entry, "table"), node=name)
            for name, entry in self.nodes.items()
            if entry.is_ingest
        ]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["utterance_id", "node"])

    def scores(self) -> pd.DataFrame:
        """Return a row per utterance and scored node of the last run.

        Returns
        -------
        DataFrame
            Columns ``utterance_id, subset, speaker_id, node, duration_s``, one per metric, and one
            ``status_<metric>`` per metric. ``node`` is the node that was scored.
        """
        frames = []
        for name, entry in self.nodes.items():
            if entry.kind == "scores":
                table = self._table(entry, "table")
                frames.append(reading.with_utterances(table, self.catalogue_of(entry), node=entry.scored or name))
        return reading.scores(frames)

    def quarantine(self) -> pd.DataFrame:
        """Return a row per utterance that the last run quarantined, with reason and traceback."""
        return reading.by_node({name: self._table(entry, "quarantine") for name, entry in self.nodes.items()})

    def traces(self) -> pd.DataFrame:
        """Return a row per utterance and iteration of nodes that recorded their convergence."""
        traced = {
            name: entry for name, entry in self.nodes.items() if entry.kind not in ("trust", "embeddings", "features")
        }
        return reading.by_node({name: self._table(entry, "trace") for name, entry in traced.items()})

    def trust(self) -> pd.DataFrame:
        """Return a row per damaged version of a recording that the last run measured.

        Returns
        -------
        DataFrame
            Columns ``utterance_id, node, damage, step``, one per metric, and one ``status_<metric>``
            per metric. ``node`` is the node whose waveforms were damaged, or the node that damaged
            them if several did. No rows where there is no node of the stage `trust`.
        """
        entries = {name: entry for name, entry in self.nodes.items() if entry.kind == "trust"}
        return reading.trust(
            {name: self._table(entry, "trace") for name, entry in entries.items()},
            {name: entry.scored or name for name, entry in entries.items()},
        )

    def inspections(self) -> pd.DataFrame:
        """Return a row per recording that the last run inspected: the catalogue, and what was measured.

        ``node`` is the node of the stage `inspect`.
        """
        frames = {
            name: reading.corpus(self.catalogue_of(entry), self._table(entry, "table"), node=name)
            for name, entry in self.nodes.items()
            if entry.kind == "inspections"
        }
        return reading.by_node(frames)

    def durations(self, node: str) -> pd.DataFrame:
        """Return the labels that a node of the stage `durations` found: a row each, utterance by utterance.

        Returns
        -------
        DataFrame
            Columns ``utterance_id, segment, label, start_s, end_s, n_frames``.

        Raises
        ------
        StoreError
            There is no such node.
        """
        entry = self.nodes.get(node)
        if entry is None or entry.stage != "durations":
            known = ", ".join(name for name, one in self.nodes.items() if one.stage == "durations") or "none"
            raise StoreError(f"the last run has no node {node!r} of the stage durations (nodes of it: {known})")
        return self._table(entry, "trace")

    def statistics(self, node: str) -> pd.DataFrame:
        """Return what a node of the stage `stats` found: a row per speaker and band, or row of features.

        Returns
        -------
        DataFrame
            Columns ``speaker_id, row, count, mean, std, minimum, maximum``. Where `speaker_id` is
            missing, the row is about all speakers together.

        Raises
        ------
        StoreError
            There is no such node, or it is not done.
        """
        entry = self.nodes.get(node)
        if entry is None or entry.kind != "statistics":
            known = ", ".join(name for name, one in self.nodes.items() if one.kind == "statistics") or "none"
            raise StoreError(f"the last run has no node {node!r} that makes statistics (nodes that do: {known})")
        folder = self.product(entry.folder, entry.key)
        return reading.statistics(folder.read_whole(folder.done(TRAINED), f"{TRAINED}/statistics.npz"))

    def _table(self, entry: NodeEntry, part: Part) -> pd.DataFrame:
        # What is made of whole corpora has no rows.
        catalogue = None if entry.kind in _WHOLE else self.catalogue_of(entry)
        return self.product(entry.folder, entry.key).read_table(part, catalogue=catalogue)
