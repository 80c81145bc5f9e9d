"""The waveforms that a test can play: what the nodes of a run made of the same recordings."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.addresses import gone
from melmill.pcm import as_float
from melmill.stages.contract import Kind
from melmill.stages.score.listeners.design import Candidate
from melmill.storage.product import DESCRIPTION, ProductFolder
from melmill.storage.reading.views import ProductView
from melmill.storage.runs import Manifest, NodeEntry
from melmill.storage.store import Store


class Sounds:
    """The recordings of a run, and what its nodes made of them.

    Parameters
    ----------
    store : Store
    manifest : Manifest
        Of the run.
    nodes : sequence of str
        Nodes to hear. None: all that are scored.
    reference : str or None
        Node of the recordings. None: the one that the nodes are scored against, or else that of
        their corpus.

    Raises
    ------
    PipelineError
        A node is unknown or makes no waveforms, or the recordings can't be told.
    """

    def __init__(self, store: Store, manifest: Manifest, nodes: Sequence[str], reference: str | None) -> None:
        self._store = store
        self._manifest = manifest
        self.nodes = list(dict.fromkeys(nodes)) or self._scored()
        for name in self.nodes:
            self._entry(name)
        self.reference = reference or self._recordings()
        self._entry(self.reference)

    def _scored(self) -> list[str]:
        names = [entry.scored for entry in self._manifest.nodes.values() if entry.kind == Kind.SCORES and entry.scored]
        if not names:
            raise PipelineError("the run scores no node: name the nodes to hear with --nodes a,b,c")
        return list(dict.fromkeys(names))

    def _entry(self, name: str) -> NodeEntry:
        entry = self._manifest.nodes.get(name)
        audible = [other for other, one in self._manifest.nodes.items() if self._is_audible(one)]
        if entry is None:
            near = difflib.get_close_matches(name, audible, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise PipelineError(
                f"run {self._manifest.run_id} has no node {name!r}{hint} (nodes with audio: {', '.join(audible)})"
            )
        if name not in audible:
            raise PipelineError(
                f"node {name!r} makes {entry.kind}, which nobody can hear (nodes with audio: {', '.join(audible)})"
            )
        if not self._folder(entry).location.exists(DESCRIPTION):
            raise PipelineError(f"run {self._manifest.run_id} {gone(name)}")
        return entry

    def _is_audible(self, entry: NodeEntry) -> bool:
        if entry.kind == Kind.WAVEFORM:
            return True
        return entry.is_ingest and self._folder(entry).description.array is not None and self._n_mels(entry) is None

    def _n_mels(self, entry: NodeEntry) -> int | None:
        return self._folder(entry).array_spec.n_mels

    def _folder(self, entry: NodeEntry) -> ProductFolder:
        return self._store.product(entry.folder, entry.key, entry.recordings)

    def _score_entries(self, name: str) -> list[NodeEntry]:
        return [one for one in self._manifest.nodes.values() if one.kind == Kind.SCORES and one.scored == name]

    def _recordings(self) -> str:
        """Return the node of the recordings that all nodes belong to."""
        entries = self._manifest.nodes
        names = {(entry.folder, entry.key): name for name, entry in entries.items()}
        found: dict[str, None] = {}
        for node in self.nodes:
            against = [
                names[address]
                for scored in self._score_entries(node)
                for address in self._folder(scored).description.inputs.get("against", ())
                if address in names
            ]
            corpora = [names[address] for address in entries[node].catalogues if address in names]
            found.update(dict.fromkeys(against[:1] or corpora[:1]))
        if len(found) != 1:
            said = f"{', '.join(found)} are" if found else "none is known to be"
            raise PipelineError(f"{said} the recordings of {', '.join(self.nodes)}: name one with --reference NODE")
        return next(iter(found))

    @cached_property
    def _views(self) -> Mapping[str, ProductView]:
        names = dict.fromkeys([self.reference, *self.nodes])
        return {
            name: ProductView(
                self._store.location, name, self._folder(self._entry(name)), self._store.catalogue_of(self._entry(name))
            )
            for name in names
        }

    @cached_property
    def _partners(self) -> Mapping[str, Mapping[str, str]]:
        """By node of another corpus, its utterance for each recording."""
        home = self._entry(self.reference).catalogues[0]
        found: dict[str, Mapping[str, str]] = {}
        for node in self.nodes:
            if self._entry(node).catalogues[0] == home:
                continue
            scored = self._score_entries(node)
            if not scored:
                raise PipelineError(
                    f"node {node!r} has another corpus than {self.reference!r}, and no score node pairs them: "
                    f"add one, with from: {node} and against: {self.reference}"
                )
            folder = self._folder(scored[0])
            found[node] = {
                name: partner.utterance_id
                for record in folder.records().values()
                for name, partner in folder.read_partners(record).items()
            }
        return found

    def _id_in(self, node: str, utterance_id: str) -> str | None:
        partners = self._partners.get(node)
        return utterance_id if partners is None else partners.get(utterance_id)

    def candidates(self) -> list[Candidate]:
        """Return the recordings that all nodes have."""
        table = self._views[self.reference].catalogue.table
        columns = (table[name].to_pylist() for name in ("utterance_id", "speaker_id", "subset"))
        made = []
        for name, speaker, subset in zip(*columns, strict=True):
            ids = {node: self._id_in(node, name) for node in self.nodes}
            if name in self._views[self.reference] and all(one in self._views[node] for node, one in ids.items()):
                made.append(Candidate(utterance_id=name, speaker_id=speaker or "", subset=subset or ""))
        return made

    def waveform(self, node: str, utterance_id: str) -> tuple[NDArray[np.float32], int]:
        """Return the samples ``(n_samples,)`` of a node for a recording, full scale 1, and their rate in Hz."""
        view = self._views[node]
        name = utterance_id if node == self.reference else self._id_in(node, utterance_id)
        if name is None:
            raise KeyError(f"node {node!r} has nothing of {utterance_id!r}")
        return as_float(view[name]), view.folder.array_spec.sr

    def product(self, node: str) -> tuple[str, str]:
        """Return folder and key of a node's product."""
        entry = self._entry(node)
        return entry.folder, entry.key
