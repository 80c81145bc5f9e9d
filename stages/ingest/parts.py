"""Parts of recordings: which samples and which channel of a file an utterance is.

A part is written at the end of an utterance's path: ``a.flac//#16000+32000:1`` is the second channel
of 32000 samples of ``a.flac`` from sample 16000 on.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import NamedTuple

MARK = "//#"
"""Separates the path of a file from the part of it that is meant."""

_PART = re.compile(r"(?s:(?P<path>.*))//#(?:(?P<start>\d+)\+(?P<n>\d+))?(?::(?P<channel>\d+))?")


class Part(NamedTuple):
    """Hold which part of a recording an utterance is.

    Parameters
    ----------
    start, n_samples : int or None
        First sample and how many, at the rate of the file. None: all.
    channel : int or None
        Number of the channel, from 0. None: what the reader says.
    """

    start: int | None = None
    n_samples: int | None = None
    channel: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the file."""
        return self == Part()

    def __str__(self) -> str:
        samples = "" if self.start is None else f"{self.start}+{self.n_samples}"
        return MARK + samples + ("" if self.channel is None else f":{self.channel}")


def file_of(path: str) -> str:
    """Return the path of the file that an utterance is a part of.

    >>> file_of("a.flac//#16000+32000"), file_of("a.flac")
    ('a.flac', 'a.flac')
    """
    return path.rpartition(MARK)[0] if MARK in path else path


def part_of(path: str) -> Part:
    """Return the part of its file that an utterance is, by its path.

    >>> part_of("a.flac//#16000+32000:1")
    Part(start=16000, n_samples=32000, channel=1)
    >>> part_of("a.flac").is_whole
    True
    """
    match = _PART.fullmatch(path) if MARK in path else None
    if match is None:
        return Part()
    start, n, channel = (None if match[name] is None else int(match[name]) for name in ("start", "n", "channel"))
    return Part(start, n, channel)


class Span(NamedTuple):
    """Hold where an utterance lies in its recording, as a description says it.

    Parameters
    ----------
    start : Decimal
        Seconds, or samples.
    length, end : Decimal or None
        Of one of them, or neither: then it goes on to the end of the recording.
    in_samples : bool
    """

    start: Decimal
    length: Decimal | None = None
    end: Decimal | None = None
    in_samples: bool = False

    @property
    def problem(self) -> str:
        """Why it is no part of any recording; empty if it may be."""
        if self.start < 0:
            return f"it begins at {self.start}, before the recording"
        if self.end is not None and self.end <= self.start:
            return f"it ends at {self.end} and begins at {self.start}"
        if self.length is not None and self.length <= 0:
            return f"it is {self.length} long"
        return ""

    def samples(self, sr: int, n_samples: int) -> tuple[int, int]:
        """Return first sample and number of samples of a recording of `n_samples` at `sr` Hz.

        Times are rounded to the nearest sample, halves up: an end is rounded as a time, and a length as
        a length.

        >>> Span(Decimal("0.5"), end=Decimal("1.00003")).samples(16000, 20000)
        (8000, 8000)
        """
        rate = 1 if self.in_samples else sr
        start = rounded(self.start * rate)
        if self.length is not None:
            return start, rounded(self.length * rate)
        end = n_samples if self.end is None else rounded(self.end * rate)
        return start, end - start


def rounded(value: Decimal) -> int:
    """Return the nearest whole number, of halves the upper."""
    return int(value.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def number(text: object) -> Decimal | None:
    """Return a finite number as it is written, or None.

    >>> number("1.25"), number(0.1), number("x")
    (Decimal('1.25'), Decimal('0.1'), None)
    """
    if isinstance(text, bool) or not isinstance(text, str | int | float | Decimal):
        return None
    try:
        value = Decimal(str(text).strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() and abs(value) < 10**15 else None
