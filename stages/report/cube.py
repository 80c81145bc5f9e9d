"""The scores of a run as one array, utterance by node by metric, where only what may be averaged has a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.numeric.errors import StageError
from melmill.stages.score.registry import status_column
from melmill.stages.score.status import Status

OK = Status.OK.value
ALL = "all"
_COLUMN_OF = {"subset": "subset", "speaker": "speaker_id"}


@dataclass(frozen=True, kw_only=True)
class Cube:
    """Hold the scores of a run.

    Parameters
    ----------
    utterances : DataFrame
        ``utterance_id, subset, speaker_id``, one row per utterance, in the order of the scores.
    nodes, metrics : tuple of str
        Names along the other axes.
    values : ndarray of float64, shape (n_utterances, n_nodes, n_metrics)
        NaN unless the status is ``ok`` and the value finite.
    asked : ndarray of bool, shape (n_utterances, n_nodes, n_metrics)
        Where the metric was asked for: there is a row, and its status isn't missing.
    """

    utterances: pd.DataFrame
    nodes: tuple[str, ...]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    asked: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Name a set of utterances: `level` is ``all``, ``subset`` or ``speaker``; `rows` index the cube."""

    level: str
    subset: str
    speaker_id: str
    rows: NDArray[np.intp]


def metric_columns(scores: pd.DataFrame) -> tuple[str, ...]:
    """Return the metric columns: those that have a ``status_`` column beside them.

    >>> metric_columns(pd.DataFrame(columns=["node", "duration_s", "estoi", "status_estoi"]))
    ('estoi',)
    """
    return tuple(name for name in scores.columns if status_column(name) in scores.columns)


def statuses(scores: pd.DataFrame, metric: str) -> pd.Series[str]:
    """Return the status of `metric` in every row; ``ok`` without a finite value becomes ``non_finite``."""
    status = scores[status_column(metric)].astype(object)
    broken = (status == OK).to_numpy(dtype=bool, na_value=False) & ~np.isfinite(_floats(scores[metric]))
    return status.mask(broken, Status.NON_FINITE.value)


def cube(scores: pd.DataFrame) -> Cube:
    """Arrange a table of scores, one row per utterance and node, as a `Cube`.

    Raises
    ------
    StageError
        An utterance has two rows for one node.
    """
    row, ids = pd.factorize(scores["utterance_id"])
    column, nodes = pd.factorize(scores["node"])
    _check_unique(scores, row, column)
    metrics = metric_columns(scores)
    values = np.full((len(ids), len(nodes), len(metrics)), np.nan)
    asked = np.zeros(values.shape, dtype=bool)
    for k, metric in enumerate(metrics):
        status = statuses(scores, metric)
        counts = (status == OK).to_numpy(dtype=bool, na_value=False)
        values[row, column, k] = np.where(counts, _floats(scores[metric]), np.nan)
        asked[row, column, k] = status.notna().to_numpy()
    known = scores[["utterance_id", "subset", "speaker_id"]].drop_duplicates("utterance_id", ignore_index=True)
    return Cube(utterances=known, nodes=tuple(nodes), metrics=metrics, values=values, asked=asked)


def groups(utterances: pd.DataFrame, by: Sequence[str]) -> list[Group]:
    """Return all utterances as one group, then each nested grouping of `by`, outer first.

    ``("subset", "speaker")`` gives all, every subset, and every speaker of every subset.
    """
    found = [Group(level=ALL, subset=ALL, speaker_id=ALL, rows=np.arange(len(utterances)))]
    for depth in range(1, len(by) + 1):
        columns = [_COLUMN_OF[name] for name in by[:depth]]
        for key, rows in utterances.groupby(columns, sort=True, dropna=False, observed=True).indices.items():
            names = dict(zip(columns, key if isinstance(key, tuple) else (key,), strict=True))
            found.append(
                Group(
                    level=by[depth - 1],
                    subset=str(names.get("subset", ALL)),
                    speaker_id=str(names.get("speaker_id", ALL)),
                    rows=np.sort(rows),
                )
            )
    return found


def _floats(column: pd.Series[float]) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _check_unique(scores: pd.DataFrame, row: NDArray[np.intp], column: NDArray[np.intp]) -> None:
    twice = pd.DataFrame({"row": row, "column": column}).duplicated().to_numpy()
    if twice.any():
        first = scores.loc[twice, ["utterance_id", "node"]].iloc[0]
        raise StageError(
            f"scores: utterance {first['utterance_id']!r} has several rows for node {first['node']!r}, expected one; "
            "join the metrics of one node into one row"
        )
