"""Which file of another system belongs to which recording: by id, by file name, or by a table."""

from __future__ import annotations

import csv
import hashlib
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.storage.utterance import Utterance

ESTIMATE, REFERENCE = "estimate", "reference"
_DELIMITERS = ("\t", "|", ",", ";")
_NAMED = 3
# What becomes of recordings and of estimates without a partner where they are scored.
_SCORED = ("get the status missing_estimate", "are not scored")


class PairLine(NamedTuple):
    """Hold a line of a table of pairs: its number from 1, and the two names."""

    number: int
    estimate: str
    reference: str


class Side(NamedTuple):
    """Hold the utterances of one side, and the name of their node for messages."""

    node: str
    utterances: Sequence[Utterance]

    @property
    def example(self) -> str:
        """The first id, with its path where that says more."""
        first = self.utterances[0]
        return f"{first.utterance_id!r} ({first.path})" if first.path else repr(first.utterance_id)


def parse_pairs(data: bytes) -> list[PairLine]:
    r"""Return the lines of a table of pairs: estimate and reference, or as its header names them.

    Tabs, bars, commas or semicolons are between the columns; names may be in quotes.

    Raises
    ------
    ParameterError
        It is not UTF-8 or UTF-16, or it has another number of columns.

    >>> parse_pairs(b"reference,estimate\nu0,gen_0.wav\n")
    [PairLine(number=2, estimate='gen_0.wav', reference='u0')]
    """
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParameterError("pairs", f"must be a table in UTF-8, got other bytes at position {error.start}") from error
    rows = _rows(text)
    estimate, reference, n_columns = 0, 1, 2
    head = [cell.casefold() for cell in rows[0][1]] if rows else []
    if ESTIMATE in head and REFERENCE in head:
        estimate, reference, n_columns = head.index(ESTIMATE), head.index(REFERENCE), len(head)
        rows = rows[1:]
    lines = []
    for number, row in rows:
        if len(row) != n_columns:
            raise ParameterError(
                "pairs",
                f"must be a table of two columns, {ESTIMATE} and {REFERENCE}, or have a header that names them, got "
                f"{len(row)} columns on line {number}: {row!r}",
            )
        lines.append(PairLine(number, row[estimate], row[reference]))
    if not lines:
        raise ParameterError("pairs", f"must be a table of {ESTIMATE} and {REFERENCE}, a line for each pair, got none")
    return lines


def pairs_digest(data: bytes) -> str:
    """Return a digest of what a table of pairs says, by which keys know it."""
    lines = sorted((line.estimate, line.reference) for line in parse_pairs(data))
    return hashlib.sha256(repr(lines).encode()).hexdigest()


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Return the rows that are not empty, with their line numbers, split where the first one is."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((one for one in _DELIMITERS if one in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ParameterError("pairs", f"must be a table, got this on line {reader.line_num}: {error}") from error
    return [(number, row) for number, row in rows if any(row)]


def joined(
    references: Side, estimates: Side, table: bytes | None, fates: tuple[str, str] = _SCORED
) -> tuple[dict[str, str], list[str]]:
    """Return partners by a table of pairs or without one, with notes on them and on who has none.

    See `partners` and `missing`.
    """
    found, notes = partners(references, estimates, None if table is None else parse_pairs(table))
    return found, [*notes, *missing(references, estimates, found, fates)]


def partners(references: Side, estimates: Side, lines: Sequence[PairLine] | None) -> tuple[dict[str, str], list[str]]:
    """Return the id of the estimate by id of the reference, and notes on how they were found.

    Parameters
    ----------
    references, estimates : Side
    lines : sequence of PairLine or None
        None: ids tell, then the ends of paths: ``wavs/u0.wav`` is ``clean/u0.flac`` if both names
        are the only ones of their side.

    Raises
    ------
    ContractError
        Nothing belongs together, or it is open which of several files is meant.
    ParameterError
        The lines name none of the files, or a reference twice.
    """
    if lines is not None:
        return _by_table(references, estimates, lines)
    ids = {one.utterance_id for one in estimates.utterances}
    found = {one.utterance_id: one.utterance_id for one in references.utterances if one.utterance_id in ids}
    by_name = _by_name(references, estimates, found)
    if not found and not by_name:
        raise ContractError(
            f"no file of {estimates.node!r} has the id or the name of an utterance of {references.node!r}: they read "
            f"like {estimates.example} and {references.example}. Name a table of pairs "
            f"(pairs: FILE with the columns {ESTIMATE},{REFERENCE})"
        )
    notes = []
    if by_name:
        reference, estimate = next(iter(by_name.items()))
        notes.append(
            f"{len(by_name):,} utterances of {estimates.node!r} and {references.node!r} are paired by file name, "
            f"e.g. {estimate!r} with {reference!r}"
        )
    return found | by_name, notes


