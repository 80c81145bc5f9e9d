"""The rules of a gate: what a run must hold, each in one entry of a list."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from melmill.stages.contract import OneOf
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.report.comparison.evaluation import SLICES, check_slices, nearest
from melmill.stages.score.metric import METRICS, Metric
from melmill.stages.score.metric import metric as metric_of

Unsure = Literal["pass", "trip"]

OF_METRIC = ("at_least", "at_most", "not_worse_than")
OF_RUN = ("failed_share", "quarantined_share", "throughput", "disk")
GROUPED = (*OF_METRIC, "failed_share")

_SHARE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*%")
_BYTES = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kKMGT]i?)?B?")


def _metric_names() -> list[str]:
    return list(METRICS)


def _slice_names() -> list[str]:
    return list(SLICES)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a gate: what is limited, of which node, and the limit.

    Parameters
    ----------
    metric : str or None
        Metric that `at_least`, `at_most` and `not_worse_than` are about. With `failed_share`: count
        its scores alone.
    node : str or None
        Scored node. None: each of them. `quarantined_share`, `throughput` and `disk` take any node.
    by : tuple of str
        Apply the rule to each group of utterances: ``subset``, ``speaker``, ``sex``, ``chapter``.
        Each name groups for itself. Without any, the rule is about all utterances.
    at_least, at_most : float or None
        Limit of the mean over utterances, in the metric's unit.
    not_worse_than : float or None
        Margin in the metric's unit, not negative. By how much the mean may be worse than that of the
        baseline, over the utterances that both have.
    unsure : {"pass", "trip"}
        What a `not_worse_than` does where the scores show neither a degradation nor that it is
        smaller than the margin.
    failed_share : float, str or None
        Largest share of scores without a value: 0.01, or ``1 %``.
    quarantined_share : float, str or None
        Largest share of utterances that some node could not process, or that `node` could not.
    throughput : float or None
        Least speed of a node's computation, in seconds of audio a second.
    disk : float, str or None
        Most bytes that the products of the run take: a number, or ``20 GB``.
    """

    metric: Annotated[str, OneOf(_metric_names, others=True)] | None = None
    node: str | None = None
    by: tuple[Annotated[str, OneOf(_slice_names)], ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    not_worse_than: float | None = None
    unsure: Unsure = "pass"
    failed_share: float | str | None = None
    quarantined_share: float | str | None = None
    throughput: float | None = None
    disk: float | str | None = None

    def __post_init__(self) -> None:
        """Check the fields, and turn texts of shares and sizes into numbers."""
        given = self._given
        if len(given) != 1:
            what = f"limits {' and '.join(given)} at once" if given else "limits nothing"
            raise ParameterError(
                "a rule",
                f"must have one limit, and this one {what}: give one of {', '.join((*OF_METRIC, *OF_RUN))}",
            )
        self._check_metric()
        check_slices(self.by)
        if self.by and self.kind not in GROUPED:
            raise ParameterError("by", f"can't group {self.kind}, which is about whole runs: leave it out")
        if self.unsure not in get_args(Unsure):
            raise ParameterError("unsure", f"must be one of {', '.join(get_args(Unsure))}, got {self.unsure!r}")
        if self.unsure != "pass" and self.kind != "not_worse_than":
            raise ParameterError("unsure", f"has no use with {self.kind}: leave it out")
        object.__setattr__(self, self.kind, self._number())

    @property
    def _given(self) -> list[str]:
        return [name for name in (*OF_METRIC, *OF_RUN) if getattr(self, name) is not None]

    @property
    def kind(self) -> str:
        """Name of its limit: ``at_least``, ``failed_share`` and so on."""
        return self._given[0]

    @property
    def limit(self) -> float:
        """Its limit as a number: a share from 0 to 1, and a size in bytes."""
        return float(getattr(self, self.kind))

    @property
    def needs_baseline(self) -> bool:
        """Whether it compares with a baseline."""
        return self.kind == "not_worse_than"

    @property
    def measured(self) -> Metric | None:
        """Its metric."""
        return None if self.metric is None else metric_of(self.metric)

    def _check_metric(self) -> None:
        if self.metric is None:
            if self.kind in OF_METRIC:
                raise ParameterError(self.kind, "limits a metric, and the rule names none: add metric: pesq_wb")
            return
        if self.kind not in GROUPED:
            raise ParameterError("metric", f"has no use with {self.kind}: leave it out")
        try:
            known = metric_of(self.metric)
        except ParameterError as error:
            raise ParameterError("metric", f"{self.metric!r} is none{nearest(self.metric, METRICS)}") from error
        if known.needs == "set":
            raise ParameterError(
                "metric", f"{self.metric!r} has one value for a whole set, and rules compare recordings: name another"
            )

    def _number(self) -> float:
        value = getattr(self, self.kind)
        if isinstance(value, str):
            value = _share(self.kind, value) if self.kind.endswith("_share") else _size(self.kind, value)
        if not math.isfinite(value):
            raise ParameterError(self.kind, f"must be a finite number, got {value!r}")
        if self.kind.endswith("_share") and not 0 <= value <= 1:
            raise ParameterError(self.kind, f"must be a share from 0 to 1, or 1 %, got {value!r}")
        if self.kind in ("not_worse_than", "disk") and value < 0:
            raise ParameterError(self.kind, f"must not be negative, got {value!r}")
        if self.kind == "throughput" and value <= 0:
            raise ParameterError(self.kind, f"must be positive, got {value!r}")
        return float(value)

    @property
    def text(self) -> str:
        """What it says, in a few words: ``pesq_wb of admm by speaker: not worse than 0.1``."""
        what = self.metric or self.kind.removesuffix("_share").replace("quarantined", "quarantine")
        of = f" of {self.node}" if self.node else ""
        by = f" by {', '.join(self.by)}" if self.by else ""
        return f"{what}{of}{by}: {self.says}"

    @property
    def says(self) -> str:
        """Its limit in words: ``at least 3.6``."""
        if self.kind in OF_METRIC:
            return f"{self.kind.replace('_', ' ')} {self.limit:g}"
        if self.kind == "throughput":
            return f"at least {self.limit:g} x real time"
        if self.kind == "disk":
            return f"at most {shown_bytes(self.limit)}"
        failed = "failed " if self.metric else ""
        what = "scores" if self.kind == "failed_share" else "utterances"
        return f"{failed}at most {self.limit:.3g} of {what}"


def _share(field: str, text: str) -> float:
    found = _SHARE.fullmatch(text.strip())
    if found is None:
        raise ParameterError(field, f"must be a share such as 0.01 or 1 %, got {text!r}")
    return float(found[1]) / 100


def _size(field: str, text: str) -> float:
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise ParameterError(field, f"must be bytes, or a size such as 20 GB or 20 GiB, got {text!r}")
    prefix = found[2] or ""
    base = 1024 if prefix.endswith("i") else 1000
    return float(found[1]) * float(base ** " KMGT".index(prefix[:1].upper() or " "))


def shown_bytes(n_bytes: float) -> str:
    """Return a size with three digits and its unit.

    >>> shown_bytes(2.5e9), shown_bytes(12)
    ('2.5 GB', '12 B')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} B"
