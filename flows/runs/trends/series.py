"""The scores of runs as series: one for each metric of each scored node of each store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from melmill.flows.runs.trends.changes import change_points
from melmill.storage.runs import RunRecord, ScoreSummary


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run's mean in a series.

    Parameters
    ----------
    run : RunRecord
    score : ScoreSummary
    key : str
        Of the score node. Runs with equal keys and corpora repeat a measurement.
    is_repeat : bool
        Whether the last point before it is the same measurement.
    is_change : bool
        Whether the level of the series changes here.
    """

    run: RunRecord
    score: ScoreSummary
    key: str
    is_repeat: bool = False
    is_change: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """The means of one metric of one scored node over the runs of a store, the oldest first."""

    store: str
    metric: str
    scored: str
    points: tuple[Point, ...]


def series_of(runs: Iterable[RunRecord]) -> list[Series]:
    """Return the series of runs, by store, then by metric, then by scored node, as they first occur.

    Parameters
    ----------
    runs : iterable of RunRecord
        The oldest first, of one store or several.
    """
    points: dict[tuple[str, str, str], list[Point]] = {}
    for run in runs:
        for score in () if run.outcome is None else run.outcome.scores:
            if score.mean is not None:
                key = run.manifest.nodes[score.node].key if score.node in run.manifest.nodes else ""
                series = points.setdefault((run.store, score.metric, score.scored), [])
                if series and series[-1].run is run:
                    continue  # of several score nodes the first counts, as in comparisons
                series.append(Point(run=run, score=score, key=key, is_repeat=_repeats(series, score, key)))
    stores = list(dict.fromkeys(store for store, _, _ in points))
    metrics = list(dict.fromkeys(metric for _, metric, _ in points))
    ordered = sorted(points, key=lambda one: (stores.index(one[0]), metrics.index(one[1])))
    return [
        Series(store=store, metric=metric, scored=scored, points=_marked(points[store, metric, scored]))
        for store, metric, scored in ordered
    ]


def _repeats(series: Sequence[Point], score: ScoreSummary, key: str) -> bool:
    return bool(series) and (series[-1].key, series[-1].score.catalogue) == (key, score.catalogue)


def _marked(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return points with the changes of their level. A measurement that is repeated counts once."""
    measured = [at for at, point in enumerate(points) if not point.is_repeat]
    means = [points[at].score.mean or 0.0 for at in measured]
    errors = [(points[at].score.std or 0.0) / math.sqrt(points[at].score.n) for at in measured]
    changes = {measured[at] for at in change_points(means, errors)}
    return tuple(
        Point(run=point.run, score=point.score, key=point.key, is_repeat=point.is_repeat, is_change=at in changes)
        for at, point in enumerate(points)
    )


def version_changes(before: RunRecord | None, run: RunRecord) -> list[str]:
    """Return the versions that changed since a run before, a text each; none where one is not known."""
    if before is None or before.facts is None or run.facts is None:
        return []
    old, new = before.facts.versions, run.facts.versions
    return [
        f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}"
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    ]
