"""Values of whole sets from their embeddings, as tables."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from melmill.stages.score.sets.distances import (
    FEWEST,
    Distance,
    Embedded,
    frechet_at_infinity,
    frechet_distance,
    kernel_distance,
)
from melmill.stages.score.sets.stage import DIMENSION, ESTIMATE, REFERENCE
from melmill.stages.score.status import Status

if TYPE_CHECKING:
    import pandas as pd

_COMPUTED: Mapping[str, Callable[[Embedded, Embedded, int], Distance]] = {
    "fad": frechet_distance,
    "fad_inf": frechet_at_infinity,
    "kad": kernel_distance,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedSet:
    """Hold the embeddings of what one node made of a corpus, and of the recordings.

    Parameters
    ----------
    node : str
        The node whose waveforms were embedded.
    embedding : str
    metrics : tuple of str
        Names of metrics that are asked for.
    statuses : mapping of str to int
        How many recordings have no embeddings, by status.
    reference, estimate : Embedded
        Of the same recordings, in the same order.
    """

    node: str
    embedding: str
    metrics: tuple[str, ...]
    statuses: Mapping[str, int]
    reference: Embedded
    estimate: Embedded


def embedded_set(
    table: pd.DataFrame, trace: pd.DataFrame, *, node: str, embedding: str, metrics: Sequence[str]
) -> EmbeddedSet:
    """Return a set by the tables of a node of the stage `set_score`.

    Parameters
    ----------
    table : DataFrame
        ``utterance_id, status``.
    trace : DataFrame
        ``utterance_id, side``, and a column for each number of the embedding; a row for each part.
        Without rows it has no columns.
    node, embedding : str
    metrics : sequence of str
    """
    drawn = table[table["status"] != ""]
    counts = drawn.loc[drawn["status"] != Status.OK.value, "status"].value_counts()
    ids = drawn.loc[drawn["status"] == Status.OK.value, "utterance_id"]
    number = {name: at for at, name in enumerate(ids)}
    numbers = [name for name in trace.columns if name.startswith(DIMENSION) and name[len(DIMENSION) :].isdecimal()]

    def of(side: str) -> Embedded:
        rows = trace[(trace["side"] == side) & trace["utterance_id"].isin(number)] if len(trace) else trace
        if not len(rows):
            return Embedded(parts=np.empty((0, 0)), recording=np.empty(0, dtype=np.intp))
        at = rows["utterance_id"].map(number).to_numpy(dtype=np.intp)
        order = np.argsort(at, kind="stable")
        return Embedded(parts=rows[numbers].to_numpy(dtype=np.float64)[order], recording=at[order])

    return EmbeddedSet(
        node=node,
        embedding=embedding,
        metrics=tuple(metrics),
        statuses={str(status): int(n) for status, n in counts.items()},
        reference=of(REFERENCE),
        estimate=of(ESTIMATE),
    )


def set_values(sets: Sequence[EmbeddedSet], seed: int) -> pd.DataFrame:
    """Return each metric of each set.

    Returns
    -------
    DataFrame
        ``metric, embedding, node``, ``n`` recordings that have embeddings and ``n_failed`` that have
        none, ``n_parts`` of the recordings, ``n_dimensions``, ``value`` with its 95 % interval
        ``ci_low, ci_high``, and ``status``. FAD is followed by FAD∞.
    """
    import pandas as pd

    rows = [row for one in sets for row in _rows(one, seed)]
    return pd.DataFrame(rows, columns=list(SET_COLUMNS))


SET_COLUMNS = (
    "metric", "embedding", "node", "n", "n_failed", "n_parts", "n_dimensions", "value", "ci_low", "ci_high", "status",
)  # fmt: skip


def _rows(one: EmbeddedSet, seed: int) -> Iterator[dict[str, Any]]:
    wanted = [name for name in _COMPUTED if name in one.metrics or (name == "fad_inf" and "fad" in one.metrics)]
    n, n_parts = one.reference.n_recordings, len(one.reference.parts)
    for metric in wanted:
        distance, status = Distance(float("nan")), Status.TOO_FEW
        if n >= FEWEST and min(n_parts, len(one.estimate.parts)) > 1:
            # The same subsets for all nodes, so that they can be compared.
            distance = _COMPUTED[metric](one.reference, one.estimate, zlib.crc32(f"{seed} {one.embedding}".encode()))
            status = Status.OK if np.isfinite(distance.value) else Status.TOO_FEW
        yield {
            "metric": metric,
            "embedding": one.embedding,
            "node": one.node,
            "n": n,
            "n_failed": sum(one.statuses.values()),
            "n_parts": n_parts,
            "n_dimensions": one.reference.parts.shape[1],
            "value": distance.value,
            "ci_low": distance.low,
            "ci_high": distance.high,
            "status": status.value,
        }


def as_summary(values: pd.DataFrame) -> pd.DataFrame:
    """Return values of sets as rows of a report's summary: ``fad_speaker`` is FAD by the embedding `speaker`."""
    found = values["status"] == Status.OK.value
    n = values["n"].where(found, 0)
    return values[["node", "ci_low", "ci_high"]].assign(
        metric=[f"{name}_{embedding}" for name, embedding in zip(values["metric"], values["embedding"], strict=True)],
        level="all",
        subset="all",
        speaker_id="all",
        n=n,
        n_failed=values["n_failed"],
        mean=values["value"],
        median=np.nan,
        std=np.nan,
        n_common=n,
        mean_common=values["value"],
        uneven=False,
    )


def as_failures(sets: Sequence[EmbeddedSet], values: pd.DataFrame) -> pd.DataFrame:
    """Return what has no embedding or no value: ``metric, node, status, n``."""
    import pandas as pd

    of = {(one.node, one.embedding): one.statuses for one in sets}
    rows = []
    for row in values.to_dict("records"):
        failed = dict(of[row["node"], row["embedding"]])
        if row["status"] != Status.OK.value:
            failed[row["status"]] = failed.get(row["status"], 0) + max(1, row["n"])
        rows += [(f"{row['metric']}_{row['embedding']}", row["node"], status, n) for status, n in failed.items()]
    return pd.DataFrame(rows, columns=["metric", "node", "status", "n"])
