"""Measure how fast training segments arrive, from a store and from what others read.

melmill run flows/preprocess.yaml --set speech.root=data/LibriSpeech --store runs/preprocess
python -m benchmarks.loader runs/preprocess --mel hifigan

Every tool loads batches of random segments of the same recordings, by a DataLoader of some workers, in a
process of its own (`benchmarks.loader_jobs`). A first figure is the rate once all is warm. A busy machine
stretches that, so it is also told by the processor time of the process and its workers. *Whole process*
counts from its start. Tools take turns, and medians are printed.

WebDataset and Lhotse Shar read exports of the store. They may be installed for another interpreter, which
``--python`` names. Without them they are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import click

from benchmarks.child import MARK, ONE_THREAD
from benchmarks.figure import Figure, table
from benchmarks.loader_jobs import MISSING, TOOLS, Job
from melmill.flows.cli.group import cli
from melmill.storage.store import Store

_ROOT = Path(__file__).parents[1]
STREAM = "torch_stream"
PEERS = ("webdataset", "lhotse shar, audio alone")
GOAL = 3000.0


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How many times real time segments came: once warm, by processor time, and of the whole process."""

    inside: float
    by_cpu: float
    whole: float


class Skipped(Exception):
    """A tool is not installed."""


def timed(python: str, tool: str, job: Job) -> Rates:
    """Run a tool in a new process; raise Skipped if it is not installed."""
    command = [python, "-m", "benchmarks.loader_jobs", tool, json.dumps(asdict(job))]
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=_ROOT, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False
    )
    whole_s = time.perf_counter() - started
    if done.returncode == MISSING:
        raise Skipped(done.stdout.strip())
    answers = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not answers:
        raise RuntimeError(f"{tool} failed with exit code {done.returncode}:\n{done.stderr}")
    measured, segment_s = json.loads(answers[-1]), job.segment_samples / job.sr
    return Rates(
        inside=measured["n_segments"] * segment_s / measured["inside_s"],
        by_cpu=measured["n_segments"] * segment_s / measured["inside_cpu_s"],
        whole=measured["n_whole"] * segment_s / whole_s,
    )


def figures(tool: str, rates: list[Rates]) -> list[Figure]:
    """Return the medians of a tool's turns."""
    goal = GOAL if tool == STREAM else None
    inside, by_cpu, whole = (median(getattr(one, name) for one in rates) for name in ("inside", "by_cpu", "whole"))
    return [
        Figure(name=tool, measured=inside, unit="x real time", goal=goal, at_least=True),
        Figure(name=f"{tool}: a second of one processor", measured=by_cpu, unit="x real time"),
        Figure(name=f"{tool}: whole process", measured=whole, unit="x real time"),
    ]


def ratios(taken: dict[str, list[Rates]]) -> list[Figure]:
    """Return how many times as fast as its peers the stream is, turn by turn."""
    return [
        Figure(
            name=f"{STREAM} / {peer}{words}",
            measured=median(
                getattr(own, name) / getattr(other, name) for own, other in zip(taken[STREAM], taken[peer], strict=True)
            ),
            unit="x",
            goal=1.0,
            at_least=True,
        )
        for peer in PEERS
        if peer in taken and STREAM in taken
        for name, words in (("inside", ""), ("by_cpu", ": processor time"), ("whole", ": whole process"))
    ]


def exported(store: str, nodes: str, folder: Path, layout: str) -> str:
    """Write a training set of a store, and return its folder."""
    code = cli.main(["export", store, nodes, str(folder / layout), "--to", layout], standalone_mode=False)
    if code:
        raise RuntimeError(f"melmill export ended with {code}")
    return str(folder / layout)


@click.command()
@click.argument("store")
@click.option("--mel", default="mel", show_default=True, help="Node of the mels.")
@click.option("--audio", default="speech", show_default=True, help="Node of the audio.")
@click.option("--segment-frames", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--batch-size", default=16, show_default=True, type=click.IntRange(min=1))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(min=0), help="Of the DataLoader.")
@click.option("--seconds", default=10.0, show_default=True, help="For how long each is measured.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--python", default=sys.executable, metavar="PYTHON", help="Interpreter that has the other tools.")
@click.option("--tool", "tools", multiple=True, type=click.Choice(list(TOOLS)), help="Only this one; may be repeated.")
def main(
    store: str,
    mel: str,
    audio: str,
    segment_frames: int,
    batch_size: int,
    workers: int,
    seconds: float,
    repeats: int,
    python: str,
    tools: tuple[str, ...],
) -> None:
    """Print medians of `repeats` turns; exit with 1 if a goal is missed."""
    spec = Store.open(store)[mel].folder.array_spec
    chosen = list(tools or TOOLS)
    taken: dict[str, list[Rates]] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as made:
        wants = any(tool in PEERS for tool in chosen)
        job = Job(
            store=str(Path(store).resolve()),
            webdataset=exported(store, f"{audio},{mel}", Path(made), "webdataset") if wants else "",
            shar=exported(store, audio, Path(made), "shar") if wants else "",
            mel=mel,
            audio=audio,
            segment_frames=segment_frames,
            hop_length=spec.hop_length,
            sr=spec.sr,
            batch_size=batch_size,
            workers=workers,
            seconds=seconds,
        )
        for _ in range(repeats):
            for tool in (tool for tool in chosen if tool not in skipped):
                try:
                    rates = timed(python if tool in PEERS else sys.executable, tool, job)
                except Skipped as error:
                    skipped[tool] = str(error)
                    continue
                taken.setdefault(tool, []).append(rates)
    rows = [row for tool, rates in taken.items() for row in figures(tool, rates)] + ratios(taken)
    click.echo(table(rows))
    for tool, why in skipped.items():
        click.echo(f"skipped {tool}: {why}")
    sys.exit(any(row.met is False for row in rows))


if __name__ == "__main__":
    main()
