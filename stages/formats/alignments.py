"""Alignments of sounds and their labels: Praat's TextGrid, .lab of HTK or in seconds, TIMIT's .PHN."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from melmill.stages.numeric.errors import Unusable

SUFFIXES = (".textgrid", ".lab", ".phn", ".wrd")
"""Names of alignments end so, in either case."""

# Ticks of HTK's label files.
_HTK_PER_S = 10_000_000
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|([^\s"]+)')


class Segment(NamedTuple):
    """Hold a label and when it is heard, s."""

    start_s: float
    end_s: float
    label: str


def read_alignment(name: str, data: bytes, sr: int, tier: str = "") -> list[Segment]:
    """Return the segments of an alignment, in order.

    Parameters
    ----------
    name : str
        File name; its suffix says the format.
    data : bytes
    sr : int
        Rate of the source file, Hz, in whose samples ``.phn`` and ``.wrd`` count.
    tier : str
        Of a TextGrid. Empty: the tier ``phones``, or the only one.

    Raises
    ------
    Unusable
        It is no such file, or its segments overlap or run backwards.
    """
    suffix = f".{name.rpartition('.')[2].lower()}"
    if suffix not in SUFFIXES:
        raise Unusable(f"{name}: an alignment ends with {', '.join(SUFFIXES)}, got {suffix!r}")
    text = _text(name, data)
    if suffix == ".textgrid":
        segments = _textgrid(name, text, tier)
    elif suffix == ".lab":
        segments = _lab(name, text)
    else:
        segments = _rows(name, text, float(sr))
    if not segments:
        raise Unusable(f"{name} holds no segments")
    return _checked(name, segments)


def _text(name: str, data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unusable(f"{name} is not {encoding.removesuffix('-sig').upper()}: byte {error.start:,}") from error


def _checked(name: str, segments: list[Segment]) -> list[Segment]:
    before = 0.0
    for number, one in enumerate(segments, 1):
        if one.end_s < one.start_s:
            raise Unusable(f"{name}: segment {number} ({one.label!r}) ends at {one.end_s:g} s, before its start")
        if one.start_s < before - 1e-6:
            raise Unusable(
                f"{name}: segment {number} ({one.label!r}) begins at {one.start_s:g} s, before the end of the one "
                f"before, {before:g} s"
            )
        before = one.end_s
    return segments


def _rows(name: str, text: str, per_s: float) -> list[Segment]:
    """Return the segments of lines of start, end and label."""
    segments = []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split(maxsplit=2)
        if not parts:
            continue
        try:
            segments.append(
                Segment(float(parts[0]) / per_s, float(parts[1]) / per_s, parts[2].strip() if len(parts) > 2 else "")
            )
        except (ValueError, IndexError) as error:
            raise Unusable(f"{name}, line {number}: expected start, end and label, got {line[:60]!r}") from error
    return segments


def _lab(name: str, text: str) -> list[Segment]:
    """Return the segments of a .lab file: HTK's ticks of 100 ns, seconds, or Festival's ends of labels."""
    lines = [line for line in text.splitlines() if line.strip()]
    if "#" in (line.strip() for line in lines):
        return _festival(name, lines)
    words = [line.split(maxsplit=2) for line in lines]
    ticks = all(word.isdigit() for parts in words for word in parts[:2])
    return _rows(name, text, float(_HTK_PER_S) if ticks else 1.0)


def _festival(name: str, lines: Sequence[str]) -> list[Segment]:
    start = [line.strip() for line in lines].index("#") + 1
    segments, before = [], 0.0
    for line in lines[start:]:
        parts = line.split(maxsplit=2)
        try:
            end = float(parts[0])
        except ValueError as error:
            raise Unusable(f"{name}: expected the end of a label in s, got {line[:60]!r}") from error
        segments.append(Segment(before, end, parts[2].strip() if len(parts) > 2 else ""))
        before = end
    return segments


def _textgrid(name: str, text: str, wanted: str) -> list[Segment]:
    """Return the intervals of one tier, of the long or the short form."""
    if "ooTextFile" not in text[:200]:
        raise Unusable(f"{name} is no TextGrid of text: save it in Praat as a text file")
    # Both forms are the same values in the same order; the long form has names and marks between them.
    values = [
        found[1].replace('""', '"') if found[2] is None else found[2]
        for found in _TOKEN.finditer(re.sub(r"^\s*!.*$", "", text, flags=re.MULTILINE))
        if found[2] is None or _is_number(found[2])
    ]
    try:
        return _tier(name, _tiers(values), wanted)
    except (IndexError, ValueError) as error:
        raise Unusable(f"{name} is no whole TextGrid ({error}): is it cut short?") from error


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _tiers(values: Sequence[str]) -> dict[str, list[Segment]]:
    """Return the interval tiers of a TextGrid by name, of its values in order."""
    at = values.index("TextGrid") + 3  # behind its range
    n_tiers = int(values[at])
    at += 1
    tiers: dict[str, list[Segment]] = {}
    for _ in range(n_tiers):
        kind, tier, n = values[at], values[at + 1], int(values[at + 4])
        at += 5
        width = 3 if kind == "IntervalTier" else 2
        if kind == "IntervalTier":
            tiers[tier] = [
                Segment(float(values[i]), float(values[i + 1]), values[i + 2]) for i in range(at, at + 3 * n, 3)
            ]
        at += width * n
    return tiers


def _tier(name: str, tiers: dict[str, list[Segment]], wanted: str) -> list[Segment]:
    if wanted:
        if wanted not in tiers:
            raise Unusable(f"{name} has no tier {wanted!r} (tiers: {', '.join(tiers) or 'none'})")
        return tiers[wanted]
    if len(tiers) == 1:
        return next(iter(tiers.values()))
    named = [tier for tier in tiers if tier.rpartition(" - ")[2].strip().lower() in ("phones", "phone", "phonemes")]
    if len(named) == 1:
        return tiers[named[0]]
    raise Unusable(f"{name} has the tiers {', '.join(tiers) or 'none'}: say which with tier")
