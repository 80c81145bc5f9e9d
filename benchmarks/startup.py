"""Time how soon commands answer and a new run's first task starts: ``python -m benchmarks.startup``.

Every figure is the median of whole processes, which take turns. A busy machine stretches wall time,
so the processor time of a process and its children is printed beside it. With ``--against`` another
installation's interpreter takes its turns too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median

import click

from benchmarks.corpora import demo
from benchmarks.figure import Figure, table

_PIPELINE = """\
name: startup
store: {store}
shard_duration_s: 60
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
  scores: {{uses: score, from: gla, against: speech, metrics: [estoi, sc]}}
  report: {{uses: aggregate, from: scores}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
ANSWER_S, FIRST_TASK_S = 1.0, 3.0

# Name of what is timed, with wall and processor time of each turn, s.
Times = dict[str, list[tuple[float, float]]]


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Return the wall and processor time of a process that ends well, s."""
    started, before = time.perf_counter(), os.times()
    # In a folder without melmill's sources, so that the interpreter's own installation is measured.
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = os.times()
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - started, cpu_s


def new_run(python: str, folder: Path, turn: int) -> dict[str, tuple[float, float]]:
    """Run a pipeline into a new store; return the times from its start to each step, s."""
    store, log = folder / f"new-{turn}", folder / f"new-{turn}.jsonl"
    command = [python, "-m", "melmill", "run", "pipeline.yaml", "--store", str(store), "--log", str(log)]
    began = time.time()
    _, cpu_s = timed([*command, "--until", "speech"], folder)
    moments: dict[str, float] = {}
    for line in log.read_text().splitlines():
        event = json.loads(line)
        at_s = datetime.fromisoformat(event["time"]).timestamp() - began
        moments.setdefault(event["event"], at_s - event.get("wall_s", 0.0))
        if event["event"] == "task_finished":
            moments.setdefault("first task finished", at_s)
    shutil.rmtree(store)
    log.unlink()
    return {
        "new run: imports, plan and store": (moments["run_started"], 0.0),
        "new run: until the cluster is up": (moments["cluster_ready"], 0.0),
        "new run: until the first task starts": (moments["task_finished"], 0.0),
        "new run: until the first task is done": (moments["first task finished"], cpu_s),
    }


def measured(python: str, folder: Path, turn: int) -> dict[str, tuple[float, float]]:
    """Return wall and processor time of everything, once."""
    commands = {
        "python -c pass": ["-c", "pass"],
        "import melmill.flows.cli": ["-c", "import melmill.flows.cli"],
        "melmill --help": ["-m", "melmill", "--help"],
        "melmill plan, finished store": ["-m", "melmill", "plan", "pipeline.yaml"],
        "melmill run, finished store": ["-m", "melmill", "run", "pipeline.yaml"],
        "melmill status": ["-m", "melmill", "status", "store"],
    }
    return {
        **{name: timed([python, *arguments], folder) for name, arguments in commands.items()},
        **new_run(python, folder, turn),
    }


@click.command()
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--against", metavar="PYTHON", help="Interpreter of another installation, to be measured in turns.")
def main(repeats: int, against: str | None) -> None:
    """Print medians of `repeats` turns after one that does not count; exit with 1 if a goal is missed."""
    pythons = {"": sys.executable, **({"other: ": against} if against else {})}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "pipeline.yaml").write_text(_PIPELINE.format(store=folder / "store", root=demo(folder / "corpus")))
        subprocess.run([sys.executable, "-m", "melmill", "run", "pipeline.yaml"], cwd=folder, check=True)
        times: Times = {}
        for turn in range(repeats + 1):
            for label, python in pythons.items():
                for name, taken in measured(python, folder, turn).items():
                    if turn:
                        times.setdefault(label + name, []).append(taken)
    goals = {
        "melmill run, finished store": ANSWER_S,
        "new run: until the first task starts": FIRST_TASK_S,
    }
    figures = []
    for name, taken in times.items():
        figures.append(Figure(name=name, measured=median(wall for wall, _ in taken), unit="s", goal=goals.get(name)))
        if cpu_s := median(cpu for _, cpu in taken):
            figures.append(Figure(name=f"{name}, processor time", measured=cpu_s, unit="s"))
    click.echo(table(figures))
    sys.exit(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    main()
