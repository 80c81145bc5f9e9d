"""A task, the unit of work that executors hand out, and the receipt that it returns."""

from __future__ import annotations

from dataclasses import dataclass

# Stands for the number of a shard in tasks over whole corpora: reports and trainings.
ALL_SHARDS = -1


@dataclass(frozen=True, slots=True, order=True)
class Task:
    """Name the work of one node on one shard of one corpus.

    A task over whole corpora has the shard `ALL_SHARDS` and an empty corpus.
    """

    node: str
    corpus: str
    shard: int

    @classmethod
    def whole(cls, node: str) -> Task:
        """Return the task of a node that works on whole corpora."""
        return cls(node, "", ALL_SHARDS)

    @property
    def is_whole(self) -> bool:
        """Whether it works on whole corpora."""
        return self.shard == ALL_SHARDS

    def __str__(self) -> str:
        return f"{self.node}, {'all shards' if self.is_whole else f'shard {self.shard}'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Sum up in a few numbers what a task did. Its data went to the store.

    Parameters
    ----------
    n_utterances, n_quarantined : int
        Utterances in the shard, and how many of them this task put into quarantine.
    quarantined : tuple of str
        Ids of those.
    audio_s : float
        Audio in the shard, s.
    compute_s, wall_s : float
        Time inside the stage, and of the whole task with reading and writing, s.
    peak_mem_bytes : int
        Largest resident size of the process during the task.
    host, worker, address : str
        Names of the machine and of the Dask worker, and the worker's address. Without Dask the last
        two are empty.
    """

    n_utterances: int
    n_quarantined: int
    quarantined: tuple[str, ...] = ()
    audio_s: float
    compute_s: float
    wall_s: float
    peak_mem_bytes: int
    host: str
    worker: str = ""
    address: str = ""
