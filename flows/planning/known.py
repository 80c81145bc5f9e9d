"""The files that a catalogue knows, in a few bytes each, to compare a corpus with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from melmill.stages.ingest.known import KeptFiles, Known, label_state
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.labels import LABELS
from melmill.storage.tables import to_numpy
from melmill.storage.utterance import Labels, SourceFile, Utterance

# Returns which rows of a piece of the catalogue are to be measured anew: of shards, ids and the
# lengths that the files claimed.
Unsure = Callable[[NDArray[np.int64], Callable[[], Sequence[str]], NDArray[np.int64]], NDArray[np.bool_]]


class KnownFiles(Known):
    """The utterances of a catalogue by the hashes of their paths, sizes and times.

    A row takes 25 bytes at most, and 13 more if labels are compared. Two different paths may have one
    hash. So a path is compared before anything follows from a hash alone. A file is kept by two hashes
    of 64 bits, of which the second covers path, size and time.

    Parameters
    ----------
    catalogue : Catalogue
    unsure : callable
        See `Unsure`. Rows that are measured anew are not in the mapping.
    """

    def __init__(self, catalogue: Catalogue, unsure: Unsure) -> None:
        self._catalogue = catalogue
        n_rows = catalogue.n_rows
        # Whether each row was found in the corpus. Retired rows are not missed.
        self._present = np.ones(n_rows, np.bool_)
        # Filled in place: of a hundred million rows, a copy more would matter.
        hashes, prints = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64)
        unsure_rows, n = [], 0
        for piece in catalogue.pieces(["path", "size_bytes", "mtime_ns", "shard", "utterance_id", "source_n_samples"]):
            table = piece.rows
            paths = table["path"].to_pylist()
            here = piece.first + np.flatnonzero(piece.current)
            self._present[here] = False
            hashes[n : n + len(here)] = _hashes(paths)
            prints[n : n + len(here)] = _prints(paths, table["size_bytes"].to_pylist(), table["mtime_ns"].to_pylist())
            n += len(here)
            is_unsure = unsure(
                to_numpy(table["shard"]), table["utterance_id"].to_pylist, to_numpy(table["source_n_samples"])
            )
            unsure_rows.append(here[is_unsure])
        self._unsure = np.concatenate(unsure_rows) if unsure_rows else np.empty(0, np.int64)
        in_order = np.flatnonzero(~self._present) if n < n_rows else None
        order = np.argsort(hashes[:n])
        # One after the other, for the same reason.
        hashes = hashes[order]
        prints = prints[order]
        self._hashes, self._prints = hashes, prints
        self._rows = (order if in_order is None else in_order[order]).astype(np.min_scalar_type(-max(1, n_rows)))
        del order
        self._shared = self._take_shared()

    def _take_shared(self) -> dict[str, int]:
        """Take the rows out whose hash another row has too; return them by path, the last if there are two."""
        same = self._hashes[1:] == self._hashes[:-1]
        if not same.any():
            return {}
        shared = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        made = self._catalogue.utterances_at(self._rows[shared].astype(np.int64))
        self._hashes, self._rows, self._prints = self._hashes[~shared], self._rows[~shared], self._prints[~shared]
        by_path = {made[row].path: row for row in sorted(made)}
        self._present[list(made.keys() - by_path.values())] = True
        return by_path

    def keep(self, paths: Sequence[str], sizes_bytes: Sequence[int], mtimes_ns: Sequence[int]) -> NDArray[np.bool_]:
        """Mark files as present that have the same size and time; return which."""
        rows, same = self._same(paths, sizes_bytes, mtimes_ns)
        self._present[rows[same]] = True
        return same

    def keep_labelled(self, files: Sequence[SourceFile], state_of: Callable[[int], int]) -> KeptFiles:
        """Mark files as present that have the same size, time and labels; see `Known.keep_labelled`."""
        columns = zip(*((file.path, file.size_bytes, file.mtime_ns) for file in files), strict=True)
        rows, kept = self._same(*columns) if files else (np.zeros(0, np.int64), np.zeros(0, np.bool_))
        if not kept.any():
            return KeptFiles(kept, np.zeros(len(files), np.bool_), np.zeros(len(files), np.int64))
        states, has_text, source_sr = self._said
        same = np.flatnonzero(kept)
        kept[same] = states[rows[same]] == np.fromiter(map(state_of, same.tolist()), np.int64, len(same))
        self._present[rows[kept]] = True
        return KeptFiles(kept, has_text[rows] & kept, np.where(kept, source_sr[rows], 0))

    def _same(
        self, paths: Sequence[str], sizes_bytes: Sequence[int], mtimes_ns: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return a row for each file, and whether it has the file's path, size and time and may be kept."""
        places, same = self._places(paths)
        if not len(self._rows):
            return places, same
        same &= self._prints[places] == _prints(paths, sizes_bytes, mtimes_ns)
        rows = self._rows[places]
        if len(self._unsure):
            same[same] &= ~np.isin(rows[same], self._unsure)
        return rows, same

    @cached_property
    def _said(self) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int32]]:
        """The `label_state` of every row, whether it has a text, and the rate that its file claims, Hz."""
        n_rows = self._catalogue.n_rows
        states, has_text, rates = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.bool_), np.zeros(n_rows, np.int32)
        for here, table, stamps in self._catalogue.labelled(["source_sr"]):
            ids, *labels = (table[name].to_pylist() for name in ("utterance_id", *LABELS))
            said = map(Labels, *labels, stamps)
            states[here] = np.fromiter(map(label_state, ids, said), np.int64, len(here))
            has_text[here] = np.fromiter(map(bool, labels[0]), np.bool_, len(here))
            rates[here] = to_numpy(table["source_sr"])
        return states, has_text, rates

    def _places(self, paths: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where the hashes of paths lie, and whether they are known."""
        if not len(self._hashes):
            return np.zeros(len(paths), np.int64), np.zeros(len(paths), np.bool_)
        wanted = _hashes(paths)
        places = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return places, self._hashes[places] == wanted

    def catalogued(self, paths: Sequence[str]) -> list[Utterance | None]:
        """Return what is catalogued of files, None for new ones, and mark the files as present.

        Those that are to be measured anew are among them, unlike in `utterances`.
        """
        rows, found = self._found(paths)
        self._present[[row for row, one in zip(rows, found, strict=True) if one is not None]] = True
        return found

    def utterances(self, paths: Sequence[str]) -> list[Utterance | None]:
        """Make the utterances of some files; see `Known.utterances`."""
        rows, found = self._found(paths)
        if not len(self._unsure):
            return found
        unsure = np.isin(rows, self._unsure).tolist()
        return [None if is_unsure else one for one, is_unsure in zip(found, unsure, strict=True)]

    def _found(self, paths: Sequence[str]) -> tuple[list[int], list[Utterance | None]]:
        """Return the row of each file and what is catalogued of it, None where it is new."""
        if not len(self._present):
            return [-1] * len(paths), [None] * len(paths)
        places, is_known = self._places(paths)
        rows: list[int] = np.where(is_known, self._rows[places] if len(self._rows) else -1, -1).tolist()
        if self._shared:
            rows = [self._shared.get(path, row) for path, row in zip(paths, rows, strict=True)]
        # A stage that has asked for all utterances has had them made.
        made = self.__dict__.get("_made", {})
        wanted = {row for path, row in zip(paths, rows, strict=True) if row >= 0 and path not in made}
        read = self._catalogue.utterances_at(np.array(sorted(wanted), np.int64))
        found = [made.get(path) or read.get(row) for path, row in zip(paths, rows, strict=True)]
        return rows, [
            one if one is not None and one.path == path else None for one, path in zip(found, paths, strict=True)
        ]

    def missing(self) -> Iterable[Utterance]:
        """Return the utterances whose files were neither kept nor asked for."""
        made = self._catalogue.utterances_at(np.flatnonzero(~self._present))
        return [made[row] for row in sorted(made)]

    @cached_property
    def _made(self) -> dict[str, Utterance]:
        unsure = set(self._unsure.tolist())
        rows = np.sort(np.concatenate([self._rows, np.array(list(self._shared.values()), np.int64)]))
        made = self._catalogue.utterances_at(rows.astype(np.int64))
        return {one.path: one for row, one in made.items() if row not in unsure}

    def __getitem__(self, path: str) -> Utterance:
        return self._made[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def _hashes(paths: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, paths), np.int64, len(paths))


def _prints(paths: Sequence[str], sizes_bytes: Sequence[int], mtimes_ns: Sequence[int]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, zip(paths, sizes_bytes, mtimes_ns, strict=True)), np.int64, len(paths))
