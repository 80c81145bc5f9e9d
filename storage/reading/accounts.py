"""The account of a prepared corpus: what of its recordings a node holds, and why not the rest.

Every sample of the catalogue is kept or has a reason. All positions are samples of the corpus' own
catalogue, however often the recordings were cut or resampled on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.items import Span
from melmill.storage.errors import StoreError
from melmill.storage.product import Address, ProductFolder
from melmill.storage.records import Record, record_name
from melmill.storage.runs import NodeEntry
from melmill.storage.utterance import resampled_length

if TYPE_CHECKING:
    import pandas as pd


class Stored(Protocol):
    """What an account reads: a `melmill.storage.store.Store`."""

    @property
    def nodes(self) -> Mapping[str, NodeEntry]:
        """Nodes of the run by name."""
        ...

    def product(self, node: str, key: str) -> ProductFolder:
        """Return the folder of a node's product."""
        ...

    def catalogue_at(self, address: Address) -> Catalogue:
        """Return the catalogue of a node."""
        ...

    def __getitem__(self, name: str) -> object:
        """Return what a node made; raise KeyError with the nearest name."""
        ...


KEPT, QUARANTINED, NOT_DONE = "kept", "quarantined", "not done yet"


class Piece(NamedTuple):
    """Some samples of a recording of the corpus, and what became of them.

    Parameters
    ----------
    utterance_id : str
        Of the recording.
    start, stop : int
        First sample, and the one behind the last, at the catalogue's rate.
    node : str
        Where they were dropped. For what was kept, the node that the account is of.
    reason : str
        ``kept``, ``quarantined``, ``not done yet``, or what a rule says.
    detail : str
        What was found.
    item_id : str
        Of what was made of them. Empty where they were dropped.
    """

    utterance_id: str
    start: int
    stop: int
    node: str
    reason: str
    detail: str = ""
    item_id: str = ""

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class _Place:
    """An item on its way: samples `start` to `stop` of a recording, which are `n_samples` at `sr` now."""

    utterance_id: str
    start: int
    stop: int
    n_samples: int

    def at(self, sample: int) -> int:
        """Return the sample of the recording at which a sample of the item lies."""
        if sample <= 0 or sample >= self.n_samples:
            return self.start if sample <= 0 else self.stop
        return self.start + round(sample * (self.stop - self.start) / self.n_samples)


class Account:
    """The way from a corpus to a node, and what each node on it dropped.

    Parameters
    ----------
    store : Store
    name : str
        A node of the run: one that makes waveforms or mels, or measures them.

    Raises
    ------
    StoreError
        The node is not made of one corpus shard by shard.
    """

    def __init__(self, store: Stored, name: str) -> None:
        entries = store.nodes
        if name not in entries:
            store[name]  # raises KeyError with the nearest name
        entry = entries[name]
        if entry.kind in ("report", "vocoder", "prior") or not entry.catalogues:
            raise StoreError(f"node {name!r} makes {entry.kind} of whole corpora: name a node before it")
        self.name = name
        self._names = {(one.folder, one.key): node for node, one in entries.items()}
        self.way = list(_way(store, (entry.folder, entry.key)))
        self.corpus = self._names.get(self.way[0], self.way[0][0])
        self.catalogue: Catalogue = store.catalogue_at(self.way[0])
        self._folders = [store.product(*address) for address in self.way]
        self._records: list[Mapping[str, Record]] = [folder.records() for folder in self._folders]

    @property
    def sr(self) -> int:
        """Rate that samples are counted at, Hz."""
        return self.catalogue.sr

    def pieces(self) -> Iterator[Piece]:
        """Yield all samples of the corpus, recording by recording, in order."""
        for index in self.catalogue.current_shards:
            yield from self._shard(index)

    def _shard(self, index: int) -> list[Piece]:
        """Return the pieces of the recordings of a shard."""
        shard = self.catalogue.shard(index)
        order = {one.utterance_id: i for i, one in enumerate(shard.current)}
        places = {
            one.utterance_id: _Place(
                utterance_id=one.utterance_id, start=0, stop=one.n_samples, n_samples=one.n_samples
            )
            for one in shard.current
        }
        pieces: list[Piece] = []
        rate = self.catalogue.sr
        for folder, records, address in zip(self._folders, self._records, self.way, strict=True):
            node = self._names.get(address, address[0])
            record = records.get(record_name(index))
            if record is None:
                pieces += [_piece(place, node, NOT_DONE) for place in places.values()]
                places = {}
                break
            places, lost = _after(folder, record, places, node, rate)
            pieces += lost
            rate = folder.description.sr or rate
        pieces += [_piece(place, self.name, KEPT, item=item) for item, place in places.items()]
        return sorted(pieces, key=lambda one: (order[one.utterance_id], one.start, one.stop))

    def by_reason(self) -> pd.DataFrame:
        """Return a row for what was kept, and one for each node and reason.

        Returns
        -------
        DataFrame
            Columns ``node, reason, n_pieces, n_samples, duration_s, share``. What was kept comes
            first, then the nodes in the order of the way, and the reasons of each with the longest
            first. `n_samples` of all rows together is that of the catalogue.
        """
        import pandas as pd

        counted: dict[tuple[str, str], list[int]] = {}
        for piece in self.pieces():
            row = counted.setdefault((piece.node, piece.reason), [0, 0])
            row[0] += 1
            row[1] += piece.n_samples
        place = {self._names.get(address, address[0]): i for i, address in enumerate(self.way)}
        total = sum(n for _, n in counted.values())
        counted.setdefault((self.name, KEPT), [0, 0])
        rows = sorted(counted.items(), key=lambda one: (one[0][1] != KEPT, place[one[0][0]], -one[1][1], one[0]))
        return pd.DataFrame(
            [
                (node, reason, n_pieces, n, n / self.sr, n / total if total else 0.0)
                for (node, reason), (n_pieces, n) in rows
            ],
            columns=["node", "reason", "n_pieces", "n_samples", "duration_s", "share"],
        )

    def table(self) -> pd.DataFrame:
        """Return a row for each piece; see `Piece` for the columns. Those of a recording are in order."""
        import pandas as pd

        return pd.DataFrame(list(self.pieces()), columns=list(Piece._fields))


