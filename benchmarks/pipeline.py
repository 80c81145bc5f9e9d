"""Measure whole pipelines against their goals: ``python -m benchmarks.pipeline [--only PART]``.

The speech is LibriSpeech if ``MELMILL_REAL_DATA`` names the folder that holds
``corpora/LibriSpeech``. Everything is written to a temporary folder of about 2 GB below ``TMPDIR``,
which is removed at the end.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile

import click

from benchmarks.figure import Figure, table
from benchmarks.parts import PARTS


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="Measure this part; may be repeated.")
def main(only: tuple[str, ...]) -> None:
    """Print one table: figure, measured value, goal, met.

    The exit code is 1 if a goal is not met.
    """
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one compute thread")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="melmill-benchmark-") as folder:
        for name, part in PARTS.items():
            if not only or name in only:
                figures += part(folder, _say)
    print(table(figures))
    sys.exit(any(figure.met is False for figure in figures))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
