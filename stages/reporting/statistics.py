"""Means with intervals, counts of failures and mean traces; nothing that failed is averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.reporting.bootstrap import DRAWS, generator, intervals
from melmill.stages.reporting.cube import OK, Cube, Group, cube, groups, metric_columns, statuses

FAILURE_COLUMNS = ("metric", "node", "status", "n")


def summary(
    scores: pd.DataFrame, *, by: Sequence[str] = ("subset", "speaker"), draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Summarise every metric of every node over all utterances and over each group.

    Parameters
    ----------
    scores : DataFrame
        One row per utterance and node.
    by : sequence of str
        ``subset`` and ``speaker``, nested in this order.
    draws, seed : int
        Of the bootstrap over utterances.

    Returns
    -------
    DataFrame
        ``metric, node, level, subset, speaker_id`` name a row; ``level`` is ``all``, ``subset`` or ``speaker``, and
        what a level doesn't distinguish reads ``all``. ``n`` utterances have a value and ``n_failed`` were asked for
        one in vain; ``mean, ci_low, ci_high`` (95 %, percentile bootstrap), ``median`` and ``std`` (n - 1) are over
        the ``n``. ``mean_common`` is the mean over the ``n_common`` utterances that have a value for every node with
        any; ``uneven`` says that the nodes' means are over different utterances, so that only ``mean_common``
        compares them.
    """
    table = cube(scores)
    parts = [_of_group(table, group, draws, seed) for group in groups(table.utterances, by)]
    return pd.concat(parts, ignore_index=True)


def measured(found: pd.DataFrame) -> list[str]:
    """Return the metrics of a `summary` that have a value for some node, in the order asked for."""
    with_values = set(found.loc[found["n"] > 0, "metric"])
    return [metric for metric in dict.fromkeys(found["metric"]) if metric in with_values]


def _of_group(table: Cube, group: Group, draws: int, seed: int) -> pd.DataFrame:
    values, asked = table.values[group.rows], table.asked[group.rows]
    flat = values.reshape(len(values), len(table.nodes) * len(table.metrics))
    n = (~np.isnan(flat)).sum(axis=0)
    low, high = intervals(flat, generator(seed, group.level, group.subset, group.speaker_id), draws)
    n_common, mean_common, uneven = _over_common(values)
    frame = pd.DataFrame(
        {
            "metric": np.tile(table.metrics, len(table.nodes)),
            "node": np.repeat(table.nodes, len(table.metrics)),
            "level": group.level,
            "subset": group.subset,
            "speaker_id": group.speaker_id,
            "n": n,
            "n_failed": asked.reshape(flat.shape).sum(axis=0) - n,
            "mean": _moment(np.nanmean, flat, n >= 1),
            "ci_low": low,
            "ci_high": high,
            "median": _moment(np.nanmedian, flat, n >= 1),
            "std": _moment(_deviation, flat, n >= 2),
            "n_common": n_common,
            "mean_common": mean_common,
            "uneven": uneven,
        }
    )
    return frame.loc[np.flatnonzero(asked.reshape(flat.shape).any(axis=0))]


def _deviation(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.asarray(np.nanstd(values, axis=axis, ddof=1))


def _moment(
    function: Callable[..., NDArray[np.float64]], flat: NDArray[np.float64], enough: NDArray[np.bool_]
) -> NDArray[np.float64]:
    out = np.full(flat.shape[1], np.nan)
    if enough.any():
        out[enough] = function(flat[:, enough], axis=0)
    return out


def _over_common(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return n_common, mean_common and uneven, each flat over (node, metric)."""
    common, mean = common_means(values)
    n_common = np.broadcast_to(common.sum(axis=0), mean.shape)
    uneven = np.sum(~np.isnan(values), axis=0) > n_common
    return n_common.ravel(), mean.ravel(), np.broadcast_to(np.any(uneven, axis=0), mean.shape).ravel()


def common_means(values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Average over the utterances that have a value for every node; a node without any value doesn't narrow them.

    Parameters
    ----------
    values : ndarray of float64, shape (n_utterances, n_nodes, n_metrics)

    Returns
    -------
    common : ndarray of bool, shape (n_utterances, n_metrics)
    means : ndarray of float64, shape (n_nodes, n_metrics)
        NaN where a node has no value or there is no common utterance.
    """
    present = ~np.isnan(values)
    counted = np.asarray(present.any(axis=0))
    common = np.asarray((present | ~counted).all(axis=1)) & counted.any(axis=0)
    n_common = np.asarray(common.sum(axis=0))
    total = np.where(common[:, None], np.nan_to_num(values), 0.0).sum(axis=0)
    means = np.divide(total, n_common, out=np.full(total.shape, np.nan), where=counted & (n_common > 0))
    return common, means


def failures(scores: pd.DataFrame) -> pd.DataFrame:
    """Count what has no value: ``metric, node, status, n``, in the order of the scores' columns and nodes."""
    parts = []
    for metric in metric_columns(scores):
        status = statuses(scores, metric)
        failed = pd.DataFrame({"metric": metric, "node": scores["node"], "status": status})
        failed = failed.loc[status.notna() & (status != OK)]
        parts.append(failed.groupby(["metric", "node", "status"], sort=False).size().rename("n").reset_index())
    found = [part for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(FAILURE_COLUMNS))


def convergence(traces: pd.DataFrame) -> pd.DataFrame:
    """Summarise the SCM (dB) over utterances after every iteration of every node.

    Returns
    -------
    DataFrame
        ``node, iteration, n, mean, first_quartile, third_quartile`` of the finite values, nodes in order of appearance.
    """
    finite = traces[np.isfinite(traces["scm_db"].to_numpy(dtype=np.float64, na_value=np.nan))]
    by_iteration = finite.groupby(["node", "iteration"], sort=True)["scm_db"]
    found: pd.DataFrame = by_iteration.agg(n="size", mean="mean").reset_index()
    found["first_quartile"] = by_iteration.quantile(0.25).to_numpy()
    found["third_quartile"] = by_iteration.quantile(0.75).to_numpy()
    order = {node: at for at, node in enumerate(dict.fromkeys(finite["node"]))}
    found["place"] = [order[node] for node in found["node"]]
    return found.sort_values("place", kind="stable", ignore_index=True).drop(columns="place")
