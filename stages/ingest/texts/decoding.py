"""Decode text files: nothing is guessed, and no character is replaced."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from melmill.stages.contract import CorpusTree
from melmill.stages.numeric.errors import ParameterError

_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before UTF-16: the mark of UTF-32 begins with the same bytes.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

# U+2028, U+2029, NEL, VT and FF occur inside texts, so `str.splitlines` would cut these.
_LINE_END = re.compile(r"\r\n|\r|\n")
_BLANKS = re.compile(r"[ \t\r\n]+")
_BROKEN_LINE = re.compile(r"[ \t]*[\r\n]+[ \t]*")


def check_encoding(encoding: str | None) -> None:
    """Raise ParameterError unless Python knows an encoding of texts by this name."""
    if encoding is None:
        return
    try:
        codecs.lookup(encoding)
        "".encode(encoding)  # codecs of bytes, such as hex, refuse text
    except (LookupError, TypeError, ValueError) as error:
        raise ParameterError(
            "encoding", f"must be the name of a text encoding, such as latin-1, cp1252 or utf-16-le, got {encoding!r}"
        ) from error


def read_texts(tree: CorpusTree, path: str, encoding: str | None = None) -> str:
    """Return the content of a text file.

    Parameters
    ----------
    tree : CorpusTree
    path : str
        Below the root of the corpus.
    encoding : str or None
        Encoding of a file that is not UTF-8.

    Raises
    ------
    ParameterError
        The file can't be read or decoded.
    """
    try:
        data = tree.read(path)
    except OSError as error:
        raise ParameterError("root", f"must hold readable transcripts, got {path!r}: {error.strerror}") from error
    return decoded(data, path, encoding)


def decoded(data: bytes, path: str, encoding: str | None = None) -> str:
    r"""Return the text in the bytes of a file.

    A byte order mark tells UTF-8, UTF-16 and UTF-32. A file without one is UTF-8. If it is not, it
    is decoded as `encoding`.

    Raises
    ------
    ParameterError
        The bytes are not in that encoding. The message names path, offset and line.

    >>> decoded("\ufeffsí".encode("utf-16-le"), "a.txt"), decoded(b"s\xed", "a.txt", "latin-1")
    ('sí', 'sí')
    """
    marked = next((name for bom, name in _BOMS.items() if data.startswith(bom)), None)
    if marked:
        return _strictly(data, path, marked)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    # UTF-16 without a mark may pass for UTF-8 with a NUL beside each letter.
    if "\0" not in text:
        return text
    return _strictly(data, path, encoding or "utf-8")


def _strictly(data: bytes, path: str, encoding: str) -> str:
    try:
        text = data.decode(encoding)
        start = data.find(b"\0") if "\0" in text else -1
        what = "NUL, as in UTF-16 without a byte order mark"
    except UnicodeDecodeError as error:
        start, text = error.start, ""
        what = f"0x{data[start]:02x}" if start < len(data) else "the end"
    if start < 0:
        return text
    line = len(_LINE_END.findall(data[:start].decode(encoding, errors="ignore"))) + 1
    raise ParameterError(
        "encoding",
        f"must be said for {path!r}, which is not {encoding}: byte {start:,}, on line {line:,}, is {what}; convert the "
        "file to UTF-8, or write its encoding, such as encoding: latin-1 or encoding: utf-16-le",
    )


def lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines that are not blank, each with its number from 1.

    ``\n``, ``\r\n`` and ``\r`` end a line, and nothing else does.

    >>> list(lines("a\u2028b\r\n\r\nc"))
    [(1, 'a\u2028b'), (3, 'c')]
    """
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip():
            yield number, line


def one_line(text: str) -> str:
    r"""Return a field of a table without blanks around it, and with a space for each line end.

    >>> one_line(" two\r\n lines ")
    'two lines'
    """
    text = text.strip()
    return _BROKEN_LINE.sub(" ", text) if "\n" in text or "\r" in text else text


def collapsed(text: str) -> str:
    r"""Return the content of a text file as one line, with one space for each run of blanks.

    >>> collapsed("two\n lines\n")
    'two lines'
    """
    return _BLANKS.sub(" ", text).strip()
