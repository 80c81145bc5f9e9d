"""What a run made, for reading: arrays by utterance id, and tables as data frames."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from melmill.storage.arrays import Array
from melmill.storage.catalogue import Catalogue
from melmill.storage.files.location import Location
from melmill.storage.product import DESCRIPTION, Address, ProductDescription, ProductFolder
from melmill.storage.records import record_name

if TYPE_CHECKING:
    import pandas as pd


class ProductView(Mapping[str, Array]):
    """The arrays of a product by utterance id, as stored.

    They are waveforms ``(n_samples,)`` or mels ``(n_mels, n_frames)``, in storage order. The view
    has the utterances that were done when it was first used. An array is read when it is looked up.

    Parameters
    ----------
    store : Location
    name : str
        Of the node, for messages.
    folder : ProductFolder
    catalogue : Catalogue
    """

    def __init__(self, store: Location, name: str, folder: ProductFolder, catalogue: Catalogue) -> None:
        self.name = name
        self._store = store
        self.folder = folder
        self.catalogue = catalogue

    @property
    def description(self) -> ProductDescription:
        """Description of the product."""
        return self.folder.description

    def __getitem__(self, utterance_id: str) -> Array:
        return self.part(utterance_id, slice(None))

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)

    def __contains__(self, utterance_id: object) -> bool:
        return utterance_id in self._shards

    def __repr__(self) -> str:
        return f"<{self.description.kind} {self.name!r}: {len(self)} of {self.catalogue.n_utterances} utterances>"

    def part(self, utterance_id: str, part: slice) -> Array:
        """Return `part` of an utterance's samples or frames, reading only its chunks."""
        index = self._shards.get(utterance_id)
        if index is None:
            raise KeyError(self._explain_absence(utterance_id))
        return self.folder.read_array(self.catalogue.shard(index), utterance_id, part)

    @cached_property
    def absent(self) -> dict[int, frozenset[str]]:
        """Ids without data in each shard that is done, when the view was first used."""
        records = self.folder.records()
        # By shard: an id may be absent from an old shard, where it is retired.
        return {
            index: frozenset(record.absent)
            for index in self.catalogue.current_shards
            if (record := records.get(record_name(index))) is not None
        }

    @cached_property
    def _shards(self) -> dict[str, int]:
        """Map the ids of all utterances that have data to the index of their shard."""
        absent = self.absent
        table = self.catalogue.table
        pairs = zip(table["utterance_id"].to_pylist(), table["shard"].to_pylist(), strict=True)
        return {name: index for name, index in pairs if index in absent and name not in absent[index]}

    def _explain_absence(self, utterance_id: str) -> str:
        if utterance_id not in self.catalogue:
            return f"no utterance is called {utterance_id!r} among the {self.catalogue.n_utterances} of {self.name!r}"
        record = record_name(self.catalogue.shard_of(utterance_id))
        description = self.folder.description
        reason = self._absence_reason(utterance_id, record, (description.node, description.key))
        if reason:
            return f"{utterance_id!r} was {reason}"
        return f"{utterance_id!r} is not in {self.name!r} yet: its shard {record} is not done. Run the pipeline."

    def _absence_reason(self, utterance_id: str, record: str, address: Address) -> str:
        """Return the node that quarantined or dropped an utterance and why, '' if none did.

        A node before this one may have done so.
        """
        folder = ProductFolder(self._store / address[0] / address[1])
        if not folder.location.exists(DESCRIPTION):
            # What it was made of may be pruned.
            return ""
        if folder.record(record) is not None:
            table = folder.read_table("quarantine", [record])
            for row in table[table["utterance_id"] == utterance_id].to_dict("records"):
                return f"quarantined at {row['node']!r}: {row['reason']}"
            spans = folder.read_spans(record)
            dropped = [span for span in spans if span.utterance_id == utterance_id and span.reason]
            if dropped and len(dropped) == sum(span.utterance_id == utterance_id for span in spans):
                return f"dropped by {folder.description.node!r}: {dropped[0].reason} {dropped[0].detail}".rstrip()
        inputs = [pair for pairs in folder.description.inputs.values() for pair in pairs]
        return next(filter(None, (self._absence_reason(utterance_id, record, pair) for pair in inputs)), "")


_UTTERANCE = ["utterance_id", "subset", "speaker_id", "node", "duration_s"]


