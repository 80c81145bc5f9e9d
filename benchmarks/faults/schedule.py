"""Draw from a seed which faults strike when, so that a schedule can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Kind(StrEnum):
    """The kinds of faults."""

    WORKER_KILLED = "worker killed"
    NANNY_KILLED = "nanny killed"
    SCHEDULER_KILLED = "scheduler killed"
    CLIENT_KILLED = "client killed"
    WORKER_FROZEN = "worker frozen"
    SCHEDULER_FROZEN = "scheduler frozen"
    CLIENT_FROZEN = "client frozen"
    THOUGHT_DEAD = "worker thought dead"
    CUT_OFF = "worker cut off"
    SICK = "sick worker"
    NO_CACHE = "unwritable cache"
    DISK_FULL = "disk full"
    READ_ONLY = "store read-only"
    QUOTA = "quota reached"
    WRITES_FAIL = "writes fail"
    TRUNCATED = "shard truncated"
    DELETED = "shard deleted"
    RECORD_TORN = "record torn"
    BIT_FLIPPED = "bit flipped"
    WORKER_CLOCK = "worker's clock off"
    CLIENT_CLOCK = "client's clock off"
    POISON_CRASHES = "poison crashes"
    POISON_HANGS = "poison hangs"
    CORPUS_CHANGED = "corpus changed"
    PRUNE_KILLED = "prune killed"
    OBJECTS_WORKER_KILLED = "on S3: worker killed"
    OBJECTS_NANNY_KILLED = "on S3: nanny killed"
    OBJECTS_SCHEDULER_KILLED = "on S3: scheduler killed"
    OBJECTS_CLIENT_KILLED = "on S3: client killed"
    OBJECTS_FROZEN = "on S3: server frozen"
    OBJECTS_PRUNE_KILLED = "on S3: prune killed"

    @property
    def on_objects(self) -> bool:
        """Whether its store is a folder of a bucket."""
        return self.value.startswith("on S3: ")


# Records that appear between two faults, at most.
MAX_PAUSE = 6
# Faults of one round, unless more are needed for each kind to have its turn.
FAULTS = 2


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a schedule.

    Parameters
    ----------
    kind : Kind
    after : int
        Number of records that must appear since the last fault, or since the start.
    pick : float
        Chooses the worker, file or utterance among the candidates, in [0, 1).
    """

    kind: Kind
    after: int
    pick: float

    def of(self, candidates: Sequence[T]) -> T:
        """Return the chosen candidate."""
        return candidates[int(self.pick * len(candidates))]


def schedule(seed: int, n_rounds: int, kinds: Sequence[Kind]) -> list[list[Fault]]:
    """Return the faults of each round. Every kind occurs once before any occurs twice."""
    draw = random.Random(seed)
    deck = _shuffled(kinds, draw)
    n_faults = max(FAULTS, -(-len(kinds) // n_rounds))
    return [[_fault(next(deck), draw) for _ in range(n_faults)] for _ in range(n_rounds)]


def _shuffled(kinds: Sequence[Kind], draw: random.Random) -> Iterator[Kind]:
    while True:
        yield from draw.sample(kinds, len(kinds))


def _fault(kind: Kind, draw: random.Random) -> Fault:
    return Fault(kind=kind, after=draw.randint(1, MAX_PAUSE), pick=draw.random())
