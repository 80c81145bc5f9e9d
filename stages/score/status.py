"""The outcome of a measurement: always a status, and a value where the status is ok."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """Say whether a metric has a value, or why it has none; `says` explains each in a sentence."""

    says: str

    OK = "ok", "There is a value."
    SILENT_REFERENCE = "silent_reference", "The recording never leaves a 16-bit step around its mean."
    SILENT_ESTIMATE = "silent_estimate", "The reconstruction never leaves a 16-bit step around its mean."
    TOO_SHORT = "too_short", "The metric is not defined for a signal this short."
    NO_UTTERANCES = "no_utterances", "PESQ found no speech."
    NO_CONTENT = (
        "no_content",
        "A signal lacks what the metric compares: frames that are voiced in both, or a level above the gate.",
    )
    TOO_FEW = "too_few", "The set has too few recordings for a value of the whole set."
    NO_TEXT = "no_text", "The corpus has no transcript of the utterance, or one without words."
    NOT_INSTALLED = (
        "not_installed",
        "A package that the metric needs is not there. Once it is, the next run scores again.",
    )
    UNSUPPORTED_RATE = "unsupported_rate", "The rate of a signal is too low for the metric."
    NON_FINITE = "non_finite", "A sample or the result is not a finite number."
    ERROR = "error", "Anything else, such as lengths that differ by more than a hop."
    MISSING_REFERENCE = "missing_reference", "There is no recording, and the metric compares with one."
    MISSING_ESTIMATE = (
        "missing_estimate",
        ("There is no reconstruction: it was quarantined on the way, or another system's files lack it."),
    )

    def __new__(cls, value: str, says: str = "") -> Status:
        """Return a status with its explanation."""
        status = str.__new__(cls, value)
        status._value_ = value
        status.says = says
        return status


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold a value and its status; the value is NaN unless the status is ok.

    `weight` says how much the value counts in the pooled value of a set, where a metric has one.
    """

    value: float
    status: Status
    weight: float = field(default=1.0, repr=False)

    @classmethod
    def of(cls, value: float, weight: float = 1.0) -> Measured:
        """Return a value that counts in means; the status is `non_finite` for NaN and infinity.

        >>> Measured.of(3.5)
        Measured(value=3.5, status=<Status.OK: 'ok'>)
        >>> Measured.of(float("inf")).status.value
        'non_finite'
        """
        return cls(float(value), Status.OK, float(weight)) if math.isfinite(value) else cls.failed(Status.NON_FINITE)

    @classmethod
    def failed(cls, status: Status) -> Measured:
        """Return a status without a value."""
        return cls(math.nan, status, 0.0)