def _way(store: Stored, address: Address) -> Iterator[Address]:
    """Yield the products that lead from a corpus to a product, the corpus first."""
    description = store.product(*address).description
    sources = description.inputs.get("from") or next(iter(description.inputs.values()), ())
    if sources:
        yield from _way(store, sources[0])
    yield address


def _piece(place: _Place, node: str, reason: str, detail: str = "", item: str = "") -> Piece:
    return Piece(place.utterance_id, place.start, place.stop, node, reason, detail, item)


def _after(
    folder: ProductFolder, record: Record, places: Mapping[str, _Place], node: str, rate: int
) -> tuple[dict[str, _Place], list[Piece]]:
    """Return what a node made of items, by id, and what it did not.

    Parameters
    ----------
    folder : ProductFolder
        Product of the node.
    record : Record
        Of the shard.
    places : mapping of str to _Place
        Items that it was given, by id.
    node : str
        Its name.
    rate : int
        Rate of what it was given, Hz.
    """
    spans: dict[str, list[Span]] = {}
    if any(name.startswith("spans/") for name in record.files):
        for span in folder.read_spans(record.name):
            spans.setdefault(span.utterance_id, []).append(span)
    quarantined: dict[str, str] = {}
    if record.n_quarantined:
        table = folder.stored_table("quarantine", [record.name], None)
        if table is not None:
            quarantined = dict(zip(table["utterance_id"].to_pylist(), table["reason"].to_pylist(), strict=True))
    sr = folder.description.sr or rate
    absent = frozenset(record.absent)
    kept: dict[str, _Place] = {}
    lost: list[Piece] = []
    for name, place in places.items():
        if name in quarantined or (name not in spans and name in absent):
            lost.append(_piece(place, node, QUARANTINED, quarantined.get(name, "")))
            continue
        own = spans.get(name, [Span(name, name, 0, place.n_samples)])
        # A second change of rate may round a length that the first has rounded.
        given = replace(place, n_samples=own[-1].stop)
        for span in own:
            part = _Place(
                utterance_id=given.utterance_id,
                start=given.at(span.start),
                stop=given.at(span.stop),
                n_samples=resampled_length(span.n_samples, rate, sr),
            )
            if span.item_id:
                kept[span.item_id] = part
            else:
                lost.append(_piece(part, node, span.reason, span.detail))
    return kept, lost
