"""Which node is best by each metric, which can't be told apart, and which metrics agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.report.statistics import (
    DRAWS,
    Cube,
    common_means,
    cube,
    ends,
    generator,
    intervals,
    resampled_means,
)
from melmill.stages.score.metric import metric as metric_of

RANK_COLUMNS = ("metric", "node", "rank", "rank_low", "rank_high", "mean_common", "n_common", "is_best", "is_tied")
CORRELATION_COLUMNS = ("metric", "other", "over_utterances", "over_nodes", "n_nodes")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Hold the order of nodes by one metric.

    Parameters
    ----------
    metric : str
    nodes : tuple of str
        Those that have values, best first by their mean over the utterances that all have.
    means : ndarray of float64, shape (n_nodes,)
        These means.
    n_common : int
        Number of these utterances.
    beats : ndarray of bool, shape (n_nodes, n_nodes)
        Whether a node (row) is better than another (column): the 95 % interval of their difference,
        utterance by utterance, lies on the better side of 0.
    """

    metric: str
    nodes: tuple[str, ...]
    means: NDArray[np.float64]
    n_common: int
    beats: NDArray[np.bool_]

    @property
    def tied(self) -> tuple[str, ...]:
        """Nodes that can't be told from the best."""
        apart = self.beats[0] | self.beats[:, 0]
        return tuple(node for node, told in zip(self.nodes[1:], apart[1:], strict=True) if not told)

    @property
    def ranks(self) -> list[tuple[int, int]]:
        """First and last rank that a node may have: how many are better, and how many are not worse."""
        better, worse = self.beats.sum(axis=0), self.beats.sum(axis=1)
        return [(1 + int(b), len(self.nodes) - int(w)) for b, w in zip(better, worse, strict=True)]


def standings(scores: pd.DataFrame | Cube, *, draws: int = DRAWS, seed: int = 0) -> list[Standing]:
    """Return the order of the nodes by each metric, in the order of the metrics.

    A metric for which fewer than two nodes have values in common is left out.

    Parameters
    ----------
    scores : DataFrame or Cube
        One row per utterance and node.
    draws, seed : int
        Of the bootstrap over utterances.
    """
    table = cube(scores)
    common, means = common_means(table.values)
    rated = {k: np.flatnonzero(~np.isnan(means[:, k])) for k in range(len(table.metrics))}
    rated = {k: nodes for k, nodes in rated.items() if len(nodes) > 1}
    drawn = _means_of_draws(table, {k: nodes for k, nodes in rated.items() if common[:, k].all()}, draws, seed)
    found = []
    for k, nodes in rated.items():
        metric = table.metrics[k]
        sign = metric_of(metric).sign
        nodes = nodes[np.argsort(-sign * means[nodes, k], kind="stable")]
        pairs = list(itertools.combinations(range(len(nodes)), 2))
        left, right = (nodes[[pair[side] for pair in pairs]] for side in (0, 1))
        if k in drawn:
            low, high = ends(drawn[k][:, left] - drawn[k][:, right])
        else:
            differences = table.values[:, left, k] - table.values[:, right, k]
            low, high = intervals(differences, generator(seed, "ranks", metric), draws)
        beats = np.zeros((len(nodes), len(nodes)), dtype=bool)
        for (i, j), a, b in zip(pairs, low, high, strict=True):
            beats[i, j], beats[j, i] = (a > 0, b < 0) if sign > 0 else (b < 0, a > 0)
        found.append(
            Standing(
                metric=metric,
                nodes=tuple(table.nodes[i] for i in nodes),
                means=means[nodes, k],
                n_common=int(common[:, k].sum()),
                beats=beats,
            )
        )
    return found


def _means_of_draws(
    table: Cube, complete: Mapping[int, NDArray[np.intp]], draws: int, seed: int
) -> dict[int, NDArray[np.float64]]:
    """Return the mean of each draw ``(draws, n_nodes)`` by metric, of those that have all values.

    All of them share the draws, so that drawing is done once.
    """
    columns = [(k, node) for k, nodes in complete.items() for node in nodes]
    if not columns:
        return {}
    values = np.stack([table.values[:, node, k] for k, node in columns], axis=1)
    means = resampled_means(values, ~np.isnan(values), generator(seed, "ranks"), draws)
    made: dict[int, NDArray[np.float64]] = {}
    for at, (k, node) in enumerate(columns):
        made.setdefault(k, np.full((draws, len(table.nodes)), np.nan))[:, node] = means[:, at]
    return made


