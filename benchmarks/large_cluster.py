"""Say on paper what a large cluster would do, and check it on workers that only wait.

``python -m benchmarks.large_cluster [--hours 100000] [--cpu 1000] [--gpu 64]``

Measured here: the time of each node on real speech, on one core; and how many shards a second the
scheduler and the driver can hand out. Assumed: the speed of a vocoder on a GPU. The rest is
arithmetic. The rule that it rests on, *the slowest of workers and scheduler decides*, is tried on
real Dask workers whose tasks wait, below and above what the scheduler can do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.child import measure
from benchmarks.figure import Figure, table
from benchmarks.noop import registered
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.storage.records import RecordedFolder
from melmill.storage.store import Store

# Requests of a task at an object store, from docs/stores.md: GET and PUT. A task that Dask runs
# looks for its record first, one GET more. A vocoder asks as an inverter does.
REQUESTS = {"speech": (3, 3), "mel": (6, 2), "invert": (6, 2), "voc": (6, 2), "scores": (9, 2)}
GPU_NODE = "voc"
# Shards of the simulation run as long as this many chains of all workers, and no fewer than these.
ROUNDS, FEWEST = 6, 300

_REAL = """\
name: real
store: {store}
shard_duration_s: 120
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  invert: {{uses: invert, from: mel, quality: good}}
  scores: {{uses: score, from: invert, against: speech}}
cluster: {{pools: {{cpu: {{workers: 1, threads: 1}}}}}}
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Hold workers by pool, and seconds and bytes of each node for a second of audio."""

    workers: Mapping[str, int]
    seconds: Mapping[str, float]
    stored: Mapping[str, float]

    def shards_s(self, shard_s: float) -> dict[str, float]:
        """Return the shards a second that each pool can work through."""
        gpu_s = self.seconds[GPU_NODE]
        cpu_s = sum(self.seconds.values()) - gpu_s
        return {"cpu": self.workers["cpu"] / cpu_s / shard_s, "gpu": self.workers["gpu"] / gpu_s / shard_s}


def real(folder: str, root: str) -> dict[str, Any]:
    """Run a pipeline on one core; return seconds and bytes of each node for a second of audio."""
    file = Path(folder) / "real.yaml"
    file.write_text(_REAL.format(store=f"{folder}/real", root=root))
    plan = make_plan(load(file))
    run(plan)
    store = Store.open(plan.pipeline.store)
    seconds, stored = {}, {}
    for name, node in plan.nodes.items():
        folder_of = store.product(node.node.folder, node.node.key)
        records = RecordedFolder(folder_of.location).records().values()
        audio_s = sum(record.duration_s for record in records)
        seconds[name] = sum(record.compute_s for record in records) / audio_s
        stored[name] = sum(file.n_bytes for record in records for file in record.files.values()) / audio_s
    return {"seconds": seconds, "stored": stored, "audio_s": plan.catalogues["speech"].duration_s}


@contextmanager
def simulated_cluster(folder: Path, workers: Mapping[str, int]) -> Iterator[str]:
    """Start a scheduler and workers that share a process by pool; yield the address."""
    file = folder / "scheduler.json"
    with ExitStack() as stack:
        options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        stack.enter_context(_process("-m", "dask", "scheduler", *options))
        _wait_for(file.exists, "the scheduler")
        for pool, number in workers.items():
            stack.enter_context(_process("-m", "benchmarks.simulated", str(file), pool, str(number)))
        address = json.loads(file.read_text())["address"]
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(sum(workers.values()), timeout=120)
        yield address


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not start within 60 s")
        time.sleep(0.1)


def simulate(
    folder: Path, address: str, workers: Mapping[str, int], seconds: Mapping[str, float], shards: int
) -> float:
    """Return the shards a second of waiting tasks."""
    found = measure(
        "benchmarks.simulated:stream",
        folder=str(folder),
        address=address,
        workers=dict(workers),
        seconds=dict(seconds),
        shards=shards,
    ).result
    return shards / float(found["wall_s"])


def waits(cluster: Cluster, shards_s: float) -> dict[str, float]:
    """Return seconds of each node, in proportion to the measured ones, for which workers take so many shards."""
    shard_s = min(cluster.shards_s(1.0).values()) / shards_s
    return {node: seconds * shard_s for node, seconds in cluster.seconds.items()}


@click.command()
@click.option("--hours", default=100_000.0, show_default=True)
@click.option("--cpu", default=1000, show_default=True, help="CPU workers.")
@click.option("--gpu", default=64, show_default=True, help="GPU workers.")
@click.option("--gpu-speed", default=500.0, show_default=True, help="Assumed speed of the vocoder, x real time.")
@click.option("--simulated", default=60, show_default=True, help="Simulated CPU workers; GPU workers in proportion.")
def main(hours: float, cpu: int, gpu: int, gpu_speed: float, simulated: int) -> None:
    """Print what was measured, the check on simulated workers, and the paper's table."""
    with tempfile.TemporaryDirectory(prefix="melmill-large-") as name, ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(registered(folder / "site"))
        speech = measure("benchmarks.workloads:make_speech", folder=name, at_least_s=600).result
        found = measure("benchmarks.large_cluster:real", folder=name, root=speech["root"]).result
        seconds = {**found["seconds"], GPU_NODE: 1 / gpu_speed}
        stored = {**found["stored"], GPU_NODE: found["stored"]["invert"]}
        print(f"{found['audio_s'] / 60:.0f} min of {speech['name']}, one core; the vocoder's speed is assumed")
        print(
            table([Figure(name=f"  {node}", measured=1 / value, unit="x real time") for node, value in seconds.items()])
        )
        few = {"cpu": simulated, "gpu": max(1, round(simulated * gpu / cpu))}
        limit, figures = _check(folder, Cluster(workers=few, seconds=seconds, stored=stored))
    print(table(figures))
    print(_paper(Cluster(workers={"cpu": cpu, "gpu": gpu}, seconds=seconds, stored=stored), hours, limit))


