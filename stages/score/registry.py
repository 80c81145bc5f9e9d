"""All metrics by name: melmill's own, and those of other packages."""

from __future__ import annotations

from typing import TypeGuard

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.plugins import Registry
from melmill.stages.score.metric import Metric


def _is_metric(value: object) -> TypeGuard[Metric]:
    return isinstance(value, Metric)


METRICS: Registry[Metric] = Registry(
    "metric",
    package="melmill.stages.score.metrics",
    group="melmill.metrics",
    is_one=_is_metric,
    name_of=lambda metric: metric.name,
    order=lambda metric: (metric.order, metric.name),
)
"""All metrics by name, in the order of tables."""


def metric(name: str) -> Metric:
    """Return the metric that pipeline.yaml calls `name`, or whose column it is.

    Raises
    ------
    ParameterError
        There is none; the message names the nearest.

    Examples
    --------
    >>> metric("scm_db").name
    'scm'
    """
    if name in METRICS:
        return METRICS[name]
    for known in METRICS.values():
        if known.column == name:
            return known
    raise ParameterError("metrics", f"has {METRICS.unknown(name)}")
