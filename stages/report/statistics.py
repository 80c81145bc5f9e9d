"""Statistics of scores: means with intervals, counts of failures, and averaged traces.

A measurement that failed has no value here, and enters no mean.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.numeric.errors import StageError
from melmill.stages.score.metric import POOLED, status_column, weight_column
from melmill.stages.score.status import Status

OK = Status.OK.value
ALL = "all"
_COLUMN_OF = {"subset": "subset", "speaker": "speaker_id"}


@dataclass(frozen=True, kw_only=True)
class Cube:
    """Hold the scores of a run as an array over utterances, nodes and metrics.

    Parameters
    ----------
    utterances : DataFrame
        ``utterance_id, subset, speaker_id``, one row per utterance, in the order of the scores.
    nodes, metrics : tuple of str
        Names along the other axes.
    values : ndarray of float64, shape (n_utterances, n_nodes, n_metrics)
        NaN unless the status is ``ok`` and the value is finite.
    asked : ndarray of bool, shape (n_utterances, n_nodes, n_metrics)
        Where the metric was asked for: the row is there, and so is its status.
    weights : mapping of str to ndarray of float64, shape (n_utterances, n_nodes)
        Of metrics with a pooled value: how much each value counts in it, 0 where there is none.
    """

    utterances: pd.DataFrame
    nodes: tuple[str, ...]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    asked: NDArray[np.bool_]
    weights: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Name a group of utterances: `level` is ``all``, ``subset`` or ``speaker``."""

    level: str
    subset: str
    speaker_id: str
    rows: NDArray[np.intp]


