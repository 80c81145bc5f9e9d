"""Simulate a million utterances: ``python -m benchmarks.scale [--utterances N] [--only PART]``.

1,000,000 utterances in 20,000 shards go through 6 nodes that do nothing. The planner, the window of
shards and the Dask executor are the real ones. Scheduler and workers are processes of their own. The
work of stages and their files is left out.

The part `faked` is for a hundred million, as ``--utterances 100000000 --only faked``. It makes the
catalogue of such a corpus (5 GB), and records of one shard in a hundred.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import psutil

from benchmarks.child import measure
from benchmarks.figure import Figure, table
from benchmarks.noop import registered

MIB, GIB = 2**20, 2**30
PARTS = ("plan", "faked", "frontier", "stream", "listing", "corpus")
# Shards of a faked corpus that have records, of how many.
RECORDED = 100
# Tasks of it that are handed out.
HANDED_OUT = 200_000
# A tenth of the tasks must need no less memory than all, but for what caches and allocators keep.
GROWTH_MIB = 48


@dataclass
class Watched:
    """The largest resident size of a process while it is watched."""

    pid: int
    peak_bytes: int = 0
    _end: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Sample the size twice a second."""
        process = psutil.Process(self.pid)
        while not self._end.wait(0.5):
            self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample the size while the block lasts."""
        self._end.clear()
        self.peak_bytes = psutil.Process(self.pid).memory_info().rss
        thread = threading.Thread(target=self.watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()


@click.command()
@click.option("--utterances", default=1_000_000, show_default=True)
@click.option("--nodes", default=6, show_default=True)
@click.option("--tasks", type=int, help="Tasks through Dask; all by default.")
@click.option("--workers", default=2, show_default=True, help="Worker processes.")
@click.option("--records", default=1_000_000, show_default=True, help="Records and files in the listings.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Measure this part; may be repeated.")
def main(utterances: int, nodes: int, tasks: int | None, workers: int, records: int, only: tuple[str, ...]) -> None:
    """Print one table: figure, measured value, goal, met.

    The exit code is 1 if a goal is not met.
    """
    wanted = only or PARTS
    n_tasks = utterances // 50 * nodes
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="melmill-scale-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(registered(folder / "site"))
        measure("benchmarks.million:write_pipeline", folder=name, n_utterances=utterances, n_nodes=nodes)
        print(
            f"{utterances:,} utterances, {utterances // 50:,} shards of 300 s, {nodes} nodes: {n_tasks:,} tasks",
            flush=True,
        )
        if "frontier" in wanted:
            figures += _frontier(name)
        if "stream" in wanted:
            figures += _stream(folder, stack, tasks or n_tasks, n_tasks, workers)
        if "plan" in wanted:
            figures += _plans(name)
        if "faked" in wanted:
            figures += _faked(folder / "faked", utterances, nodes)
        if "listing" in wanted:
            figures += _listing(folder / "listing", records)
        if "corpus" in wanted:
            figures += _corpus(folder / "librispeech", records)
    print(table(figures))
    sys.exit(any(figure.met is False for figure in figures))


def _plans(folder: str) -> list[Figure]:
    plan = measure("benchmarks.thousand_hours:plan", folder=folder)
    measure("benchmarks.thousand_hours:make_store", folder=folder)
    resume = measure("benchmarks.thousand_hours:resume", folder=folder)
    if resume.result["n_run"]:
        raise RuntimeError(f"{resume.result['n_run']} tasks ran, expected none")
    return [
        Figure(name="first plan", measured=plan.process_s, unit="s", goal=5),
        Figure(name="  CPU", measured=plan.cpu_s, unit="s"),
        Figure(name="  peak memory", measured=plan.peak_bytes / GIB, unit="GiB", goal=0.4),
        Figure(name="resume with nothing to do, real records", measured=resume.process_s, unit="s", goal=5),
        Figure(name="  CPU", measured=resume.cpu_s, unit="s"),
        Figure(name="  peak memory", measured=resume.peak_bytes / GIB, unit="GiB", goal=0.4),
    ]


def _faked(folder: Path, n_utterances: int, n_nodes: int) -> list[Figure]:
    """Measure on a corpus without files, with a catalogue, and with records of a part of its shards."""
    folder.mkdir()
    n_shards = n_utterances // 50
    measure("benchmarks.million:write_pipeline", folder=str(folder), n_utterances=n_utterances, n_nodes=n_nodes)
    measure(
        "benchmarks.hundred_million:make_store",
        folder=str(folder),
        n_utterances=n_utterances,
        n_recorded=n_shards // RECORDED,
    )
    n_handed_out = min(HANDED_OUT, n_shards // 2)
    first = measure("benchmarks.hundred_million:first_task", folder=str(folder), n_handed_out=n_handed_out)
    records = measure("benchmarks.hundred_million:records", folder=str(folder))
    whole = measure("benchmarks.hundred_million:whole_plan", folder=str(folder))
    all_records_s = records.result["record_s"] * n_shards * n_nodes
    first_s = first.process_s - first.wall_s + first.result["first_s"]
    whole_min = (whole.process_s + all_records_s) / 60
    grown_mib = first.result["grown_bytes"] / MIB
    return [
        Figure(name=f"{n_utterances:,} utterances, as catalogued: first task", measured=first_s, unit="s", goal=30),
        Figure(name="  peak memory of the driver", measured=first.peak_bytes / GIB, unit="GiB", goal=4),
        Figure(name=f"  driver grows over {n_handed_out:,} tasks", measured=grown_mib, unit="MiB", goal=GROWTH_MIB),
        Figure(name="  frontier, a task", measured=1e6 * first.result["task_s"], unit="us", goal=200),
        Figure(name="plan, corpus compared, records of 1 %", measured=whole.process_s, unit="s"),
        Figure(name="  CPU", measured=whole.cpu_s, unit="s"),
        Figure(name="  peak memory of the driver", measured=whole.peak_bytes / GIB, unit="GiB", goal=4),
        Figure(name="  CPU, a record", measured=1e6 * records.result["record_s"], unit="us"),
        Figure(name="  with the records of all, extrapolated", measured=whole_min, unit="min", goal=20),
    ]


def _frontier(folder: str) -> list[Figure]:
    found = measure("benchmarks.million:frontier", folder=folder).result
    return [Figure(name="frontier, a task", measured=1e6 * found["task_s"], unit="us", goal=200)]


def _stream(folder: Path, stack: ExitStack, n_tasks: int, n_all: int, workers: int) -> list[Figure]:
    address, pid, worker_pids = stack.enter_context(_cluster(folder, workers))
    figures: list[Figure] = []
    for fused, goal_ms in ((True, 1.5), (False, 3.0)):
        scheduler, runs = Watched(pid), []
        # A first, short one loads what is loaded once.
        for n in (1200, n_tasks // 10, n_tasks):
            before, started_cpu = psutil.Process(pid).memory_info().rss, _cpu_s(pid)
            workers_cpu = sum(map(_cpu_s, worker_pids))
            with scheduler.watched():
                run = measure(
                    "benchmarks.million:stream",
                    folder=str(folder),
                    address=address,
                    workers=workers,
                    n_tasks=n,
                    fused=fused,
                ).result
            run |= {"scheduler_s": _cpu_s(pid) - started_cpu, "scheduler_mib": (scheduler.peak_bytes - before) / MIB}
            run["workers_s"] = sum(map(_cpu_s, worker_pids)) - workers_cpu
            runs.append(run)
            print(f"{n:,} tasks, {'fused' if fused else 'each alone'}: {run['wall_s']:.1f} s", flush=True)
        _, tenth, whole = runs
        how = "chains of a shard" if fused else "each task alone"
        client = [one["grown_bytes"] / MIB for one in (tenth, whole)]
        figures += [
            Figure(
                name=f"Dask, {n_tasks:,} tasks, {how}: a task",
                measured=_ms(whole["wall_s"], n_tasks),
                unit="ms",
                goal=goal_ms,
            ),
            Figure(name="  scheduler's CPU, a task", measured=_ms(whole["scheduler_s"], n_tasks), unit="ms"),
            Figure(name="  client's CPU, a task", measured=_ms(whole["cpu_s"], n_tasks), unit="ms"),
            Figure(name="  workers' CPU, a task", measured=_ms(whole["workers_s"], n_tasks), unit="ms"),
            Figure(name="  scheduler, whole", measured=scheduler.peak_bytes / MIB, unit="MiB"),
            Figure(name=f"  scheduler grows over {n_tasks // 10:,} tasks", measured=tenth["scheduler_mib"], unit="MiB"),
            Figure(
                name=f"  scheduler grows over {n_tasks:,} more",
                measured=whole["scheduler_mib"],
                unit="MiB",
                goal=GROWTH_MIB,
            ),
            Figure(name=f"  client grows over {n_tasks // 10:,} tasks", measured=client[0], unit="MiB"),
            Figure(
                name=f"  client grows over {n_tasks:,}", measured=client[1], unit="MiB", goal=client[0] + GROWTH_MIB
            ),
        ]
        if n_tasks < n_all:
            minutes = whole["wall_s"] / n_tasks * n_all / 60
            figures.append(Figure(name=f"  {n_all:,} tasks by the same pace, not run", measured=minutes, unit="min"))
    return figures


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _ms(seconds: float, n_tasks: int) -> float:
    return 1000 * seconds / n_tasks


@contextmanager
def _cluster(folder: Path, workers: int) -> Iterator[tuple[str, int, list[int]]]:
    """Start a scheduler and workers. Yield the scheduler's address and process, and the workers' processes."""
    import json

    file = folder / "scheduler.json"
    with ExitStack() as stack:
        common = ("--scheduler-file", str(file), "--no-dashboard")
        scheduler = stack.enter_context(_process("scheduler", "--host", "127.0.0.1", "--port", "0", *common))
        arguments = ("worker", "--nthreads", "1", "--no-nanny", *common)
        worker_pids = [stack.enter_context(_process(*arguments)).pid for _ in range(workers)]
        deadline = time.monotonic() + 60
        while not file.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("the scheduler did not start within 60 s")
            time.sleep(0.1)
        time.sleep(5.0)
        yield json.loads(file.read_text())["address"], scheduler.pid, worker_pids


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        cwd=Path(__file__).parents[1],
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _listing(folder: Path, n_records: int) -> list[Figure]:
    measure("benchmarks.million:make_records", folder=str(folder), n_records=n_records)
    names = measure("benchmarks.million:list_names", folder=str(folder))
    read = measure("benchmarks.million:list_records", folder=str(folder))
    if read.result["n_records"] != n_records:
        raise RuntimeError(f"{read.result['n_records']} records were read, expected {n_records}")
    return [
        Figure(name=f"names of {n_records:,} records of one node", measured=names.wall_s, unit="s"),
        Figure(name="  peak memory", measured=names.peak_bytes / GIB, unit="GiB"),
        Figure(name="all of them read", measured=read.wall_s, unit="s"),
        Figure(name="  peak memory", measured=read.peak_bytes / GIB, unit="GiB"),
    ]


def _corpus(folder: Path, n_files: int) -> list[Figure]:
    folder.mkdir()
    measure("benchmarks.million:make_corpus", folder=str(folder), n_files=n_files)
    listed = measure("benchmarks.million:list_corpus", folder=str(folder))
    if listed.result["n_files"] != n_files:
        raise RuntimeError(f"{listed.result['n_files']} files were listed, expected {n_files}")
    return [
        Figure(name=f"{n_files:,} recordings of a corpus listed", measured=listed.wall_s, unit="s"),
        Figure(name="  memory, each", measured=listed.result["bytes"] / n_files, unit="B"),
    ]


if __name__ == "__main__":
    main()
