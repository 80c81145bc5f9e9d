"""Means with intervals, counts of failures and paired tests of scores; nothing that failed is averaged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.errors import ParameterError
from melmill.stages.metrics.registry import metric as described
from melmill.stages.reporting.bootstrap import DRAWS, generator, intervals
from melmill.stages.reporting.cube import OK, Cube, Group, cube, groups, metric_columns, statuses

FAILURE_COLUMNS = ("metric", "node", "status", "n")
PAIRED_COLUMNS = (
    *("metric", "node", "baseline", "n", "mean_difference", "ci_low", "ci_high", "wilcoxon_p", "wilcoxon_p_holm"),
    *("ttest_p", "n_better", "n_worse", "reason"),
)


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


def _of_group(table: Cube, group: Group, draws: int, seed: int) -> pd.DataFrame:
    values, asked = table.values[group.rows], table.asked[group.rows]
    flat = values.reshape(len(values), -1)
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


def paired(scores: pd.DataFrame, baseline: str, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Compare every node with `baseline`, utterance by utterance.

    Parameters
    ----------
    scores : DataFrame
        One row per utterance and node.
    baseline : str
        A scored node.
    draws, seed : int
        Of the bootstrap over utterances.

    Returns
    -------
    DataFrame
        A row per metric and other node over the ``n`` utterances where both have a value: ``mean_difference`` (node
        minus baseline, in the metric's unit) with its 95 % interval, the two-sided p of Wilcoxon's signed-rank test and
        of the paired t test, and at how many utterances the node is better or worse, by the metric's own sense.
        ``wilcoxon_p_holm`` is corrected for all of the table's tests (Holm 1979). Where something can't be computed
        it's NaN and ``reason`` says why.

    Raises
    ------
    ParameterError
        `baseline` isn't a node of the scores.
    """
    table = cube(scores)
    if baseline not in table.nodes:
        names = ", ".join(table.nodes)
        raise ParameterError("baseline", f"must be a scored node, got {baseline!r} (scored: {names})")
    base = table.nodes.index(baseline)
    difference = table.values - table.values[:, base : base + 1]
    ends = intervals(difference.reshape(len(difference), -1), generator(seed, "paired", baseline), draws)
    low, high = (end.reshape(difference.shape[1:]) for end in ends)
    asked = np.asarray(table.asked.any(axis=0))
    rows = [
        {"metric": metric, "node": node, "baseline": baseline, "ci_low": low[j, k], "ci_high": high[j, k]}
        | _compared(difference[:, j, k], _sign(metric))
        for k, metric in enumerate(table.metrics)
        for j, node in enumerate(table.nodes)
        if j != base and asked[j, k] and asked[base, k]
    ]
    frame = pd.DataFrame(rows, columns=list(PAIRED_COLUMNS))
    frame["wilcoxon_p_holm"] = holm_adjusted(frame["wilcoxon_p"].to_numpy(dtype=np.float64))
    return frame


def convergence(traces: pd.DataFrame) -> pd.DataFrame:
    """Summarise the SCM (dB) over utterances after every iteration of every node.

    Returns
    -------
    DataFrame
        ``node, iteration, n, mean, first_quartile, third_quartile`` of the finite values, nodes in order of appearance.
    """
    finite = traces[np.isfinite(traces["scm_db"].to_numpy(dtype=np.float64, na_value=np.nan))]
    by_iteration = finite.groupby(["node", "iteration"], sort=True)["scm_db"]
    found = by_iteration.agg(n="size", mean="mean").reset_index()
    found["first_quartile"] = by_iteration.quantile(0.25).to_numpy()
    found["third_quartile"] = by_iteration.quantile(0.75).to_numpy()
    order = {node: at for at, node in enumerate(dict.fromkeys(finite["node"]))}
    found["place"] = [order[node] for node in found["node"]]
    return found.sort_values("place", kind="stable", ignore_index=True).drop(columns="place")


def leaders(scores: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Name for each metric the best node, then the nodes that can't be told from it.

    The best has the best mean over the utterances that all nodes have in common; another can't be told from it where
    the 95 % interval of their paired difference holds 0, or can't be had. A metric that fewer than two nodes have
    values of is left out: there is nothing to be best among.
    """
    table = cube(scores)
    means = common_means(table.values)[1]
    found = {}
    for k, metric in enumerate(table.metrics):
        ranked = means[:, k] * _sign(metric)
        if (~np.isnan(ranked)).sum() < 2:
            continue
        best = int(np.nanargmax(ranked))
        difference = table.values[:, :, k] - table.values[:, best : best + 1, k]
        low, high = intervals(difference, generator(seed, "leaders", metric), draws)
        apart = (low > 0) | (high < 0) | np.isnan(ranked)
        tied = [node for j, node in enumerate(table.nodes) if j != best and not apart[j]]
        found[metric] = (table.nodes[best], *tied)
    return found


def _sign(metric: str) -> int:
    return 1 if described(metric).better == "higher" else -1


def _compared(difference: NDArray[np.float64], sign: int) -> dict[str, Any]:
    d = difference[~np.isnan(difference)]
    wilcoxon_p, ttest_p, reason = _p_values(d)
    return {
        "n": len(d),
        "mean_difference": float(d.mean()) if len(d) else np.nan,
        "wilcoxon_p": wilcoxon_p,
        "ttest_p": ttest_p,
        "n_better": int((sign * d > 0).sum()),
        "n_worse": int((sign * d < 0).sum()),
        "reason": reason,
    }


def _p_values(d: NDArray[np.float64]) -> tuple[float, float, str]:
    """Return Wilcoxon's and Student's p and the reason where one is NaN."""
    from scipy import stats

    if len(d) < 2:
        return np.nan, np.nan, f"{len(d)} common utterances, a test needs 2"
    if not d.any():
        return np.nan, np.nan, "all differences are zero"
    with warnings.catch_warnings():
        # Ties among few differences: SciPy says that it falls back to the normal approximation.
        warnings.simplefilter("ignore")
        wilcoxon_p = float(stats.wilcoxon(d).pvalue)
        if np.ptp(d) == 0:
            return wilcoxon_p, np.nan, "all differences are equal: no t test"
        return wilcoxon_p, float(stats.ttest_1samp(d, 0.0).pvalue), ""


def holm_adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Holm's step-down adjusted p-values; NaN stays NaN and doesn't count as a test.

    >>> holm_adjusted(np.array([0.01, 0.04, np.nan, 0.03])).round(2).tolist()
    [0.03, 0.06, nan, 0.06]
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p, kind="stable")[: int((~np.isnan(p)).sum())]  # NaN sorts last
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
