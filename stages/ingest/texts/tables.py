r"""Read tables of texts: the columns are named by a header, or declared, or of a known shape.

Tables of people have bars, tabs or commas between columns, with or without a header. A table whose
columns are not certain is refused, because a speaker's number must not become a text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from melmill.stages.ingest.texts.decoding import lines, one_line
from melmill.stages.numeric.errors import ParameterError

SKIPPED = "-"
COLUMNS = ("path", "id", "text", "speaker", "speaker_name", SKIPPED)
"""What a column of a table may be declared as. ``path`` and ``id`` mean the same."""

# Names in headers, as they are compared: in lower case, with "_" between words. Of several columns
# for one thing the name that comes first here counts.
_FILES = (
    *("path", "file_name", "filename", "file", "audio_file", "audio_path", "audio_filepath", "audiopath", "audio"),
    *("file_path", "filepath", "wav", "wav_path", "wav_file", "wav_filename", "clip", "recording"),
    *("id", "utterance_id", "utt_id", "uttid", "utt", "audio_id", "wav_id", "clip_id", "name", "key"),
)
_NORMALISED = (
    *("normalized_text", "normalised_text", "normalized_transcription", "normalized_transcript", "text_normalized"),
    *("normalized", "normalised", "normalized_sentence", "norm_text", "transcription_normalised"),
)
_TEXTS = ("text", "sentence", "transcript", "transcription", "transcripts", "utterance")
_RAW = ("raw_text", "raw_transcription", "raw_transcript", "original_text")
_SPEAKERS = ("speaker", "speaker_id", "speaker_code", "spk", "spk_id", "client_id")
_SPEAKER_NAMES = ("speaker_name",)
_HEADER_NAME = re.compile(r"[^\W\d][\w .()-]{0,40}")
_NUMBER = re.compile(r"[+-]?[\d.,:]+")
_SHOWN = 4
_JUDGED = 1000


class Row(NamedTuple):
    """Hold a row of a table; fields are ``""`` where it says nothing.

    Parameters
    ----------
    line : int
        Where it begins, from 1.
    name : str
        Path or id of an utterance, as it is written there.
    text, speaker_id, speaker_name : str
    """

    line: int
    name: str
    text: str = ""
    speaker_id: str = ""
    speaker_name: str = ""


class Table(NamedTuple):
    """Hold the rows of a table, and what a person should know of it, or ``""``."""

    rows: tuple[Row, ...]
    note: str = ""


_Record = tuple[int, Sequence[str]]


def parse_table(text: str, path: str, columns: Sequence[str] | None = None, *, bare: bool = False) -> Table:
    r"""Return the rows of a table of texts.

    Bars, tabs or commas separate its columns. Commas do so in a ``.csv``, or below a header with
    commas. In a ``.txt``, blanks may separate an id from its text. Quotes are those of CSV where
    commas or tabs separate, and letters elsewhere. A header names the columns. A table without one
    has an id and a text, and perhaps the normalised text, which is taken then.

    Parameters
    ----------
    text : str
    path : str
        Its name, for messages. The suffix matters too.
    columns : sequence of str or None
        What the columns are, each one of `COLUMNS`. None: the header or the shape says it.
    bare : bool
        Whether lines may hold a path and nothing else.

    Raises
    ------
    ParameterError
        The columns are not certain, or a row has others. The message says what to declare.

    >>> parse_table("a|in 1455|in fourteen fifty-five\n", "metadata.csv").rows
    (Row(line=1, name='a', text='in fourteen fifty-five', speaker_id='', speaker_name=''),)
    >>> parse_table('file_name,text\na.wav,"Yes, sir."\n', "metadata.csv").rows[0].text
    'Yes, sir.'
    """
    records, blanks = _records(text, path, None if columns is None else len(columns), bare)
    if not records:
        return Table((), "it has no lines")
    header = None if blanks else _header(records[0][1])
    if header is not None:
        first, records = records[0], records[1:]
        if columns is None:
            return _headed(records, path, first, header)
    if columns is not None:
        _check_width(records, path, len(columns), f"columns declares {len(columns)}", bare)
        return Table(tuple(_row(record, [_ROLES[name] for name in columns]) for record in records))
    return Table(tuple(_shaped(records, path, 1 if bare or blanks else 2)))


# The field of a row that each declared column fills.
_ROLES = {
    "path": "name",
    "id": "name",
    "text": "text",
    "speaker": "speaker_id",
    "speaker_name": "speaker_name",
    "-": "",
}


def _row(record: _Record, roles: Sequence[str]) -> Row:
    line, fields = record
    named = {role: one_line(field) for role, field in zip(roles, fields, strict=False) if role}
    return Row(line, **{"name": "", **named})


def _records(text: str, path: str, width: int | None, bare: bool) -> tuple[list[_Record], bool]:
    """Return the fields of every row with the line where it begins, and whether blanks separate."""
    numbered = list(lines(text))
    if not numbered:
        return [], False
    first = numbered[0][1]
    suffix = path.rpartition(".")[2].lower()
    marks = "\t|" if suffix == "tsv" else "|\t"
    delimiter = next((mark for mark in marks + "," if mark in first and _header(_split(first, mark)) is not None), None)
    if delimiter is None:
        likely = [mark for mark in marks if 2 * sum(mark in line for _, line in numbered) >= len(numbered)]
        if bare:
            likely += [mark for mark in marks if any(mark in line for _, line in numbered)]
        if suffix == "csv" or (width is not None and len(_split(first, ",")) == width > 1):
            likely.append(",")
        # An id holds none of them, so the mark that comes first separates, and others are letters of
        # a text. A declared width tells more.
        likely.sort(key=lambda mark: first.find(mark) if mark in first else len(first))
        if width is not None:
            likely.sort(key=lambda mark: len(_split(first, mark)) != width)
        delimiter = next(iter(likely), None)
    if delimiter == "|":
        return [(number, line.split("|")) for number, line in numbered], False
    if delimiter == "\t":
        return _tabbed(text, numbered), False
    if delimiter == ",":
        return list(_quoted(text, ",", path)), False
    if bare:
        return [(number, [line]) for number, line in numbered], False
    return [(number, line.split(maxsplit=1)) for number, line in numbered], True


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter)) if delimiter == "," else line.split(delimiter)


def _tabbed(text: str, numbered: Sequence[tuple[int, str]]) -> list[_Record]:
    """Return the records of a table with tabs, whose quotes may be those of CSV or letters."""
    plain: list[_Record] = [(number, line.split("\t")) for number, line in numbered]
    if any(field.startswith('"') for _, fields in plain for field in fields):
        try:
            quoted = list(_quoted(text, "\t", ""))
        except ParameterError:
            return plain
        if len({len(fields) for _, fields in quoted}) == 1:
            return quoted
    return plain


def _quoted(text: str, delimiter: str, path: str) -> Iterator[_Record]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise ParameterError(
            "root", f"must hold tables whose quotes are those of CSV, got {path!r}, line {start:,}: {error}"
        ) from error


def _header(fields: Sequence[str]) -> dict[str, int] | None:
    """Return where a header's known columns are, by the field that they fill; None if it is none."""
    names = [field.strip().strip("\"'#").strip() for field in fields]
    if len(set(names)) < len(names) or not all(_HEADER_NAME.fullmatch(name) for name in names if name):
        return None
    places = {re.sub(r"[ -]+", "_", name.lower()): index for index, name in enumerate(names)}
    found = {
        role: next((places[name] for name in known if name in places), None)
        for role, known in (
            ("name", _FILES),
            ("text", (*_NORMALISED, *_TEXTS, *_RAW)),
            ("speaker_id", (*_SPEAKERS, *_SPEAKER_NAMES)),
            ("speaker_name", _SPEAKER_NAMES),
        )
    }
    header = {role: place for role, place in found.items() if place is not None}
    texts = [name for name in places if name in _TEXTS]
    if len(texts) > 1 and not any(name in places for name in _NORMALISED):
        header.pop("text")
    if header.get("speaker_name") == header.get("speaker_id"):
        header.pop("speaker_name", None)
    # A text may be a single word, such as "name" or "file".
    return header if len(header) > 1 or header.get("name") == 0 or (len(names) > 2 and header) or texts else None


