"""Compare a corpus with the catalogue that the store has of it, and let the catalogue follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, cast

from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.graph import Node
from melmill.stages.contract import IngestStage, Mel, Waveform
from melmill.stages.numeric.errors import StageError
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import ProductFolder
from melmill.storage.records import record_name
from melmill.storage.revisions import Reason
from melmill.storage.store import Store
from melmill.storage.utterance import Labels, Utterance

NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Say how a corpus differs from its catalogue.

    Parameters
    ----------
    added, changed, mended : list of Utterance
        As they are now. Those that changed have data in the store. Those that were mended have
        none, and have another length than the catalogue says. The file may be the same if the
        catalogue was made by an older version, which believed its header.
    removed : list of Utterance
        As they were catalogued.
    waiting : list of Utterance
        Files in quarantine that have changed but for their length: a retry takes them.
    seen : list of Utterance
        Files with another time that hold what they held.
    """

    added: list[Utterance] = field(default_factory=list)
    changed: list[Utterance] = field(default_factory=list)
    mended: list[Utterance] = field(default_factory=list)
    removed: list[Utterance] = field(default_factory=list)
    waiting: list[Utterance] = field(default_factory=list)
    seen: list[Utterance] = field(default_factory=list)

    @property
    def new(self) -> list[Utterance]:
        """Utterances that need a new row."""
        return [*self.added, *self.changed, *self.mended]

    def notes(self, store: str) -> Iterator[str]:
        """Yield a line on each kind of change that a person should know of."""
        for utterances, what in (
            (self.added, "new"),
            (self.changed, "changed, to be made anew"),
            (self.mended, "mended, to be made for the first time"),
            (self.removed, "removed, left out of all results"),
            (self.waiting, f"in quarantine changed, and `melmill quarantine {store} --retry` tries them again"),
        ):
            if utterances:
                yield f"{len(utterances):,} {what}: {_named(utterances)}"


class Surveyed(NamedTuple):
    """Hold the catalogue of an ingest node, and what a person should know of its corpus."""

    catalogue: Catalogue
    notes: tuple[str, ...]


def survey(node: Node, store: Store, shard_duration_s: float, *, follow: bool = False) -> Surveyed:
    """Return the catalogue of an ingest node as the corpus is now, with notes.

    New utterances, changed ones and mended ones get new shards. The old rows of changed and mended
    ones are retired, as are those of removed ones.

    Parameters
    ----------
    node : Node
        Its stage is an IngestStage.
    store : Store
        If a file has another time of change, its content is compared with the hash stored here.
    shard_duration_s : float
        Audio in a shard, s.
    follow : bool
        Whether files with data in the store may have changed, and catalogued ones may be gone.

    Raises
    ------
    PipelineError
        The corpus can't be read or is empty. Without `follow`, also if a catalogued file is gone or
        has changed.
    StoreError
        The catalogue can't be read.
    """
    folder = store.product(node.folder, node.key)
    # Records first: another run may be storing shards of the catalogue, and then their records.
    record_names = folder.record_names()
    stored = store.catalogue(node.folder, node.key)
    stage = cast("IngestStage", node.stage)
    product = cast("Waveform | Mel", node.product)
    catalogue = Catalogue.empty(sr=product.sr, shard_duration_s=shard_duration_s) if stored is None else stored
    try:
        catalogue.check_covers(record_names, f"{folder.location.url}/catalogue")
        tree = SourceTree(stage.root)
        known = {utterance.path: utterance for utterance in catalogue.utterances()}
        # A file that claimed no length may have been unreadable, and one in quarantine may have been
        # catalogued by an estimate. Neither its size nor its time tells.
        unsure = catalogue.without_length(record_names) | _in_quarantine(folder, catalogue, known)
        discovered = stage.discover(tree, {path: one for path, one in known.items() if path not in unsure})
        utterances = [_as_known(one, known.get(one.path)) for one in discovered.utterances]
        comparison = _Comparison(node, folder, catalogue, frozenset(record_names), tree, follow=follow)
        changes = comparison.changes(known, utterances)
        if not follow:
            _refuse(node, tree, changes)
        followed = _followed(catalogue, known, changes)
    except (StoreError, StageError) as error:
        raise PipelineError(f"node {node.name!r}: {error}", node.where) from error
    notes = () if stored is None else tuple(changes.notes(store.location.url))
    catalogue = followed.relabelled(discovered.labels)
    return Surveyed(catalogue, (*_label_notes(known, discovered.labels), *discovered.notes, *notes))


def _in_quarantine(folder: ProductFolder, catalogue: Catalogue, known: Mapping[str, Utterance]) -> set[str]:
    """Return the paths of the utterances of an ingest node that are in quarantine."""
    ids = {one for name, record in folder.records().items() for one in set(record.absent) - catalogue.retired_in(name)}
    return {path for path, one in known.items() if one.utterance_id in ids} if ids else set()


def _as_known(now: Utterance, then: Utterance | None) -> Utterance:
    """Return an utterance that was measured anew; the catalogued one if that told nothing new."""
    if then is None or (now.size_bytes, now.mtime_ns) != (then.size_bytes, then.mtime_ns):
        return now
    return then if _length(now) in (_length(then), (0, 0)) else now


