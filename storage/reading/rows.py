"""What a stream knows of the utterances that it reads: little, as each worker of a training has it."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.labels import LABELS as CHANGING
from melmill.storage.errors import StoreError
from melmill.storage.files.location import Location
from melmill.storage.product import Address
from melmill.storage.reading.views import ProductView
from melmill.storage.store import Store
from melmill.storage.tables import rows_at, to_numpy
from melmill.storage.utterance import Shard, Utterance

LABELS = ("text", "speaker_id", "subset", "chapter_id", "sex", "speaker_name")

# What is needed to find an utterance's data, and to read it in its corpus.
_UTTERANCE = ("utterance_id", "path", "size_bytes", "mtime_ns", "source_sr", "source_n_samples", "n_samples")
_PLACES = ("shard", "slot", "n_slots", *_UTTERANCE)


def present(views: Sequence[ProductView], ids: Collection[str] | None) -> NDArray[np.bool_]:
    """Return which rows of a catalogue have data in all views, and are among `ids`.

    Raises
    ------
    StoreError
        One of `ids` has no data in one of the views, or no row has.
    """
    catalogue = views[0].catalogue
    absent = [view.absent for view in views]
    done = np.zeros(catalogue.n_shards, dtype=np.bool_)
    done[[shard for shard in absent[0] if all(shard in other for other in absent[1:])]] = True
    gaps = {shard: frozenset().union(*(one[shard] for one in absent)) for shard in np.flatnonzero(done).tolist()}
    wanted, missing = None if ids is None else frozenset(ids), set(ids or ())
    mask = np.zeros(catalogue.n_rows, dtype=np.bool_)
    for piece in catalogue.pieces(["shard", "utterance_id"]):
        shards = to_numpy(piece.table["shard"])
        here = piece.current & done[shards]
        if wanted is not None or any(gaps.values()):
            pairs = zip(shards.tolist(), piece.table["utterance_id"].to_pylist(), here.tolist(), strict=True)
            here = np.array(
                [ok and one not in gaps[shard] and (wanted is None or one in wanted) for shard, one, ok in pairs],
                dtype=np.bool_,
            )
            if missing:
                missing -= {piece.table["utterance_id"][int(row)].as_py() for row in np.flatnonzero(here)}
        mask[piece.first : piece.first + len(here)] = here
    names = " and ".join(repr(view.name) for view in views)
    if missing:
        both = "both " if len(views) == 2 else ""
        raise StoreError(f"{len(missing)} of the ids are not in {both}{names}, e.g. {min(missing)!r}")
    if not mask.any():
        raise StoreError(f"there is nothing to stream: no utterance has data in {names}. Run the pipeline")
    return mask


@dataclass(frozen=True)
class Selection:
    """Rows of a catalogue, to be read again in another process.

    Parameters
    ----------
    store : Location
    address : Address
        Of the node whose catalogue it is.
    n_rows : int
        That it had. Rows that came later are not selected.
    packed : bytes
        A bit for each of them.
    """

    store: Location
    address: Address
    n_rows: int
    packed: bytes

    @classmethod
    def of(cls, store: Location, address: Address, mask: NDArray[np.bool_]) -> Selection:
        """Return the rows of a mask."""
        return cls(store, address, len(mask), zlib.compress(np.packbits(mask).tobytes()))

    def rows(self, labels: Sequence[str] = ()) -> Rows:
        """Return the rows, with labels; raise StoreError if the catalogue is gone."""
        catalogue = Store(self.store).catalogue(*self.address, checked=False)
        if catalogue is None or catalogue.n_rows < self.n_rows:
            raise StoreError(f"{self.store.url}: the catalogue that the stream was made with is gone")
        bits = np.frombuffer(zlib.decompress(self.packed), dtype=np.uint8)
        return Rows(catalogue, np.unpackbits(bits, count=self.n_rows).astype(np.bool_), labels)


class Rows:
    """Rows of a catalogue that are streamed, and what reading needs of the others in their shards.

    Parameters
    ----------
    catalogue : Catalogue
    mask : ndarray of bool
        Which of its rows are streamed.
    labels : sequence of str
        Of `LABELS`, those that are wanted.
    """

    def __init__(self, catalogue: Catalogue, mask: NDArray[np.bool_], labels: Sequence[str]) -> None:
        self.sr = catalogue.sr
        self.chosen = np.flatnonzero(mask)
        self._retired = catalogue.retired
        pieces = list(catalogue.pieces(_PLACES))
        current = np.concatenate([piece.current for piece in pieces])[self.chosen]
        table = pa.concat_tables(piece.table.replace_schema_metadata(None) for piece in pieces)
        self._table = table.slice(0, len(mask)).combine_chunks()
        if not current.all():
            gone = self.utterance_id(int(np.argmin(current)))
            raise StoreError(
                f"{int(np.sum(~current))} utterances of the stream have left the corpus since it was made, e.g. "
                f"{gone!r}: make it anew"
            )
        self._labels = _labels(catalogue, self.chosen, labels)
        self.n_samples: NDArray[np.int64] = to_numpy(self._table["n_samples"])[self.chosen]
        self._row_shards: NDArray[np.int64] = to_numpy(self._table["shard"])
        self.shards, self.firsts, self.counts = np.unique(
            self._row_shards[self.chosen], return_index=True, return_counts=True
        )

    def of(self, shard: int) -> range:
        """Return which of the chosen rows, counted from 0, are of a shard."""
        index = int(np.searchsorted(self.shards, shard))
        return range(int(self.firsts[index]), int(self.firsts[index] + self.counts[index]))

    def shard_of(self, number: int) -> int:
        """Return the shard of a chosen row."""
        return int(self._row_shards[self.chosen[number]])

    def utterance_id(self, number: int) -> str:
        """Return the id of a chosen row."""
        return str(self._table["utterance_id"][int(self.chosen[number])].as_py())

    def label(self, name: str, number: int) -> str:
        """Return a label of a chosen row."""
        return str(self._labels[name][number].as_py())

    def shard(self, index: int) -> Shard:
        """Return a shard with what decides where its utterances lie: their ids, paths and lengths."""
        start, stop = (int(i) for i in np.searchsorted(self._row_shards, [index, index + 1]))
        rows = self._table.slice(start, stop - start)
        columns = (rows[name].to_pylist() for name in _UTTERANCE)
        return Shard(
            index=index,
            slot=rows["slot"][0].as_py(),
            n_slots=rows["n_slots"][0].as_py(),
            utterances=tuple(
                self._utterance(dict(zip(_UTTERANCE, row, strict=True))) for row in zip(*columns, strict=True)
            ),
            retired=self._retired.get(index, frozenset()),
        )

    def _utterance(self, known: dict[str, Any]) -> Utterance:
        return Utterance(subset="", speaker_id="", chapter_id="", text="", sr=self.sr, **known)


def _labels(catalogue: Catalogue, chosen: NDArray[np.int64], names: Sequence[str]) -> dict[str, pa.ChunkedArray]:
    """Return columns of the chosen rows, with the labels that they have now."""
    if not names:
        return {}
    tables = []
    for numbers, rows, _ in catalogue.labelled([name for name in names if name not in CHANGING]):
        found = rows_at(rows.select(list(names)), np.flatnonzero(np.isin(numbers, chosen)))
        tables.append(found.replace_schema_metadata(None))
    table = pa.concat_tables(tables).combine_chunks()
    return {name: table[name] for name in names}
