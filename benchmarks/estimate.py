"""Compare an estimate with the run that it predicts: ``python -m benchmarks.estimate``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks.child import measure
from benchmarks.figure import Figure, table
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.estimate import estimate
from melmill.flows.planning.plan import make_plan
from melmill.flows.watching.events import Event, Finished, Ready
from melmill.flows.watching.observers import Watching
from melmill.storage.store import RUNS, Store

_PIPELINE = """\
name: estimate
store: {store}
shard_duration_s: {shard_s}
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 100}}
  admm:   {{uses: admm, from: mel, n_iter: 100}}
  scores: {{uses: score, from: [gla, admm], against: speech, metrics: [estoi, scm, sc, mcd]}}
cluster: {{pools: {{cpu: {{workers: {workers}}}}}}}
"""
TOLERANCE = 0.2
# Where there is no real corpus, the demo's is repeated to this length.
LEAST_S = 1800.0


class Clock:
    """Measures the time from the first task that could run to the end of the last task, s."""

    def __init__(self) -> None:
        self.begun = self.ended = 0.0

    def __call__(self, event: Event) -> None:
        """Note the time of what counts."""
        if isinstance(event, Ready):
            self.begun = time.perf_counter()
        elif isinstance(event, Finished):
            self.ended = time.perf_counter()


def predict(file: str) -> dict[str, Any]:
    """Predict as `melmill plan --estimate` does."""
    return estimate(make_plan(load(Path(file)))).as_dict()


def finish(file: str) -> dict[str, Any]:
    """Run the rest. Return its duration, and the disk space and number of files of all products."""
    pipeline = load(Path(file))
    clock = Clock()
    summary = run(make_plan(pipeline), watching=Watching(listeners=(clock,)))
    if summary.tasks.failed:
        raise RuntimeError(f"{summary.tasks.failed} tasks failed")
    files = {
        name: size
        for name, size in Store.open(pipeline.store).location.tree().items()
        if not name.startswith(f"{RUNS}/") and "/" in name
    }
    return {
        "tasks_s": clock.ended - clock.begun,
        "wall_s": summary.duration_s,
        "disk_bytes": sum(files.values()),
        "files": len(files),
        "n_tasks": summary.tasks.run,
    }


@click.command()
@click.option("--workers", default=len(os.sched_getaffinity(0)), show_default=True, help="Worker processes.")
@click.option("--shard-s", default=60.0, show_default=True, help="Audio in a shard, s.")
@click.option("--root", help="Root of another corpus in LibriSpeech's layout.")
def main(workers: int, shard_s: float, root: str | None) -> None:
    """Print the prediction, the truth and their ratio.

    The exit code is 1 if a time is off by more than a fifth.
    """
    with tempfile.TemporaryDirectory(prefix="melmill-estimate-") as folder:
        found = measure("benchmarks.workloads:make_speech", folder=folder, at_least_s=LEAST_S).result
        file = Path(folder) / "pipeline.yaml"
        file.write_text(
            _PIPELINE.format(store=Path(folder) / "store", root=root or found["root"], shard_s=shard_s, workers=workers)
        )
        predicted = measure("benchmarks.estimate:predict", file=str(file)).result
        true = measure("benchmarks.estimate:finish", file=str(file)).result
    if not true["n_tasks"]:
        raise click.UsageError("the corpus is so short that all of it was the sample: use a shorter --shard-s")
    print(f"on {root or found['name']}: {predicted['sampled']} tasks sampled, {true['n_tasks']} more predicted")
    figures = [
        Figure(name="finish time, predicted", measured=predicted["left_s"], unit="s"),
        Figure(name="finish time, true", measured=true["tasks_s"], unit="s"),
        _off("  off by", predicted["left_s"], true["tasks_s"]),
        Figure(name="  true with starting and stopping the cluster", measured=true["wall_s"], unit="s"),
        Figure(name="disk, predicted", measured=predicted["disk_bytes"] / 2**20, unit="MiB"),
        _off("  off by", predicted["disk_bytes"], true["disk_bytes"]),
        Figure(name="files, predicted", measured=predicted["files"], unit=""),
        _off("  off by", predicted["files"], true["files"]),
    ]
    print(table(figures))
    sys.exit(any(figure.met is False for figure in figures))


def _off(name: str, predicted: float, true: float) -> Figure:
    return Figure(name=name, measured=abs(predicted - true) / true, unit="of the true", goal=TOLERANCE)


if __name__ == "__main__":
    main()
