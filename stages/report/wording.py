"""How the report writes numbers, intervals, p-values and statuses."""

from __future__ import annotations

import math

import pandas as pd

from melmill.stages.score.registry import metric as described


def decimals(metric: str) -> int:
    """Return how many decimals of a metric are worth printing: its interval is rarely narrower.

    >>> decimals("estoi"), decimals("scm_db")
    (3, 2)
    """
    return 3 if described(metric).unit in ("", "Np") else 2


def number(value: float, digits: int) -> str:
    """Return `value` with `digits` decimals, a dash where there is none.

    >>> number(-0.001, 2), number(float("nan"), 2)
    ('0.00', '–')
    """
    return "–" if math.isnan(value) else f"{value:z.{digits}f}"


def plus_minus(mean: float, low: float, high: float, digits: int) -> str:
    """Return a mean and half its interval; the mean alone where there is no interval.

    >>> plus_minus(3.214, 3.19, 3.25, 2)
    '3.21 ± 0.03'
    """
    if math.isnan(mean) or math.isnan(low):
        return number(mean, digits)
    return f"{number(mean, digits)} ± {number((high - low) / 2, digits)}"


def p_value(p: float) -> str:
    """Return a p-value as a reader can use it.

    >>> p_value(0.0312), p_value(3e-9)
    ('0.031', '< 0.001')
    """
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def status(name: str) -> str:
    """Return a status as words.

    >>> status("not_installed")
    'not installed'
    """
    return name.replace("_", " ")


def why_none(failed: pd.DataFrame, metric: str, node: str) -> str:
    """Return the statuses of a metric that has no value for a node, the most frequent first."""
    here = failed[(failed["metric"] == metric) & (failed["node"] == node)]
    return ", ".join(status(name) for name in here.sort_values("n", ascending=False, kind="stable")["status"])
