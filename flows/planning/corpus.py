"""Compare a corpus with the catalogue that the store has of it, and let the catalogue follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import Node
from melmill.flows.planning.known import KnownFiles, Unsure
from melmill.stages.contract import IngestStage, Mel, Waveform
from melmill.stages.numeric.errors import StageError
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.new_rows import NewRows
from melmill.storage.corpus.revisions import Reason
from melmill.storage.errors import StoreError
from melmill.storage.files.sources import SourceTree
from melmill.storage.product import ProductFolder
from melmill.storage.proof.inventory import Inventory
from melmill.storage.store import Store
from melmill.storage.utterance import Labels, Utterance

NAMED = 3
# Utterances that are compared at a time.
_COMPARED = 16_384


@dataclass(kw_only=True)
class Changes:
    """Say how a corpus differs from its catalogue.

    Parameters
    ----------
    new : NewRows
        Utterances that need a new row, as they are now: those that were added, changed or mended.
    n_added : int
        Utterances of files that the catalogue did not know.
    added : list of str
        Paths of the first of them.
    changed, mended : list of (Utterance, Utterance)
        As they were catalogued, and as they are now. Those that changed have data in the store.
        Those that were mended have none, and have another length than the catalogue says. The file
        may be the same if the catalogue was made by an older version, which believed its header.
    removed : list of Utterance
        As they were catalogued.
    waiting : list of Utterance
        Files in quarantine that have changed but for their length: a retry takes them.
    seen : list of Utterance
        Files with another time that hold what they held.
    """

    new: NewRows = field(default_factory=NewRows)
    n_added: int = 0
    added: list[str] = field(default_factory=list)
    changed: list[tuple[Utterance, Utterance]] = field(default_factory=list)
    mended: list[tuple[Utterance, Utterance]] = field(default_factory=list)
    removed: list[Utterance] = field(default_factory=list)
    waiting: list[Utterance] = field(default_factory=list)
    seen: list[Utterance] = field(default_factory=list)

    def add(self, utterances: Sequence[Utterance]) -> None:
        """Add utterances that the catalogue does not know."""
        self.new.extend(utterances)
        self.n_added += len(utterances)
        self.added += [utterance.path for utterance in utterances[: NAMED - len(self.added)]]

    def close(self) -> None:
        """Give those that changed or were mended new rows, after those that were added."""
        self.new.extend(now for _, now in (*self.changed, *self.mended))

    def notes(self, store: str) -> Iterator[str]:
        """Yield a line on each kind of change that a person should know of."""
        if self.n_added:
            yield f"{self.n_added:,} new: {_named(self.added, self.n_added)}"
        for utterances, what in (
            ([now for _, now in self.changed], "changed, to be made anew"),
            ([now for _, now in self.mended], "mended, to be made for the first time"),
            (self.removed, "removed, left out of all results"),
            (self.waiting, f"in quarantine changed, and `melmill quarantine {store} --retry` tries them again"),
        ):
            if utterances:
                yield f"{len(utterances):,} {what}: {_names(utterances)}"


class Surveyed(NamedTuple):
    """Hold the catalogue of an ingest node, and what a person should know of its corpus."""

    catalogue: Catalogue
    notes: tuple[str, ...]


def survey(node: Node, store: Store, records: Inventory, shard_duration_s: float, *, follow: bool = False) -> Surveyed:
    """Return the catalogue of an ingest node as the corpus is now, with notes.

    New utterances, changed ones and mended ones get new shards. The old rows of changed and mended
    ones are retired, as are those of removed ones.

    Parameters
    ----------
    node : Node
        Its stage is an IngestStage.
    store : Store
        If a file has another time of change, its content is compared with the hash stored here.
    records : Inventory
        What the node has stored. It was looked at before the catalogue is read: another run may be
        storing shards of the catalogue, and then their records.
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
    stored = store.catalogue(node.folder, node.key)
    stage = cast("IngestStage", node.stage)
    product = cast("Waveform | Mel", node.product)
    catalogue = Catalogue.empty(sr=product.sr, shard_duration_s=shard_duration_s) if stored is None else stored
    try:
        catalogue.check_covers(records.last_names, f"{folder.location.url}/catalogue")
        tree = SourceTree(stage.root)
        known = KnownFiles(catalogue, _unsure(catalogue, records))
        discovered = stage.discover(tree, known)
        comparison = _Comparison(node, folder, catalogue, records, tree, follow=follow)
        changes = comparison.changes(known, discovered.every())
        if not follow:
            _refuse(node, tree, changes)
        followed = _followed(catalogue, changes)
    except (StoreError, StageError) as error:
        raise PipelineError(f"node {node.name!r}: {error}", node.where) from error
    notes = () if stored is None else tuple(changes.notes(store.location.url))
    label_notes = tuple(_label_notes(catalogue, discovered.labels))
    return Surveyed(followed.relabelled(discovered.labels), (*label_notes, *discovered.notes, *notes))