def with_utterances(table: pd.DataFrame, catalogue: Catalogue, *, node: str) -> pd.DataFrame:
    """Return a table of scores with columns of the catalogue, and the node that was scored.

    Returns
    -------
    DataFrame
        Columns ``utterance_id, subset, speaker_id, node, duration_s``, one per metric, then one
        ``status_<metric>`` per metric. Rows are in the order of `packed_at_once`.
    """
    utterances = catalogue.table.select(["utterance_id", "subset", "speaker_id", "duration_s"]).to_pandas()
    table = packed_at_once(table, catalogue)
    joined: pd.DataFrame = table.merge(utterances, on="utterance_id", how="left").assign(node=node)
    return joined[[*_UTTERANCE, *(name for name in table.columns if name != "utterance_id")]]


def packed_at_once(table: pd.DataFrame, catalogue: Catalogue) -> pd.DataFrame:
    """Return the rows of a product in the order that a store has which was made at once.

    So what is drawn from the rows, such as a bootstrap's samples, does not depend on the order in
    which a corpus grew or was repaired.
    """
    order = catalogue.packing_order
    if not order or not len(table):
        return table
    places = table["utterance_id"].map(order)
    return table.loc[places.sort_values(kind="stable").index].reset_index(drop=True)


def scores(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return tables of `with_utterances` as one, with a row per utterance and node.

    Columns of tables that score the same node are joined. If two of them have a metric, the first
    one's is kept. Metrics come before statuses.
    """
    import pandas as pd

    by_node: dict[str, pd.DataFrame] = {}
    for frame in frames:
        node = str(frame["node"].iloc[0]) if len(frame) else ""
        first = by_node.get(node)
        if first is None:
            by_node[node] = frame
        else:
            new = frame[[*_UTTERANCE, *(name for name in frame.columns if name not in first.columns)]]
            by_node[node] = first.merge(new, on=_UTTERANCE, how="outer")
    if not by_node:
        return pd.DataFrame(columns=_UTTERANCE)
    table = pd.concat(by_node.values(), ignore_index=True)
    metrics = [name for name in table.columns if name not in _UTTERANCE]
    return table[[*_UTTERANCE, *sorted(metrics, key=lambda name: name.startswith(("status_", "weight_")))]]


def by_node(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return tables below one another, with a column for the node.

    If all of them are empty, the result has the columns of the first.
    """
    import pandas as pd

    named = [frame.assign(node=name) for name, frame in frames.items()]
    filled = [frame for frame in named if len(frame)] or named[:1]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=["utterance_id", "node"])


def statistics(data: bytes) -> pd.DataFrame:
    """Return the file of a node of statistics as a table, first what is about all speakers together.

    Its arrays have the shape ``(n_speakers, n_rows)`` and names that begin with ``speaker_``, and
    those over all speakers ``(n_rows,)``.
    """
    import pandas as pd

    columns = ("count", "mean", "std", "minimum", "maximum")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        rows, speakers = file["rows"].tolist(), file["speakers"].tolist()
        named = [(None, {name: file[name] for name in columns})]
        stacked = {name: file[f"speaker_{name}"] for name in columns}
    named += [(speaker, {name: stacked[name][at] for name in columns}) for at, speaker in enumerate(speakers)]
    frames = [pd.DataFrame({"speaker_id": speaker, "row": rows, **values}) for speaker, values in named]
    return pd.concat(frames, ignore_index=True)


_TRUST = ["utterance_id", "node", "damage", "step"]


def trust(frames: Mapping[str, pd.DataFrame], damaged: Mapping[str, str]) -> pd.DataFrame:
    """Return tables of damaged recordings below one another, by the node that was damaged.

    Parameters
    ----------
    frames : mapping of str to DataFrame
        By the node that damaged recordings.
    damaged : mapping of str to str
        The node of the recordings, by the same. Where several nodes damaged the same recordings,
        each of their tables has its own node's name.
    """
    import pandas as pd

    counts = Counter(damaged[name] for name in frames)
    filled = [
        frame.assign(node=damaged[name] if counts[damaged[name]] == 1 else name)
        for name, frame in frames.items()
        if len(frame)
    ]
    if not filled:
        return pd.DataFrame(columns=_TRUST)
    table = pd.concat(filled, ignore_index=True)
    metrics = [name for name in table.columns if name not in _TRUST]
    return table[[*_TRUST, *sorted(metrics, key=lambda name: name.startswith("status_"))]]


def corpus(catalogue: Catalogue, facts: pd.DataFrame, *, node: str) -> pd.DataFrame:
    """Return the catalogue as a table, with what ingest measured of the files' contents."""
    utterances = catalogue.table.to_pandas().assign(node=node)
    new = facts[["utterance_id", *(name for name in facts.columns if name not in utterances.columns)]]
    joined: pd.DataFrame = utterances.merge(new, on="utterance_id", how="left")
    return joined