def _headed(records: Sequence[_Record], path: str, first: _Record, header: dict[str, int]) -> Table:
    line, names = first
    texts = [name for name in names if name.strip().lower() in _TEXTS]
    if "name" not in header or ("text" not in header and texts):
        lacks = "names several texts" if "name" in header else "names no path and no id"
        raise _undeclared(path, line, names, f"which is a header that {lacks}")
    _check_width(records, path, len(names), f"its header has {len(names)}", bare=False)
    roles = [next((role for role, place in header.items() if place == index), "") for index in range(len(names))]
    note = "" if "text" in header else f"its header names no text: {_shown(names)}"
    return Table(tuple(_row(record, roles) for record in records), note)


def _shaped(records: Sequence[_Record], path: str, fewest: int) -> Iterator[Row]:
    """Yield the rows of a table without a header: id|text or id|text|normalised text."""
    for line, fields in records:
        if not fewest <= len(fields) <= 3:
            counted = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
            raise _undeclared(path, line, fields, f"{counted} without a header")
    trimmed = [(line, [one_line(field) for field in fields]) for line, fields in records]
    texts = [fields[1] for _, fields in trimmed if len(fields) > 1 and fields[1]]
    pairs = [fields[1:] for _, fields in trimmed if len(fields) == 3 and fields[1] and fields[2]]
    line, fields = next((one for one in trimmed if len(one[1]) > 1), trimmed[0])
    # Some of many rows are enough to tell. Speakers recur, and are unlike what they say.
    pairs = pairs[:: max(1, len(pairs) // _JUDGED)]
    recurring = 2 * len({third for _, third in pairs}) < len({second for second, _ in pairs})
    if recurring or 2 * sum(_alike(text, normalised) for text, normalised in pairs) < len(pairs):
        raise _undeclared(path, line, fields, "where the third column is no normalised form of the second")
    if texts and all(_NUMBER.fullmatch(text) for text in texts):
        raise _undeclared(path, line, fields, "where the second column holds numbers alone")
    for line, fields in trimmed:
        yield Row(line, fields[0], next(filter(None, reversed(fields[1:])), ""))


def _alike(text: str, normalised: str) -> bool:
    """Tell whether one text may be the normalised form of another, by their words or letters."""
    if len(normalised) < len(text) / 2:
        return False
    ours, theirs = (set(re.findall(r"\w+", one.casefold())) for one in (text, normalised))
    letters = set("".join(ours))
    return bool(ours & theirs) or 2 * len(letters & set("".join(theirs))) >= len(letters)


def _check_width(records: Sequence[_Record], path: str, width: int, expected: str, bare: bool) -> None:
    for line, fields in records:
        if len(fields) != width and not (bare and len(fields) == 1):
            raise ParameterError(
                "columns",
                f"must fit {path!r}, got {len(fields)} columns on line {line:,} ({_shown(fields)}) where {expected}; "
                "in a .csv, put a text with commas between quotes",
            )


def _undeclared(path: str, line: int, fields: Sequence[str], why: str) -> ParameterError:
    example = ["path", "text", *[SKIPPED] * len(fields)][: max(2, len(fields))]
    return ParameterError(
        "columns",
        f"must say what is in {path!r}: line {line:,} is {_shown(fields)}, {why}; write "
        f"columns: [{', '.join(example)}] in the right order, of {', '.join(COLUMNS)} ({SKIPPED} skips one)",
    )


def _shown(fields: Sequence[str]) -> str:
    more = f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
    return ", ".join(repr(field if len(field) <= 40 else f"{field[:37]}...") for field in fields[:_SHOWN]) + more