def leaders(scores: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Return for each metric the best node, then the nodes that can't be told from it.

    The best node has the best mean over the utterances that all nodes have in common. Another node
    can't be told from it where the 95 % interval of their paired difference holds 0, or where there
    is no interval. A metric for which fewer than two nodes have values is left out.
    """
    return {one.metric: (one.nodes[0], *one.tied) for one in standings(scores, draws=draws, seed=seed)}


def ranks(found: Sequence[Standing]) -> pd.DataFrame:
    """Return a row per metric and node, best first.

    ``rank`` counts by the mean over the ``n_common`` utterances that all nodes have. ``rank_low``
    and ``rank_high`` are the ranks between which a node can't be told from others: one more than
    the nodes that beat it, and the number of nodes less those that it beats. ``is_tied`` says that
    it can't be told from the best.
    """
    rows = [
        (one.metric, node, place + 1, low, high, one.means[place], one.n_common, place == 0, node in one.tied)
        for one in found
        for place, (node, (low, high)) in enumerate(zip(one.nodes, one.ranks, strict=True))
    ]
    return pd.DataFrame(rows, columns=list(RANK_COLUMNS))


def correlations(scores: pd.DataFrame | Cube) -> pd.DataFrame:
    """Return how far each two metrics agree, by Spearman's rank correlation.

    Values are turned so that more is better in all: 1 is agreement. ``over_utterances`` says whether
    they agree on which utterances came out well, within a node, as the mean over the nodes.
    ``over_nodes`` says whether they put the nodes in the same order, by the means over utterances
    that all ``n_nodes`` have. It takes three nodes. A number that can't be computed is NaN.
    """
    table = cube(scores)
    n = len(table.metrics)
    within = np.full((len(table.nodes), n, n), np.nan)
    for j in range(len(table.nodes)):
        within[j] = _rank_correlation(table.values[:, j])
    counted = ~np.isnan(within)
    over_utterances = np.divide(
        np.nansum(within, axis=0), counted.sum(axis=0), out=np.full((n, n), np.nan), where=counted.any(axis=0)
    )
    means = common_means(table.values)[1]
    over_nodes = _rank_correlation(means)
    present = (~np.isnan(means)).astype(np.int64)
    both = present.T @ present
    signs = [metric_of(name).sign for name in table.metrics]
    rows = [
        (
            table.metrics[k], table.metrics[m], signs[k] * signs[m] * over_utterances[k, m],
            signs[k] * signs[m] * over_nodes[k, m] if both[k, m] >= 3 else np.nan, int(both[k, m]),
        )
        for k, m in itertools.combinations(range(n), 2)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(CORRELATION_COLUMNS))


def _rank_correlation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlation between columns, each two over the rows where both have values.

    Ranks are those among all values of a column.
    """
    from scipy.stats import rankdata

    present = ~np.isnan(values)
    ranked = np.zeros(values.shape)
    for k in range(values.shape[1]):
        of_column = rankdata(values[present[:, k], k])
        # Centred and scaled, so that sums of squares stay exact enough for any number of rows.
        ranked[present[:, k], k] = (of_column - of_column.mean()) / max(1, of_column.size) if of_column.size else 0.0
    counts = present.T.astype(np.float64) @ present
    totals = ranked.T @ present
    with np.errstate(invalid="ignore", divide="ignore"):
        # Over the rows of both: column k's sums stand in [k, m].
        covariance = ranked.T @ ranked / counts - totals / counts * (totals.T / counts)
        variance = (ranked**2).T @ present / counts - (totals / counts) ** 2
        made = covariance / np.sqrt(variance * variance.T)
    flat = (variance < 1e-12) | (variance.T < 1e-12) | (counts < 3)
    made = np.where(flat, np.nan, np.clip(made, -1.0, 1.0))
    return np.asarray(made)
