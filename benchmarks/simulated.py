"""Simulated workers: real Dask workers, many in a process, whose tasks wait instead of computing."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.estimate import Clock
from benchmarks.million import NoopJob
from melmill.flows.execution.dask import run_dask
from melmill.flows.execution.run import OPEN_PER_SLOT
from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.tasks.task import Receipt
from melmill.flows.watching.observers import Watching, observed
from melmill.storage.store import Store

# A resource for each pool, as `cluster: {type: address}` asks for what its pools declare.
RESOURCES = {"cpu": "CPU", "gpu": "GPU"}

PIPELINE = """\
name: simulated
store: {store}
shard_duration_s: 300
stages:
  speech: {{uses: noop_corpus, n_utterances: {n_utterances}}}
  mel:    {{uses: noop, from: speech}}
  invert: {{uses: noop, from: mel}}
  voc:    {{uses: noop, from: mel, pool: gpu}}
  scores: {{uses: noop, from: voc}}
cluster:
  type: address
  address: {address}
  pools:
    cpu: {{workers: {cpu}, resources: {{CPU: 1}}}}
    gpu: {{workers: {gpu}, resources: {{GPU: 1}}}}
"""


@dataclass(frozen=True)
class WaitingJob(NoopJob):
    """Wait as long as the task would take."""

    seconds: float = 0.0

    def run(self) -> Receipt:
        """Return the receipt after a while."""
        time.sleep(self.seconds)
        return replace(super().run(), wall_s=self.seconds)


def serve(scheduler_file: str, pool: str, workers: int) -> None:
    """Run workers of one pool in this process until the scheduler is gone."""
    from distributed import Worker

    async def all_of_them() -> None:
        running = [
            await Worker(
                scheduler_file=scheduler_file,
                nthreads=1,
                name=f"{pool}-{os.getpid()}-{i}",
                resources={RESOURCES[pool]: 1},
                memory_limit=0,
                dashboard=False,
            )
            for i in range(workers)
        ]
        await asyncio.gather(*(worker.finished() for worker in running))

    asyncio.run(all_of_them())


def stream(
    folder: str, address: str, workers: Mapping[str, int], seconds: Mapping[str, float], shards: int
) -> dict[str, Any]:
    """Run chains of waiting tasks on simulated workers; return the time of all, s.

    Parameters
    ----------
    folder : str
    address : str
        The scheduler's.
    workers : mapping of str to int
        By pool.
    seconds : mapping of str to float
        How long the task of each node waits, s.
    shards : int
    """
    file = Path(folder) / "simulated.yaml"
    file.write_text(PIPELINE.format(store=f"{folder}/simulated", n_utterances=50 * shards, address=address, **workers))
    plan = make_plan(load(file))
    store = Store.create(plan.pipeline.store, plan.pipeline.name)
    nodes = {name: node_plan.node for name, node_plan in plan.nodes.items()}
    pending = {name: set(range(shards)) for name in nodes}
    window = ShardWindow(nodes, pending, max_open=OPEN_PER_SLOT * sum(workers.values()))
    clock, n_workers = Clock(), sum(workers.values())
    watching = Watching(listeners=(clock,))
    with observed(plan, store, f"simulated-{os.getpid()}", "dask", n_workers, watching) as announce:
        run_dask(
            window,
            lambda task, attempt, isolated: WaitingJob(folder, task, seconds[task.node]),
            announce,
            plan.pipeline.cluster,
        )
    return {"wall_s": clock.ended - clock.begun}


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
