"""Print tables and values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category

import click

if TYPE_CHECKING:
    from rich.table import Table


def one_line(text: str) -> str:
    r"""Return a message in one line; line ends become spaces, and other control characters escapes.

    >>> one_line("can't read 'a\x1b.wav':\n  gone")
    "can't read 'a\\x1b.wav': gone"
    """
    shown = (
        char if char.isprintable() or category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in " ".join(text.split())
    )
    return "".join(shown)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table to standard output: as wide as a terminal, elsewhere as wide as it needs."""
    from rich.console import Console

    made = made_table(columns, rows, title)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 10_000
        console.width = max(20, console.measure(made).maximum)
    console.print(made)


def made_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """Return a table of values."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for name in columns:
        made.add_column(name, overflow="fold")
    for row in rows:
        # Names may hold brackets, which would be markup in plain text.
        made.add_row(*(Text("" if value is None else str(value)) for value in row))
    return made


def as_json(value: object) -> None:
    """Print one JSON object to standard output."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def write_file(path: Path, data: bytes) -> None:
    """Write a file where a person asked for it; raise ClickException if that fails."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise click.ClickException(f"can't write {str(path)!r}: {error.strerror or error}") from error
