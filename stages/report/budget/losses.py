"""How much of the loss each step takes, recording by recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.report.statistics import OK, Cube, cube, generator, intervals, statuses
from melmill.stages.score.metric import metric as metric_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """Describe a part of the budget: what differs between two nodes.

    Parameters
    ----------
    role : str
        Field of the stage that names the node.
    before : str
        Role of the node that has everything but this loss.
    title, says : str
    """

    role: str
    before: str
    title: str
    says: str


PARTS = (
    Part(
        role="bank", before="base", title="The mel bank",
        says="The bands are undone by non-negative least squares. The phase is that of the recording.",
    ),
    Part(
        role="floor", before="bank", title="The floor of the log",
        says="The same from the mel as networks get it: a log of what lies above a floor.",
    ),
    Part(
        role="inverted", before="floor", title="The lost phase",
        says="The best inversion here, which must find the phase, and may improve the magnitude.",
    ),
    Part(
        role="plain", before="inverted", title="The algorithm",
        says="The method of 1984 in place of the best one.",
    ),
    Part(
        role="vocoder", before="floor", title="Or: a vocoder",
        says="A neural vocoder in place of the inversion, from the same recordings' mel.",
    ),
    Part(
        role="retrieved", before="base", title="Or: the phase alone",
        says="The magnitude of the recording, and a phase that is retrieved from it.",
    ),
    Part(
        role="kept_phase", before="inverted", title="With the true phase again",
        says="The magnitude of the best inversion with the phase of the recording. A negative loss is a gain.",
    ),
    Part(
        role="kept_magnitude", before="inverted", title="With the true magnitude again",
        says="The phase of the best inversion with the magnitude of the recording. A negative loss is a gain.",
    ),
)  # fmt: skip
"""The parts, in the order of the page."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Hold one part's scores and what it costs, by metric.

    ``means`` and ``losses`` are by column of the metric. A loss is ``(mean, low, high)`` with a 95 %
    interval, positive where the score got worse.
    """

    part: Part
    node: str
    n: int
    means: Mapping[str, float]
    losses: Mapping[str, tuple[float, float, float]]


def losses(scores: pd.DataFrame, roles: Mapping[str, str], seed: int = 0) -> list[Loss]:
    """Return what each part costs, over the recordings that both of its nodes have.

    Parameters
    ----------
    scores : DataFrame
        As in `melmill.stages.report.contract.ReportData`.
    roles : mapping of str to str
        Node by role. Parts whose nodes are not scored are left out.
    seed : int
        Of the bootstrap.
    """
    table = cube(scores)
    found = []
    for part in PARTS:
        nodes = [roles.get(part.before), roles.get(part.role)]
        if any(node not in table.nodes for node in nodes):
            continue
        before, after = (_of(table, str(node)) for node in nodes)
        signs = np.array([metric_of(name).sign for name in table.metrics], dtype=np.float64)
        lost = (before - after) * signs
        low, high = intervals(lost, generator(seed, "budget", part.role))
        found.append(
            Loss(
                part=part,
                node=str(nodes[1]),
                n=int((~np.isnan(lost)).any(axis=1).sum()),
                means={name: _mean(after[:, k]) for k, name in enumerate(table.metrics)},
                losses={
                    name: (_mean(lost[:, k]), float(low[k]), float(high[k])) for k, name in enumerate(table.metrics)
                },
            )
        )
    return found


def _of(table: Cube, node: str) -> NDArray[np.float64]:
    return table.values[:, list(table.nodes).index(node), :]


def _mean(values: NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Hold pairs of error and quality of each node, and how far they agree.

    ``over_all`` is Spearman's correlation over all points, ``within`` the mean over nodes of that
    over their recordings. Both are turned so that 1 is agreement.
    """

    points: Mapping[str, NDArray[np.float64]]  # (n, 2)
    over_all: float
    within: float


def scatter(scores: pd.DataFrame, error: str, quality: str, nodes: Sequence[str]) -> Scatter:
    """Return the points of two metrics of some nodes, by their columns."""
    import scipy.stats

    sign = metric_of(error).sign * metric_of(quality).sign
    points: dict[str, NDArray[np.float64]] = {}
    for node in nodes:
        rows = scores[scores["node"] == node]
        there = (statuses(rows, error) == OK) & (statuses(rows, quality) == OK)
        points[node] = rows.loc[there, [error, quality]].to_numpy(dtype=np.float64)

    def agreement(both: NDArray[np.float64]) -> float:
        if len(both) < 3 or np.ptp(both[:, 0]) == 0 or np.ptp(both[:, 1]) == 0:
            return float("nan")
        return sign * float(scipy.stats.spearmanr(both[:, 0], both[:, 1]).statistic)

    inside = [value for value in map(agreement, points.values()) if not np.isnan(value)]
    return Scatter(
        points=points,
        over_all=agreement(np.concatenate(list(points.values()))) if points else float("nan"),
        within=float(np.mean(inside)) if inside else float("nan"),
    )