def _check(folder: Path, few: Cluster) -> tuple[float, list[Figure]]:
    """Return the most shards a second of scheduler and driver, and how well the rule predicts."""
    workers = few.workers
    with simulated_cluster(folder, workers) as address:
        nothing = dict.fromkeys(few.seconds, 0.0)
        simulate(folder, address, workers, nothing, 100)
        limit = simulate(folder, address, workers, nothing, 20 * FEWEST)
        n_tasks = len(few.seconds)
        figures = [
            Figure(name=f"scheduler and driver, {sum(workers.values())} workers", measured=limit, unit="shards/s"),
            Figure(name="  a node's task", measured=1000 / limit / n_tasks, unit="ms"),
        ]
        for share in (0.25, 0.5, 2.0):
            asked = share * limit
            shards = max(FEWEST, round(ROUNDS * sum(workers.values())))
            got = simulate(folder, address, workers, waits(few, asked), shards)
            predicted = min(asked, limit)
            figures += [
                Figure(name=f"workers for {share:g} x that: predicted", measured=predicted, unit="shards/s"),
                Figure(name="  simulated", measured=got, unit="shards/s", goal=0.8 * predicted, at_least=True),
            ]
    return limit, figures


def _paper(cluster: Cluster, hours: float, limit: float) -> str:
    """Return a table of a run on a cluster, a column for each duration of shards."""
    columns = [_column(cluster, hours, limit, shard_s) for shard_s in (300, 1200, 3600)]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    title = f"{hours:,.0f} h on {cluster.workers['cpu']:,} CPU workers and {cluster.workers['gpu']:,} GPUs"
    return "\n".join(["", title, *lines])


def _column(cluster: Cluster, hours: float, limit: float, shard_s: float) -> dict[str, str]:
    shards, able = 3600 * hours / shard_s, cluster.shards_s(shard_s)
    rates = {"CPU workers": able["cpu"], "GPU workers": able["gpu"], "scheduler": limit}
    slowest = min(rates, key=lambda name: rates[name])
    rate = rates[slowest]
    n_get, n_put = (sum(counts) for counts in zip(*REQUESTS.values(), strict=True))
    stored, wall_h = sum(cluster.stored.values()), shards / rate / 3600
    return {
        "audio in a shard": f"{shard_s:,} s",
        "shards; tasks of nodes": f"{shards:,.0f}; {shards * len(cluster.seconds):,.0f}",
        **{f"{name} can do": f"{value:.1f} shards/s" for name, value in rates.items()},
        "slowest": slowest,
        "hours": f"{wall_h:.1f}",
        "tasks of nodes a second": f"{rate * len(cluster.seconds):.0f}",
        "busy: CPU, GPU workers": f"{rate / able['cpu']:.0%}, {rate / able['gpu']:.0%}",
        "GET, PUT a second": f"{rate * n_get:.0f}, {rate * n_put:.0f}",
        "GET, PUT in all": f"{shards * n_get / 1e6:.1f} M, {shards * n_put / 1e6:.1f} M",
        "written a second": f"{rate * shard_s * stored / 2**20:.0f} MiB",
        "stored": f"{3600 * hours * stored / 2**40:.1f} TiB",
        "CPU-hours, GPU-hours paid": f"{wall_h * cluster.workers['cpu']:,.0f}, {wall_h * cluster.workers['gpu']:,.0f}",
    }


if __name__ == "__main__":
    main()
