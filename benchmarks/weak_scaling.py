"""Measure n workers on n times the audio against one worker: ``python -m benchmarks.weak_scaling``.

Each run has as many cores as workers. With more cores, the side threads of a single worker, the
driver and the scheduler would run on a core of their own, which they lack with many workers.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.child import measure
from benchmarks.corpora import repeated
from benchmarks.estimate import Clock
from benchmarks.figure import Figure, table
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.watching.observers import Watching

_PIPELINE = """\
name: weak-scaling
store: {store}
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  best:   {{uses: invert, from: mel, quality: good, prior: none}}
  scores: {{uses: score, from: best, against: speech, metrics: [estoi, scm, sc, mcd]}}
cluster: {{pools: {{cpu: {{workers: {workers}}}}}}}
"""
# Of n workers, n times one's work in the same time would be n. The goals for 2 and for 16 workers.
GOALS = {2: 1.93, 16: 14.0}


def corpus(folder: str, root: str, duration_s: float) -> None:
    """Make a corpus of the given duration."""
    repeated(Path(root), Path(folder), duration_s)


def timed(file: str, n_cores: int) -> dict[str, Any]:
    """Run a pipeline on a number of cores.

    Return its audio, and the time from the workers' first call to the end of the last task.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_cores])
    plan, clock = make_plan(load(Path(file))), Clock()
    summary = run(plan, watching=Watching(listeners=(clock,)))
    if summary.tasks.failed:
        raise RuntimeError(f"{summary.tasks.failed} tasks failed")
    return {"tasks_s": clock.ended - clock.begun, "audio_s": plan.catalogues["speech"].duration_s}


@click.command()
@click.option("--workers", default="1,2", show_default=True, help="Numbers of worker processes, such as 1,2,4,8,16.")
@click.option("--minutes", default=60.0, show_default=True, help="Audio for each worker.")
@click.option("--repeats", default=3, show_default=True, help="Rounds; each has a run for each number of workers.")
def main(workers: str, minutes: float, repeats: int) -> None:
    """Print the audio a second for each number of workers, and its ratio to the first: medians."""
    numbers = [int(number) for number in workers.split(",")]
    cores = len(os.sched_getaffinity(0))
    print(
        f"{cores} cores; {minutes:g} min of audio for each worker, one compute thread each; "
        "n workers have n cores, which they share with the driver and its scheduler; a first run fills caches"
    )
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="melmill-scaling-") as folder:
        root = measure("benchmarks.workloads:make_speech", folder=folder, at_least_s=0).result["root"]
        _speed(folder, root, 1, 1.0, "warm")
        # Side by side, as a machine's speed comes and goes.
        rounds = [{n: _speed(folder, root, n, minutes * n, f"{n}-{i}") for n in numbers} for i in range(repeats)]
    speeds = {n: median(one[n] for one in rounds) for n in numbers}
    scaling = {n: median(one[n] / one[numbers[0]] * numbers[0] for one in rounds) for n in numbers}
    for n, speed in speeds.items():
        figures.append(Figure(name=f"{n} workers", measured=speed, unit="x real time"))
        goal = GOALS.get(n) if numbers[0] == 1 and n <= cores else None
        figures.append(Figure(name="  times one worker's", measured=scaling[n], unit="x", goal=goal, at_least=True))
    print(table(figures))
    sys.exit(any(figure.met is False for figure in figures))


def _speed(folder: str, root: str, workers: int, minutes: float, name: str) -> float:
    own = Path(folder) / name
    measure("benchmarks.weak_scaling:corpus", folder=str(own / "corpus"), root=root, duration_s=60 * minutes)
    file = own / "pipeline.yaml"
    file.write_text(_PIPELINE.format(store=own / "store", root=own / "corpus", workers=workers))
    found = measure("benchmarks.weak_scaling:timed", file=str(file), n_cores=workers).result
    return float(found["audio_s"] / found["tasks_s"])


if __name__ == "__main__":
    main()