def _by_name(references: Side, estimates: Side, found: Mapping[str, str]) -> dict[str, str]:
    """Return further pairs whose paths end alike: those that agree in most parts of them first."""
    made: dict[str, str] = {}
    taken = set(found.values())
    if len(found) == len(references.utterances) or len(taken) == len(estimates.utterances):
        return made
    left, right = _paths(references.utterances), _paths(estimates.utterances)
    depth = max((len(parts) for parts in (*left.values(), *right.values())), default=0)
    for n in range(depth, 0, -1):
        own, other = _by_end(left, n), _by_end(right, n)
        for end, names in own.items():
            candidates = other.get(end, [])
            free = [name for name in names if name not in found and name not in made]
            free_candidates = [name for name in candidates if name not in taken]
            if not free or not free_candidates:
                continue
            if len(names) == len(candidates) == 1:
                made[names[0]] = candidates[0]
                taken.add(candidates[0])
            elif n == 1 and len(free) == len(names) and len(free_candidates) == len(candidates):
                # None of them is paired, so that nothing tells which is which.
                several, one = (references, candidates[0]) if len(names) > 1 else (estimates, names[0])
                first, second = (names if len(names) > 1 else candidates)[:2]
                raise ContractError(
                    f"{first!r} and {second!r} of {several.node!r} have the same file name, and both would fit "
                    f"{one!r}: rename files, or name a table of pairs (pairs: FILE with the columns "
                    f"{ESTIMATE},{REFERENCE})"
                )
    return made


def _paths(utterances: Sequence[Utterance]) -> dict[str, tuple[str, ...]]:
    """Return the parts of each path without its suffix, by id; the id where paths don't tell."""
    times = Counter(one.path for one in utterances)
    return {
        one.utterance_id: _parts(_stem(one.path)) if times[one.path] == 1 and one.path else _parts(one.utterance_id)
        for one in utterances
    }


def _by_end(paths: Mapping[str, tuple[str, ...]], n: int) -> dict[tuple[str, ...], list[str]]:
    """Return ids by the last `n` parts of their paths, for those that have as many."""
    ends: dict[tuple[str, ...], list[str]] = {}
    for name, parts in paths.items():
        if len(parts) >= n:
            ends.setdefault(parts[-n:], []).append(name)
    return ends


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def _parts(path: str) -> tuple[str, ...]:
    # Systems write the same name in composed and in decomposed characters.
    return tuple(unicodedata.normalize("NFC", path).split("/"))


class _Names:
    """Find utterances by what a table may call them: id, path, path without suffix, file name."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self._ids: dict[str, list[str]] = {}
        self._files: dict[str, list[str]] = {}
        for one in side.utterances:
            for name in dict.fromkeys((one.utterance_id, one.path, _stem(one.path))):
                self._ids.setdefault(unicodedata.normalize("NFC", name), []).append(one.utterance_id)
            file = one.path.rpartition("/")[2]
            for name in dict.fromkeys((file, _stem(file))):
                self._files.setdefault(unicodedata.normalize("NFC", name), []).append(one.utterance_id)

    def find(self, name: str, number: int) -> str | None:
        """Return the id of what a line names, None for nothing; raise ParameterError if several."""
        name = unicodedata.normalize("NFC", name).removeprefix("./")
        ids = self._ids.get(name) or self._files.get(name) or []
        if len(ids) > 1:
            raise ParameterError(
                "pairs",
                f"must name one file each, got {name!r} on line {number}, which is {ids[0]!r} and {ids[1]!r} of "
                f"{self.side.node!r}: write the path or the id",
            )
        return ids[0] if ids else None


def _by_table(references: Side, estimates: Side, lines: Sequence[PairLine]) -> tuple[dict[str, str], list[str]]:
    known, made = _Names(references), _Names(estimates)
    found: dict[str, tuple[str, int]] = {}
    nothing = []
    for line in lines:
        reference, estimate = known.find(line.reference, line.number), made.find(line.estimate, line.number)
        if reference is None or estimate is None:
            node, name = (references.node, line.reference) if reference is None else (estimates.node, line.estimate)
            nothing.append(f"{name!r} is not in {node!r} (line {line.number})")
            continue
        before = found.setdefault(reference, (estimate, line.number))
        if before[0] != estimate:
            raise ParameterError(
                "pairs",
                f"must name each reference once, got {line.reference!r} on lines {before[1]} and {line.number}, with "
                f"{before[0]!r} and {estimate!r}",
            )
    if not found:
        swapped = [PairLine(line.number, line.reference, line.estimate) for line in lines]
        if any(known.find(one.reference, one.number) and made.find(one.estimate, one.number) for one in swapped):
            pairs, notes = _by_table(references, estimates, swapped)
            return pairs, [f"pairs: the columns are taken as {REFERENCE} and {ESTIMATE}, as only so names fit", *notes]
        raise ParameterError(
            "pairs",
            f"must name files of {estimates.node!r} and {references.node!r}, got {len(lines):,} lines that fit none: "
            f"{nothing[0]}; they read like {estimates.example} and {references.example}",
        )
    notes = [f"pairs: {len(nothing):,} of {len(lines):,} lines are passed over: {named(nothing)}"] if nothing else []
    return {reference: estimate for reference, (estimate, _) in found.items()}, notes


def missing(
    references: Side, estimates: Side, found: Mapping[str, str], fates: tuple[str, str] = _SCORED
) -> Iterator[str]:
    """Yield a line on the references, and one on the estimates, that have no partner.

    `fates` says what becomes of them.
    """
    used = set(found.values())
    without = [one.utterance_id for one in references.utterances if one.utterance_id not in found]
    alone = [one.utterance_id for one in estimates.utterances if one.utterance_id not in used]
    if without:
        yield (
            f"{len(without):,} of {len(references.utterances):,} utterances of {references.node!r} have no file in "
            f"{estimates.node!r}, and {fates[0]}: {named(without)}"
        )
    if alone:
        yield (
            f"{len(alone):,} of {len(estimates.utterances):,} utterances of {estimates.node!r} have no recording in "
            f"{references.node!r}, and {fates[1]}: {named(alone)}"
        )


def named(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are.

    >>> named("abcde")
    'a, b, c and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