def as_catalogued(node: Node, store: Store, records: Inventory) -> Surveyed:
    """Return the stored catalogue of an ingest node, without a look at its corpus.

    Raises
    ------
    PipelineError
        No catalogue is stored.
    StoreError
        The catalogue can't be read.
    """
    place = store.product(node.folder, node.key).location.url
    catalogue = store.catalogue(node.folder, node.key, checked=False)
    if catalogue is None:
        raise PipelineError(
            f"node {node.name!r}: no catalogue of its corpus is stored in {place}, so it can't be run as catalogued. "
            "Leave out --as-catalogued once, so that the corpus is catalogued",
            node.where,
        )
    catalogue.check_has_shards(records.last_names, f"{place}/catalogue")
    return Surveyed(catalogue, ("taken as catalogued; its corpus was not looked at",))


def _unsure(catalogue: Catalogue, records: Inventory) -> Unsure:
    """Return what tells the files whose size and time say nothing.

    One that claimed no length may have been unreadable, and one in quarantine may have been
    catalogued by an estimate.
    """
    in_quarantine = {
        one for name, absent in records.absent.items() for one in absent if one not in catalogue.retired_in(name)
    }

    def unsure(
        shards: NDArray[np.int64], ids: Callable[[], Sequence[str]], source_n_samples: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (source_n_samples == 0) & ~records.recorded.has(shards)
        if in_quarantine:
            found |= np.fromiter((one in in_quarantine for one in ids()), np.bool_, len(shards))
        return found

    return unsure


def _is_as_known(now: Utterance, then: Utterance) -> bool:
    """Tell whether a file has its size and time, and measuring it anew told nothing new."""
    if (now.size_bytes, now.mtime_ns) != (then.size_bytes, then.mtime_ns):
        return False
    return _length(now) in (_length(then), (0, 0))


def _label_notes(catalogue: Catalogue, labels: Mapping[str, Labels]) -> Iterator[str]:
    """Yield how many texts and speakers of catalogued utterances changed."""
    if not labels:
        return
    pairs = [(one.labels, labels[one.utterance_id]) for one in catalogue.utterances() if one.utterance_id in labels]
    texts = [(before.text, now.text) for before, now in pairs if before.text != now.text]
    speakers = [now for before, now in pairs if before[1:4] != now[1:4]]
    if texts:
        added, gone = sum(not before for before, _ in texts), sum(not now for _, now in texts)
        parts = [f"{n:,} {what}" for n, what in ((added, "added"), (gone, "gone")) if n]
        of_these = f" ({', '.join(parts)})" if parts else ""
        yield f"{len(texts):,} text{'s' * (len(texts) > 1)} changed{of_these}; the catalogue follows"
    if speakers:
        yield f"{len(speakers):,} speaker{'s' * (len(speakers) > 1)} changed; the catalogue follows"


def _followed(catalogue: Catalogue, changes: Changes) -> Catalogue:
    """Return the catalogue of a corpus after changes."""
    retired = [
        *((then, Reason.CHANGED) for then, _ in changes.changed),
        *((then, Reason.MENDED) for then, _ in changes.mended),
        *((utterance, Reason.REMOVED) for utterance in changes.removed),
    ]
    if changes.seen:
        catalogue = catalogue.seeing(changes.seen)
    if retired:
        catalogue = catalogue.retiring(retired)
    return catalogue.extended(changes.new)


def _refuse(node: Node, tree: SourceTree, changes: Changes) -> None:
    """Raise PipelineError if a catalogued file is gone, or holds other bytes than were ingested."""
    wrong = [
        f"{what} since it was catalogued: {_names(utterances)}"
        for utterances, what in ((changes.removed, "gone"), ([now for _, now in changes.changed], "changed"))
        if utterances
    ]
    if wrong:
        raise PipelineError(
            f"the corpus of node {node.name!r} at {tree.url!r} is not what the store holds: {'; '.join(wrong)}. "
            "Add --follow: what is gone leaves the results, what changed is made anew, and the rest stays. "
            "Or restore the files, or run with another store (--store) or under another node name.",
            node.where,
        )


def _names(utterances: Sequence[Utterance]) -> str:
    return _named([utterance.path for utterance in utterances[:NAMED]], len(utterances))


def _named(first: Sequence[str], n: int) -> str:
    more = f" and {n - NAMED:,} more" if n > NAMED else ""
    return ", ".join(first) + more


class _Comparison:
    """Compare the files of a corpus with a catalogue and with what was made of them.

    Parameters
    ----------
    node : Node
    folder : ProductFolder
        What the node has stored.
    catalogue : Catalogue
    records : Inventory
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
        records: Inventory,
        tree: SourceTree,
        *,
        follow: bool,
    ) -> None:
        self._node = node
        self._folder = folder
        self._catalogue = catalogue
        self._records = records
        self._tree = tree
        self._follow = follow

    def changes(self, known: KnownFiles, discovered: Iterable[Utterance]) -> Changes:
        """Return how the corpus differs.

        Parameters
        ----------
        known : KnownFiles
            The catalogue's, of which the unchanged ones may be kept already.
        discovered : iterable of Utterance
            The other utterances of the corpus.
        """
        changes, utterances = Changes(), iter(discovered)
        while some := list(islice(utterances, _COMPARED)):
            catalogued = known.catalogued([utterance.path for utterance in some])
            new = [now for now, then in zip(some, catalogued, strict=True) if then is None]
            changes.add(new)
            for now, then in zip(some, catalogued, strict=True) if len(new) < len(some) else ():
                if then is not None and not _is_as_known(now, then):
                    self._add(changes, now, then)
        changes.removed.extend(known.missing())
        changes.close()
        return changes

    def _add(self, changes: Changes, now: Utterance, then: Utterance) -> None:
        """Add a file that was touched to the changes that it is one of."""
        ingested, refused = self._hashes
        sha256 = ingested.get(then.utterance_id)
        if sha256 is not None:
            # The size may differ from the row's: a retry takes a file that was mended in place.
            if now.utterance_id == then.utterance_id and self._sha256(now.path) == sha256:
                changes.seen.append(now)
            else:
                changes.changed.append((then, now))
        elif _length(now) != _length(then):
            changes.mended.append((then, now))
        elif self._catalogue.shard_of(then.utterance_id) not in self._records.recorded:
            # Nothing was made of it yet, and it fits its place.
            if (now.size_bytes, now.mtime_ns) != (then.size_bytes, then.mtime_ns):
                changes.seen.append(now)
        elif now.size_bytes == then.size_bytes and self._is_as(now.path, refused.get(then.utterance_id)):
            changes.seen.append(now)
        elif self._follow:
            changes.mended.append((then, now))
        else:
            changes.waiting.append(now)

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
