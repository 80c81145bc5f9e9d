"""The outcome of a measurement: always a status, and a value where the status is ok."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Say whether a metric has a value, or why it has none."""

    OK = "ok"
    SILENT_REFERENCE = "silent_reference"
    SILENT_ESTIMATE = "silent_estimate"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    NO_UTTERANCES = "no_utterances"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    NOT_INSTALLED = "not_installed"
    UNSUPPORTED_RATE = "unsupported_rate"
    NON_FINITE = "non_finite"
    ERROR = "error"
    MISSING_ESTIMATE = "missing_estimate"


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold a value and its status; the value is NaN unless the status is ok."""

    value: float
    status: Status

    @classmethod
    def of(cls, value: float) -> Measured:
        """Return a value that counts in means; a value that is not finite has the status `non_finite`.

        >>> Measured.of(3.5)
        Measured(value=3.5, status=<Status.OK: 'ok'>)
        >>> Measured.of(float("inf")).status.value
        'non_finite'
        """
        return cls(float(value), Status.OK) if math.isfinite(value) else cls.failed(Status.NON_FINITE)

    @classmethod
    def failed(cls, status: Status) -> Measured:
        """Return a status without a value."""
        return cls(math.nan, status)
