"""A job: a task with all that a worker needs, and the facts that its record and receipt hold."""

from __future__ import annotations

import os
import platform
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import ClassVar

import numpy as np

from melmill.cluster.process import peak_bytes, reset_peak
from melmill.flows.pipeline.graph import Node
from melmill.flows.pipeline.pools import CPU, device
from melmill.flows.pipeline.recordings import recordings_of
from melmill.flows.tasks.task import Receipt
from melmill.stages.contract import Product, Stage
from melmill.stages.task_context import enter_phase
from melmill.storage.arrays import Array
from melmill.storage.product import Address, Facts, ProductFolder
from melmill.storage.reading.recordings import Recordings
from melmill.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Source:
    """Say where the product of a node is, and what it holds.

    `recordings` says where its arrays come from, if they stay in the corpus.
    """

    name: str
    folder: str
    key: str
    product: Product
    recordings: Recordings | None = None

    @classmethod
    def of(cls, node: Node) -> Source:
        """Return where the product of a node is."""
        return cls(
            name=node.name, folder=node.folder, key=node.key, product=node.product, recordings=recordings_of(node)
        )

    def in_store(self, store: Store) -> ProductFolder:
        """Return the folder of the product."""
        return store.product(self.folder, self.key, self.recordings)


class Held:
    """Arrays that jobs of one shard hand on in memory, by the product's folder and key.

    They have the values that reading the store gives.
    """

    def __init__(self) -> None:
        self._arrays: dict[Address, Mapping[str, Array]] = {}
        self._wanted: Collection[Address] = ()

    def keep(self, wanted: Collection[Address]) -> None:
        """Keep and take only what later jobs read."""
        self._wanted = wanted
        self._arrays = {address: arrays for address, arrays in self._arrays.items() if address in wanted}

    def put(self, address: Address, arrays: Mapping[str, Array]) -> None:
        """Hold what a job stored, by utterance id."""
        if address in self._wanted:
            self._arrays[address] = arrays

    def get(self, address: Address) -> dict[str, Array] | None:
        """Return copies of what is held, as a stage may change its input; None if nothing is."""
        arrays = self._arrays.get(address)
        return None if arrays is None else {name: np.array(array, order="C") for name, array in arrays.items()}


class Job(ABC):
    """A task as it travels to a worker: names and parameters, but no data."""

    # Whether a later attempt goes on from what this one saved.
    resumes: ClassVar[bool] = False

    @abstractmethod
    def run(self) -> Receipt:
        """Do the work and commit it."""

    def run_holding(self, held: Held) -> Receipt:
        """Do the same as `run`, taking inputs that are held, and handing on what is made."""
        del held
        return self.run()

    @property
    def reads(self) -> frozenset[Address]:
        """Folder and key of the arrays that it can take from memory."""
        return frozenset()

    @property
    def makes(self) -> frozenset[Address]:
        """Folder and key of the arrays that it can hand on in memory."""
        return frozenset()

    def done(self) -> Receipt | None:
        """Return the receipt of a whole record in the store; None if there is none."""
        return None

    def saved(self) -> str | None:
        """Return a stamp that changes when the job saves its progress; None if it saved none."""
        return None

    def suspecting(self, suspects: Collection[str], *, trusted: bool) -> Job:
        """Return the job for a machine that judges utterances by what other machines made of them.

        Parameters
        ----------
        suspects : collection of str
            Ids of utterances that failed on another machine.
        trusted : bool
            Whether the machine is known to work, so that what fails is to blame itself.
        """
        del suspects, trusted
        return self


@dataclass(frozen=True, kw_only=True)
class NodeJob(Job):
    """The work of one node.

    Parameters
    ----------
    store : str
        URL of the store.
    node : Source
        What the job makes.
    stage : Stage
    pool : str
        The workers that the job is for, in words.
    attempt : int
        Number of the attempt, from 1.
    """

    store: str
    node: Source
    stage: Stage
    pool: str = ""
    attempt: int = 1


class Stopwatch:
    """Measure a task and its stage, for the record and the receipt of the task.

    It starts when it is made, on the thread that does the task.
    """

    def __init__(self) -> None:
        reset_peak()
        self.started_at = datetime.now(UTC)
        self.started_s = time.perf_counter()
        self.compute_s = 0.0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the block as time inside the stage; after it the task's phase is ``writing``."""
        enter_phase("computing")
        started_s = time.perf_counter()
        yield
        self.compute_s = time.perf_counter() - started_s
        enter_phase("writing")

    def facts(self, job: NodeJob, busy_s: float | None = None) -> Facts:
        """Return what the record says of the work; `busy_s` is the device's time at work, s."""
        used = name = device(job.stage)
        if used != CPU:
            from melmill.stages.numeric.batched.device import device_name  # imports torch

            name = device_name(used)
        return Facts(
            compute_s=self.compute_s,
            started_at=self.started_at.isoformat(timespec="milliseconds"),
            host=platform.node(),
            attempt=job.attempt,
            versions=versions(),
            pool=job.pool,
            device=name,
            # The threads of a process have a core each, but share its GPU.
            worker=f"{os.getpid()}-{threading.get_native_id()}" if used == CPU else f"{os.getpid()}",
            busy_s=busy_s,
            peak_mem_bytes=peak_bytes(),
        )

    def receipt(
        self,
        facts: Facts,
        *,
        n_utterances: int,
        audio_s: float,
        n_quarantined: int = 0,
        quarantined: tuple[str, ...] = (),
    ) -> Receipt:
        """Return the receipt of the task, which ends now."""
        return Receipt(
            n_utterances=n_utterances,
            n_quarantined=n_quarantined,
            quarantined=quarantined,
            audio_s=audio_s,
            compute_s=facts.compute_s,
            wall_s=time.perf_counter() - self.started_s,
            peak_mem_bytes=facts.peak_mem_bytes,
            host=facts.host,
        )


@cache
def versions() -> dict[str, str]:
    """Return the versions of the interpreter and of the packages that results may depend on."""
    packages = ("melmill", "numba", "numpy", "scipy", "torch", "zarr")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