def _label_notes(known: Mapping[str, Utterance], labels: Mapping[str, Labels]) -> Iterator[str]:
    """Yield how many texts and speakers of known utterances changed."""
    pairs = [(one.labels, labels[one.utterance_id]) for one in known.values() if one.utterance_id in labels]
    texts = [(before.text, now.text) for before, now in pairs if before.text != now.text]
    speakers = [now for before, now in pairs if before[1:4] != now[1:4]]
    if texts:
        added, gone = sum(not before for before, _ in texts), sum(not now for _, now in texts)
        parts = [f"{n:,} {what}" for n, what in ((added, "added"), (gone, "gone")) if n]
        of_these = f" ({', '.join(parts)})" if parts else ""
        yield f"{len(texts):,} text{'s' * (len(texts) > 1)} changed{of_these}; the catalogue follows"
    if speakers:
        yield f"{len(speakers):,} speaker{'s' * (len(speakers) > 1)} changed; the catalogue follows"


def _followed(catalogue: Catalogue, known: Mapping[str, Utterance], changes: Changes) -> Catalogue:
    """Return the catalogue of a corpus after changes."""
    retired = [
        *((known[utterance.path], Reason.CHANGED) for utterance in changes.changed),
        *((known[utterance.path], Reason.MENDED) for utterance in changes.mended),
        *((utterance, Reason.REMOVED) for utterance in changes.removed),
    ]
    if changes.seen:
        catalogue = catalogue.seeing(changes.seen)
    if retired:
        catalogue = catalogue.retiring(retired)
    return catalogue.extended(changes.new) if changes.new else catalogue


def _refuse(node: Node, tree: SourceTree, changes: Changes) -> None:
    """Raise PipelineError if a catalogued file is gone, or holds other bytes than were ingested."""
    wrong = [
        f"{what} since it was catalogued: {_named(utterances)}"
        for utterances, what in ((changes.removed, "gone"), (changes.changed, "changed"))
        if utterances
    ]
    if wrong:
        raise PipelineError(
            f"the corpus of node {node.name!r} at {tree.url!r} is not what the store holds: {'; '.join(wrong)}. "
            "Add --follow: what is gone leaves the results, what changed is made anew, and the rest stays. "
            "Or restore the files, or run with another store (--store) or under another node name.",
            node.where,
        )


def _named(utterances: Sequence[Utterance]) -> str:
    more = f" and {len(utterances) - NAMED:,} more" if len(utterances) > NAMED else ""
    return ", ".join(utterance.path for utterance in utterances[:NAMED]) + more


class _Comparison:
    """Compare the files of a corpus with a catalogue and with what was made of them.

    Parameters
    ----------
    node : Node
    folder : ProductFolder
        What the node has stored.
    catalogue : Catalogue
    record_names : set of str
        Records of the node.
    tree : SourceTree
        The corpus.
    follow : bool
        Whether the user says that files have changed.
    """

    def __init__(
        self,
        node: Node,
        folder: ProductFolder,
        catalogue: Catalogue,
        record_names: Set[str],
        tree: SourceTree,
        *,
        follow: bool,
    ) -> None:
        self._node = node
        self._folder = folder
        self._catalogue = catalogue
        self._record_names = record_names
        self._tree = tree
        self._follow = follow

    def changes(self, known: Mapping[str, Utterance], discovered: Sequence[Utterance]) -> Changes:
        """Return how the corpus differs.

        Parameters
        ----------
        known : mapping of str to Utterance
            Utterances of the catalogue, by path.
        discovered : sequence of Utterance
            Utterances of the corpus. One that did not change is the very object in `known`.
        """
        present = {utterance.path for utterance in discovered}
        changes = Changes(removed=[then for path, then in known.items() if path not in present])
        for now in discovered:
            then = known.get(now.path)
            if then is None:
                changes.added.append(now)
            elif now is not then:
                self._add(changes, now, then)
        return changes

    def _add(self, changes: Changes, now: Utterance, then: Utterance) -> None:
        """Add a file that was touched to the changes that it is one of."""
        ingested, refused = self._hashes
        sha256 = ingested.get(then.utterance_id)
        if sha256 is not None:
            # The size may differ from the row's: a retry takes a file that was mended in place.
            same = now.utterance_id == then.utterance_id and self._sha256(now.path) == sha256
            (changes.seen if same else changes.changed).append(now)
        elif _length(now) != _length(then):
            changes.mended.append(now)
        elif record_name(self._catalogue.shard_of(then.utterance_id)) not in self._record_names:
            # Nothing was made of it yet, and it fits its place.
            if (now.size_bytes, now.mtime_ns) != (then.size_bytes, then.mtime_ns):
                changes.seen.append(now)
        elif now.size_bytes == then.size_bytes and self._is_as(now.path, refused.get(then.utterance_id)):
            changes.seen.append(now)
        else:
            (changes.mended if self._follow else changes.waiting).append(now)

    def _is_as(self, path: str, sha256: str | None) -> bool:
        """Return whether a file in quarantine is the one that was refused, as far as is known."""
        return not sha256 or self._sha256(path) == sha256

    @cached_property
    def _hashes(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        return self._folder.hashes(self._catalogue)

    def _sha256(self, path: str) -> str:
        try:
            return hashlib.sha256(self._tree.read(path)).hexdigest()
        except OSError as error:
            raise PipelineError(
                f"node {self._node.name!r}: can't read {path!r} of {self._tree.url!r}, which has another time of "
                f"change than when it was catalogued: {error.strerror or error}",
                self._node.where,
            ) from error


def _length(utterance: Utterance) -> tuple[int, int]:
    return utterance.source_n_samples, utterance.source_sr
