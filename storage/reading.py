"""Tables of a whole run as data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from melmill.storage.catalogue import Catalogue

if TYPE_CHECKING:
    import pandas as pd

_UTTERANCE = ["utterance_id", "subset", "speaker_id", "node", "duration_s"]


def with_utterances(table: pd.DataFrame, catalogue: Catalogue, *, node: str) -> pd.DataFrame:
    """Return a table of scores with what the catalogue says of each utterance, and the node that they are about.

    Returns
    -------
    DataFrame
        Columns ``utterance_id, subset, speaker_id, node, duration_s``, one per metric, then one ``status_<metric>``
        each; rows in the order of `table`.
    """
    utterances = catalogue.table.select(["utterance_id", "subset", "speaker_id", "duration_s"]).to_pandas()
    joined: pd.DataFrame = table.merge(utterances, on="utterance_id", how="left").assign(node=node)
    return joined[[*_UTTERANCE, *(name for name in table.columns if name != "utterance_id")]]


def scores(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of `with_utterances` below one another, one row per utterance and node, metrics before statuses.

    Where several tables score the same node, their columns stand side by side; of a metric that two of them hold, the
    first is kept.
    """
    import pandas as pd

    by_node: dict[str, pd.DataFrame] = {}
    for frame in frames:
        node = str(frame["node"].iloc[0]) if len(frame) else ""
        by_node[node] = _beside(by_node[node], frame) if node in by_node else frame
    if not by_node:
        return pd.DataFrame(columns=_UTTERANCE)
    table = pd.concat(by_node.values(), ignore_index=True)
    metrics = [name for name in table.columns if name not in _UTTERANCE]
    return table[[*_UTTERANCE, *sorted(metrics, key=lambda name: name.startswith("status_"))]]


def _beside(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    new = second[[*_UTTERANCE, *(name for name in second.columns if name not in first.columns)]]
    joined: pd.DataFrame = first.merge(new, on=_UTTERANCE, how="outer")
    return joined


def by_node(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put tables below one another, each with the name of its node; empty ones only lend their columns."""
    import pandas as pd

    named = [frame.assign(node=name) for name, frame in frames.items()]
    held = [frame for frame in named if len(frame)] or named[:1]
    return pd.concat(held, ignore_index=True) if held else pd.DataFrame(columns=["utterance_id", "node"])


def corpus(catalogue: Catalogue, facts: pd.DataFrame, *, node: str) -> pd.DataFrame:
    """Return the catalogue as a table, with what ingest found out about the contents of the files."""
    utterances = catalogue.table.to_pandas().assign(node=node)
    new = facts[["utterance_id", *(name for name in facts.columns if name not in utterances.columns)]]
    joined: pd.DataFrame = utterances.merge(new, on="utterance_id", how="left")
    return joined