def metric_columns(scores: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns of metrics, which have a ``status_`` column beside them.

    >>> metric_columns(pd.DataFrame(columns=["node", "duration_s", "estoi", "status_estoi"]))
    ('estoi',)
    """
    return tuple(name for name in scores.columns if status_column(name) in scores.columns)


def statuses(scores: pd.DataFrame, metric: str) -> pd.Series[str]:
    """Return the status of every row; ``ok`` without a finite value reads ``non_finite``."""
    status = scores[status_column(metric)].astype(object)
    broken = (status == OK).to_numpy(dtype=bool, na_value=False) & ~np.isfinite(_floats(scores[metric]))
    return status.mask(broken, Status.NON_FINITE.value)


def cube(scores: pd.DataFrame | Cube) -> Cube:
    """Arrange a table of scores, one row per utterance and node, as a `Cube`; a cube stays as it is.

    Raises
    ------
    StageError
        An utterance has two rows for one node.
    """
    if isinstance(scores, Cube):
        return scores
    row, ids = pd.factorize(scores["utterance_id"])
    column, nodes = pd.factorize(scores["node"])
    twice = pd.DataFrame({"row": row, "column": column}).duplicated().to_numpy()
    if twice.any():
        first = scores.loc[twice, ["utterance_id", "node"]].iloc[0]
        raise StageError(
            f"scores: utterance {first['utterance_id']!r} has several rows for node {first['node']!r}, expected one; "
            "join the metrics of one node into one row"
        )
    metrics = metric_columns(scores)
    values = np.full((len(ids), len(nodes), len(metrics)), np.nan)
    asked = np.zeros(values.shape, dtype=bool)
    weights: dict[str, NDArray[np.float64]] = {}
    for k, metric in enumerate(metrics):
        status = statuses(scores, metric)
        counts = (status == OK).to_numpy(dtype=bool, na_value=False)
        values[row, column, k] = np.where(counts, _floats(scores[metric]), np.nan)
        asked[row, column, k] = status.notna().to_numpy()
        weight = weight_column(metric)
        if weight in scores.columns:
            weights[metric] = np.zeros(values.shape[:2])
            weights[metric][row, column] = np.where(counts, np.nan_to_num(_floats(scores[weight])), 0.0)
    utterances = scores[["utterance_id", "subset", "speaker_id"]].drop_duplicates("utterance_id", ignore_index=True)
    return Cube(utterances=utterances, nodes=tuple(nodes), metrics=metrics, values=values, asked=asked, weights=weights)


def groups(utterances: pd.DataFrame, by: Sequence[str]) -> list[Group]:
    """Return all utterances as one group, then the groups of each level of `by`, outer first.

    ``("subset", "speaker")`` gives all, every subset, and every speaker of every subset.
    """
    result = [Group(level=ALL, subset=ALL, speaker_id=ALL, rows=np.arange(len(utterances)))]
    for depth in range(1, len(by) + 1):
        columns = [_COLUMN_OF[name] for name in by[:depth]]
        for key, rows in utterances.groupby(columns, sort=True, dropna=False, observed=True).indices.items():
            names = dict(zip(columns, key if isinstance(key, tuple) else (key,), strict=True))
            result.append(
                Group(
                    level=by[depth - 1],
                    subset=str(names.get("subset", ALL)),
                    speaker_id=str(names.get("speaker_id", ALL)),
                    rows=np.sort(rows),
                )
            )
    return result


def _floats(column: pd.Series[float]) -> NDArray[np.float64]:
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


DRAWS = 2000
LEVEL = 0.95
# Bounds the table of counts (draws x utterances, float64) to 32 MB whatever the corpus.
_CELLS = 4_000_000
# More rows than these are drawn in so many groups. That moves an interval by 1 % of its width.
MOST_DRAWN = 20_000
_GROUPS = 5_000


def generator(seed: int, *labels: str) -> np.random.Generator:
    """Return the random generator of a group, from the seed and the group's name alone."""
    return np.random.default_rng([seed, zlib.crc32("\x1f".join(labels).encode())])


def intervals(
    values: NDArray[np.float64], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95 % percentile interval of each column's mean.

    Each draw takes as many utterances as there are, with replacement, and the same ones for every
    column. A column's mean is over the drawn utterances that have a value.

    Parameters
    ----------
    values : ndarray of float64, shape (n_utterances, n_columns)
        NaN where an utterance has no value.
    rng : Generator
    draws : int

    Returns
    -------
    low, high : ndarray of float64, shape (n_columns,)
        NaN for a column with fewer than two values.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    present = ~np.isnan(values)
    low, high = np.full((2, values.shape[1]), np.nan)
    usable = present.sum(axis=0) >= 2
    if usable.any():
        means = resampled_means(values[:, usable], present[:, usable], rng, draws)
        low[usable], high[usable] = ends(means)
    return low, high


def ends(means: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95 % percentile interval of each column ``(n_draws, n_columns)``."""
    tail = (1 - LEVEL) / 2
    quantile = np.nanquantile if np.isnan(means).any() else np.quantile
    low, high = quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def resampled_means(
    values: NDArray[np.float64], present: NDArray[np.bool_], rng: np.random.Generator, draws: int
) -> NDArray[np.float64]:
    """Return the mean of each column in every draw of rows with replacement, ``(draws, n_columns)``.

    Beyond `MOST_DRAWN` rows, groups of rows at random are drawn in place of rows.

    Parameters
    ----------
    values : ndarray of float64, shape (n_rows, n_columns)
        Each column has a value.
    present : ndarray of bool, shape (n_rows, n_columns)
        Where there is one.
    """
    # Offsets from the column's mean keep sums small, and keep a constant column exact.
    centre = np.nanmean(values, axis=0)
    offsets, counts = np.where(present, values - centre, 0.0), present.astype(np.float64)
    complete = bool(present.all())
    if len(values) > MOST_DRAWN:
        # Groups of rows at random, whose sums are drawn in place of the rows.
        order = rng.permutation(len(values))
        starts = np.linspace(0, len(values), _GROUPS, endpoint=False).astype(np.intp)
        offsets, counts = (np.add.reduceat(table[order], starts, axis=0) for table in (offsets, counts))
        complete = False
    n = len(offsets)
    means = np.empty((draws, values.shape[1]))
    block = max(1, _CELLS // n)
    for start in range(0, draws, block):
        drawn = rng.integers(0, n, size=(min(block, draws - start), n), dtype=np.int32)
        # How often each row occurs in every draw, (n_draws, n). Each draw counts in its own range.
        apart = drawn + np.arange(len(drawn), dtype=np.int64)[:, None] * n
        times = np.bincount(apart.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)
        total = np.full((1, 1), float(n)) if complete else times @ counts
        with np.errstate(invalid="ignore"):  # a draw without any value of a column has no mean
            means[start : start + len(times)] = centre + times @ offsets / total
    return means


FAILURE_COLUMNS = ("metric", "node", "status", "n")


def summary(
    scores: pd.DataFrame | Cube, *, by: Sequence[str] = ("subset", "speaker"), draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Summarise every metric of every node over all utterances and over each group.

    Parameters
    ----------
    scores : DataFrame or Cube
        One row per utterance and node.
    by : sequence of str
        ``subset`` and ``speaker``, nested in this order.
    draws, seed : int
        Of the bootstrap over utterances.

    Returns
    -------
    DataFrame
        Rows are named by ``metric, node, level, subset, speaker_id``. ``level`` is ``all``,
        ``subset`` or ``speaker``; a name that a level does not distinguish reads ``all``. ``n``
        utterances have a value, and ``n_failed`` have none though it was asked for. ``mean,
        ci_low, ci_high`` (95 %, percentile bootstrap), ``median`` and ``std`` (n - 1) are over the
        ``n``. ``mean_common`` is the mean over the ``n_common`` utterances for which all nodes have
        a value; a node without any value does not count. Where ``uneven``, the nodes' means are
        over different utterances, and only ``mean_common`` compares them.
    """
    table = cube(scores)
    parts = [_of_group(table, group, draws, seed) for group in groups(table.utterances, by)]
    return pd.concat(parts, ignore_index=True)


def pooled(
    scores: pd.DataFrame | Cube, *, by: Sequence[str] = ("subset", "speaker"), draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Summarise the pooled values of metrics that have one, in the columns of `summary`.

    Such a value is the mean of an utterance's values, weighted by what the metric counts: of an F1
    by its voiced frames, which gives the F1 of all frames together. Its interval is that of the
    same bootstrap over utterances. The metric is called ``<metric>_pooled``. It has no median and no
    standard deviation.
    """
    table = cube(scores)
    parts = [
        _pooled_of(table, metric, group, draws, seed)
        for metric in table.weights
        for group in groups(table.utterances, by)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _pooled_of(table: Cube, metric: str, group: Group, draws: int, seed: int) -> pd.DataFrame:
    k = table.metrics.index(metric)
    one = replace(table, metrics=(metric,), values=table.values[..., k : k + 1], asked=table.asked[..., k : k + 1])
    # Everything but the values and their intervals is that of the mean.
    frame = _of_group(one, group, 1, seed)
    values, weights = one.values[group.rows, :, 0], table.weights[metric][group.rows]
    weights = np.where(np.isnan(values), 0.0, weights)
    products = np.where(weights > 0, np.nan_to_num(values) * weights, 0.0)
    shared = common_means(values[..., np.newaxis])[0][:, 0]
    of = [table.nodes.index(node) for node in frame["node"]]
    low, high = _ratio_intervals(
        products, weights, generator(seed, POOLED, group.level, group.subset, group.speaker_id), draws
    )
    return frame.assign(
        metric=f"{metric}{POOLED}",
        mean=_ratio(products.sum(axis=0), weights.sum(axis=0))[of],
        ci_low=low[of],
        ci_high=high[of],
        median=np.nan,
        std=np.nan,
        mean_common=_ratio(products[shared].sum(axis=0), weights[shared].sum(axis=0))[of],
    )


def _ratio_intervals(
    products: NDArray[np.float64], weights: NDArray[np.float64], rng: np.random.Generator, draws: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the 95 % interval of each column's weighted mean; NaN with fewer than two values."""
    low, high = np.full((2, products.shape[1]), np.nan)
    usable = (weights > 0).sum(axis=0) >= 2
    if usable.any():
        both = np.hstack([products[:, usable], weights[:, usable]])
        drawn = resampled_means(both, np.ones(both.shape, dtype=bool), rng, draws)
        n = int(usable.sum())
        low[usable], high[usable] = ends(_ratio(drawn[:, :n], drawn[:, n:]))
    return low, high


def _ratio(total: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.full(total.shape, np.nan)
    np.divide(total, weight, out=ratio, where=weight > 0)
    return ratio


def measured(summary: pd.DataFrame) -> list[str]:
    """Return the metrics of a summary that have a value for some node, in the order asked for."""
    with_values = set(summary.loc[summary["n"] > 0, "metric"])
    return [metric for metric in dict.fromkeys(summary["metric"]) if metric in with_values]


def _of_group(table: Cube, group: Group, draws: int, seed: int) -> pd.DataFrame:
    values, asked = table.values[group.rows], table.asked[group.rows]
    flat = values.reshape(len(values), len(table.nodes) * len(table.metrics))
    n = (~np.isnan(flat)).sum(axis=0)
    low, high = intervals(flat, generator(seed, group.level, group.subset, group.speaker_id), draws)
    common, mean_common = common_means(values)
    n_common = np.broadcast_to(common.sum(axis=0), mean_common.shape)
    uneven = np.any(np.sum(~np.isnan(values), axis=0) > n_common, axis=0)
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
            "std": _moment(lambda x, axis: np.asarray(np.nanstd(x, axis=axis, ddof=1)), flat, n >= 2),
            "n_common": n_common.ravel(),
            "mean_common": mean_common.ravel(),
            "uneven": np.broadcast_to(uneven, mean_common.shape).ravel(),
        }
    )
    return frame.loc[np.flatnonzero(asked.reshape(flat.shape).any(axis=0))]


def _moment(
    function: Callable[..., NDArray[np.float64]], flat: NDArray[np.float64], enough: NDArray[np.bool_]
) -> NDArray[np.float64]:
    out = np.full(flat.shape[1], np.nan)
    if enough.any():
        out[enough] = function(flat[:, enough], axis=0)
    return out


def common_means(values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Average over the utterances that have a value for every node.

    A node without any value does not count.

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
    """Count measurements without a value: ``metric, node, status, n``, in the scores' order."""
    parts = []
    for metric in metric_columns(scores):
        status = statuses(scores, metric)
        failed = pd.DataFrame({"metric": metric, "node": scores["node"], "status": status})
        failed = failed.loc[status.notna() & (status != OK)]
        parts.append(failed.groupby(["metric", "node", "status"], sort=False).size().rename("n").reset_index())
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(FAILURE_COLUMNS))


def convergence(traces: pd.DataFrame) -> pd.DataFrame:
    """Summarise the SCM (dB) over utterances after every iteration of every node.

    Returns
    -------
    DataFrame
        ``node, iteration, n, mean, first_quartile, third_quartile`` of the finite values. Nodes are
        in order of appearance.
    """
    finite = traces[np.isfinite(traces["scm_db"].to_numpy(dtype=np.float64, na_value=np.nan))]
    by_iteration = finite.groupby(["node", "iteration"], sort=True)["scm_db"]
    curves: pd.DataFrame = by_iteration.agg(n="size", mean="mean").reset_index()
    curves["first_quartile"] = by_iteration.quantile(0.25).to_numpy()
    curves["third_quartile"] = by_iteration.quantile(0.75).to_numpy()
    order = {node: at for at, node in enumerate(dict.fromkeys(finite["node"]))}
    curves["place"] = [order[node] for node in curves["node"]]
    return curves.sort_values("place", kind="stable", ignore_index=True).drop(columns="place")
