"""What a metric is, and all of them by name.

They are melmill's own, and those of other packages.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeGuard

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.plugins import Registry
from melmill.stages.score.networks.weights import digest_of
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

Needs = Literal["signals", "waveforms", "spectra", "mels", "estimate", "set"]

Group = Literal["signal", "pitch", "learned", "words", "sets"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Describe a metric and compute it.

    Tables, the report and the documentation read everything about a metric from its object.

    Parameters
    ----------
    name : str
        What pipeline.yaml calls it.
    title : str
        Its name in headings and on axes, without the unit.
    better : {"higher", "lower"}
        Which direction is better.
    compute : callable
        Takes a `Pair` and returns a float in `unit`, or a `Measured` with a status where the pair
        has no value. An exception quarantines the utterance.
    needs : {"signals", "waveforms", "spectra", "mels", "estimate", "set"}
        What it compares: ``signals`` at any rate (`Pair.at`), or what the mel of the score node
        decides: `Pair.waveforms` at its rate, `Pair.magnitudes` or `Pair.mels`. With ``estimate`` it
        hears the reconstruction alone (`Pair.estimate_at`), and needs no recording. With ``set`` it
        has one value for a whole set, and none for a pair: see `melmill.stages.score.sets`.
    says : str
        What it measures, in a sentence.
    limits : str
        What it can't tell, in a sentence or two.
    formula : str
        How it is computed, in Markdown; TeX between dollar signs.
    reference : str
        Where it is defined.
    unit : str
        ``"dB"``, ``"MOS-LQO"``, ``"Np"`` (neper); empty where it has none.
    column : str
        Its column in tables of scores; ``status_<column>`` stands beside it. Empty: its name.
    decimals : int
        Decimals worth printing: intervals are rarely narrower.
    lowest_sr : int
        Lowest rate of both signals in Hz; below it the status is `unsupported_rate`.
    package : str
        Module that it needs besides melmill's own packages. Without it the status is
        `not_installed`, and the score node has another key.
    runtime : str
        Module that computes the package's networks, such as onnxruntime. It counts as the package
        does.
    weights : tuple of str
        Files of a network in that package, whose digests the score node's key holds.
    version : int
        Raise it whenever its values change, so that scores are computed again.
    order : int
        Place among melmill's own metrics in tables, smaller first.
    group : {"signal", "pitch", "learned", "words", "sets"}
        Which of five kinds it is: a formula on signals, pitch and voicing, the prediction of a
        network, words that a recogniser hears, or a distance of whole sets.
    cost : str
        How fast one core computes it, in a sentence.
    pooled : str
        What weighs each recording in the pooled value of a set, such as ``"voiced frames"``: reports
        have that value beside the mean, and tables the column ``weight_<column>``. Empty: it has none.
    """

    name: str
    title: str
    better: Literal["higher", "lower"]
    compute: Callable[[Pair], float | Measured]
    needs: Needs
    says: str
    limits: str
    formula: str
    reference: str
    unit: str = ""
    column: str = ""
    decimals: int = 2
    lowest_sr: int = 0
    package: str = ""
    runtime: str = ""
    weights: tuple[str, ...] = ()
    version: int = 1
    order: int = 0
    group: Group = "signal"
    cost: str = ""
    pooled: str = ""

    def __post_init__(self) -> None:
        """Name the column."""
        if not self.column:
            object.__setattr__(self, "column", self.name)

    @property
    def status_column(self) -> str:
        """Name of the column that holds its statuses."""
        return status_column(self.column)

    @property
    def weight_column(self) -> str:
        """Name of the column that holds the weights of its pooled value."""
        return weight_column(self.column)

    @property
    def label(self) -> str:
        """Title with unit: ``SCM [dB]``."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title

    @property
    def arrow(self) -> str:
        """Arrow that shows which direction is better."""
        return "↑" if self.better == "higher" else "↓"

    @property
    def sign(self) -> int:
        """1 where higher is better, otherwise -1: ``sign * value`` grows with quality."""
        return 1 if self.better == "higher" else -1

    @property
    def is_installed(self) -> bool:
        """Whether the packages that it needs are there."""
        return all(importlib.util.find_spec(name) is not None for name in (self.package, self.runtime) if name)

    @property
    def compares(self) -> bool:
        """Whether it compares with a recording."""
        return self.needs != "estimate"

    @property
    def digests(self) -> list[str]:
        """SHA-256 of each file of weights; empty where the package is missing."""
        return [digest_of(self.package, file) for file in self.weights] if self.is_installed else []

    def measure(self, pair: Pair) -> Measured:
        """Return the value of a pair, or the status that says why it has none."""
        status = pair.status if self.compares else pair.estimate_status
        if status is not Status.OK:
            return Measured.failed(status)
        if (pair.lowest_sr if self.compares else pair.estimate_sr) < self.lowest_sr:
            return Measured.failed(Status.UNSUPPORTED_RATE)
        if self.needs in ("waveforms", "spectra", "mels") and pair.n_frames == 0:
            return Measured.failed(Status.TOO_SHORT)
        if not self.is_installed:
            return Measured.failed(Status.NOT_INSTALLED)
        value = self.compute(pair)
        return value if isinstance(value, Measured) else Measured.of(value)


def status_column(column: str) -> str:
    """Return the name of the column that holds a metric's statuses.

    >>> status_column("scm_db")
    'status_scm_db'
    """
    return f"status_{column}"


def weight_column(column: str) -> str:
    """Return the name of the column that holds the weights of a metric's pooled value."""
    return f"weight_{column}"


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


PREDICTED = "predicted_"
"""Columns of predictors of one's own begin so; see `melmill.stages.score.predictor`."""


def metric(name: str) -> Metric:
    """Return the metric that pipeline.yaml calls `name`, or whose column it is.

    A column of a predictor of one's own has a metric that describes it, and that can't be computed.
    So have the values of whole sets: ``vuv_f1_pooled``, and ``fad_speaker`` of the embedding `speaker`.

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
    if name.startswith(PREDICTED):
        return _predicted(name)
    of_set = _of_set(name)
    if of_set is not None:
        return of_set
    raise ParameterError("metrics", f"has {METRICS.unknown(name)}")


POOLED = "_pooled"
"""Names of pooled values end so."""


def _of_set(name: str) -> Metric | None:
    """Return what describes a value of a whole set by its name in summaries; None if it is none."""
    base = name.removesuffix(POOLED)
    if name != base:
        for known in METRICS.values():
            if known.column == base and known.pooled:
                return replace(
                    known, name=name, column=name, title=f"{known.title}, pooled", needs="set", pooled="",
                    says=f"{known.says} Of all recordings together: the mean weighted by their {known.pooled}.",
                )  # fmt: skip
        return None
    longest_first = sorted((one for one in METRICS.values() if one.needs == "set"), key=lambda one: -len(one.name))
    for known in longest_first:
        if name.startswith(f"{known.name}_"):
            embedding = name.removeprefix(f"{known.name}_")
            return replace(known, name=name, column=name, title=f"{known.title}, {embedding}")
    return None


def _predicted(column: str) -> Metric:
    name = column.removeprefix(PREDICTED)
    return Metric(
        name=name,
        column=column,
        title=name,
        better="higher",
        needs="estimate",
        compute=lambda _: Measured.failed(Status.ERROR),
        group="learned",
        says="The number that a program of the pipeline's own gives for the reconstruction.",
        limits="Only who trained it can tell.",
        formula="The program that the node names.",
        reference="The pipeline",
    )
