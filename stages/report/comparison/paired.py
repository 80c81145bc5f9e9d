"""Nodes compared with a baseline, utterance by utterance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.report.comparison.differences import holm_adjusted, p_values
from melmill.stages.report.statistics import DRAWS, Cube, cube, generator, intervals
from melmill.stages.score.metric import metric as metric_of

PAIRED_COLUMNS = (
    *("metric", "node", "baseline", "n", "mean_difference", "ci_low", "ci_high", "wilcoxon_p", "wilcoxon_p_holm"),
    *("ttest_p", "n_better", "n_worse", "reason"),
)


def paired(scores: pd.DataFrame | Cube, baseline: str, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
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
        A row per metric and other node, over the ``n`` utterances where both have a value.
        ``mean_difference`` is node minus baseline in the metric's unit, with its 95 % interval.
        ``wilcoxon_p`` and ``ttest_p`` are the two-sided p of Wilcoxon's signed-rank test and of the
        paired t test. ``wilcoxon_p_holm`` is corrected for all tests of the table (Holm 1979).
        ``n_better`` and ``n_worse`` count utterances, in the metric's own direction. A number that
        can't be computed is NaN, and ``reason`` says why.

    Raises
    ------
    ParameterError
        `baseline` is no node of the scores.
    """
    table = cube(scores)
    if baseline not in table.nodes:
        names = ", ".join(table.nodes)
        raise ParameterError("baseline", f"must be a scored node, got {baseline!r} (scored: {names})")
    base = table.nodes.index(baseline)
    difference = table.values - table.values[:, base : base + 1]
    flat = difference.reshape(len(difference), len(table.nodes) * len(table.metrics))
    ends = intervals(flat, generator(seed, "paired", baseline), draws)
    low, high = (end.reshape(difference.shape[1:]) for end in ends)
    asked = np.asarray(table.asked.any(axis=0))
    rows = []
    for k, metric in enumerate(table.metrics):
        sign = metric_of(metric).sign
        for j, node in enumerate(table.nodes):
            if j == base or not (asked[j, k] and asked[base, k]):
                continue
            d = difference[~np.isnan(difference[:, j, k]), j, k]
            wilcoxon_p, ttest_p, reason = p_values(d)
            rows.append(
                {
                    "metric": metric,
                    "node": node,
                    "baseline": baseline,
                    "n": len(d),
                    "mean_difference": float(d.mean()) if len(d) else np.nan,
                    "ci_low": low[j, k],
                    "ci_high": high[j, k],
                    "wilcoxon_p": wilcoxon_p,
                    "ttest_p": ttest_p,
                    "n_better": int((sign * d > 0).sum()),
                    "n_worse": int((sign * d < 0).sum()),
                    "reason": reason,
                }
            )
    frame = pd.DataFrame(rows, columns=list(PAIRED_COLUMNS))
    frame["wilcoxon_p_holm"] = holm_adjusted(frame["wilcoxon_p"].to_numpy(dtype=np.float64))
    return frame
