"""Time melmill against its neighbours at one job, log-mels of a corpus: ``python -m benchmarks.peers``.

Every tool makes 80 log-mel bands of the same FLAC files, see `benchmarks.peer_jobs`. It does so twice
in one process. *Inside* is the second time: everything is imported, compiled and cached. *Whole* is
the process without that second time. Tools take turns, pinned to as many cores as they have workers,
and medians are printed. A busy machine stretches wall time, so processor time is printed too.

The others may be installed for another interpreter, which ``--python`` names. melmill keeps the PCM
as well, and flushes all to the disk; the others do neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from benchmarks.child import MARK, ONE_THREAD
from benchmarks.corpora import speech
from benchmarks.figure import Figure, table
from benchmarks.peer_jobs import MISSING, TOOLS

_ROOT = Path(__file__).parents[1]
RATIO = 2.0


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one process took: wall and processor time of the whole and inside, s, and bytes stored."""

    whole_s: float
    whole_cpu_s: float
    inside_s: float
    inside_cpu_s: float
    n_bytes: int


class Skipped(Exception):
    """A tool is not installed."""


def timed(python: str, tool: str, root: Path, workers: int) -> Taken:
    """Run a tool in a new process; raise Skipped if it is not installed."""
    with tempfile.TemporaryDirectory() as out:
        command = [python, "-m", "benchmarks.peer_jobs", tool, str(root), out, str(workers)]
        started, before = time.perf_counter(), os.times()
        done = subprocess.run(
            command, cwd=_ROOT, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False
        )
        wall_s, after = time.perf_counter() - started, os.times()
    if done.returncode == MISSING:
        raise Skipped(done.stdout.strip())
    answers = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not answers:
        raise RuntimeError(f"{tool} failed with exit code {done.returncode}:\n{done.stderr}")
    inside = json.loads(answers[-1])
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return Taken(
        whole_s=wall_s - inside["wall_s"],
        whole_cpu_s=cpu_s - inside["cpu_s"],
        inside_s=inside["wall_s"],
        inside_cpu_s=inside["cpu_s"],
        n_bytes=inside["n_bytes"],
    )


def rows(tool: str, workers: int, taken: list[Taken]) -> list[Figure]:
    """Return the medians of a tool's turns."""
    name = f"{tool}, {workers} worker{'s' if workers > 1 else ''}"
    return [
        Figure(name=f"{name}: whole", measured=median(one.whole_s for one in taken), unit="s"),
        Figure(name=f"{name}: whole, processor time", measured=median(one.whole_cpu_s for one in taken), unit="s"),
        Figure(name=f"{name}: inside", measured=median(one.inside_s for one in taken), unit="s"),
        Figure(name=f"{name}: inside, processor time", measured=median(one.inside_cpu_s for one in taken), unit="s"),
        Figure(name=f"{name}: stored", measured=taken[0].n_bytes / 1e6, unit="MB"),
    ]


def ratios(taken: dict[tuple[str, int], list[Taken]], workers: int) -> list[Figure]:
    """Return how many times as long Lhotse takes as melmill, with the goal for one worker."""
    if ("lhotse", workers) not in taken:
        return []
    peer, figures = taken["lhotse", workers], []
    for tool in (tool for tool, n in taken if n == workers and tool.startswith("melmill")):
        own = taken[tool, workers]
        for what, of in (("inside", "inside_s"), ("inside, processor time", "inside_cpu_s"), ("whole", "whole_s")):
            ratio = median(getattr(one, of) for one in peer) / median(getattr(one, of) for one in own)
            goal = RATIO if (what, workers) == ("inside", 1) else None
            name = f"lhotse / {tool}, {workers} worker{'s' if workers > 1 else ''}: {what}"
            figures.append(Figure(name=name, measured=ratio, unit="x", goal=goal, at_least=True))
    return figures


@click.command()
@click.option("--python", default=sys.executable, metavar="PYTHON", help="Interpreter that has the other tools.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--workers", default=[1, 2], show_default=True, multiple=True, type=click.IntRange(min=1))
@click.option("--tool", "tools", multiple=True, type=click.Choice(list(TOOLS)), help="Only this one; may be repeated.")
def main(python: str, repeats: int, workers: tuple[int, ...], tools: tuple[str, ...]) -> None:
    """Print medians of `repeats` turns; exit with 1 if melmill is not twice as fast as Lhotse inside."""
    taken: dict[tuple[str, int], list[Taken]] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made:
        root, corpus = speech(Path(made))
        files = sorted(root.rglob("*.flac"))
        # The first turn would read from the disk what the others find in memory.
        n_bytes = sum(len(file.read_bytes()) for file in files)
        click.echo(f"{corpus}: {len(files)} FLAC files, {n_bytes / 1e6:.1f} MB")
        for _ in range(repeats):
            for n in workers:
                for tool in (tool for tool in tools or TOOLS if tool not in skipped):
                    own = sys.executable if tool.startswith("melmill") else python
                    try:
                        taken.setdefault((tool, n), []).append(timed(own, tool, root, n))
                    except Skipped as error:
                        skipped[tool] = str(error)
                        del taken[tool, n]
    figures = [row for (tool, n), times in taken.items() for row in rows(tool, n, times)]
    figures += [ratio for n in workers for ratio in ratios(taken, n)]
    click.echo(table(figures))
    for tool, why in skipped.items():
        click.echo(f"skipped {tool}: {why}")
    sys.exit(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    main()
