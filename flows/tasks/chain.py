"""A chain: jobs of one shard that a worker runs one after the other, as one Dask task."""

from __future__ import annotations

import pickle
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from melmill.cluster.process import limit_threads
from melmill.flows.execution.time_limit import time_limit
from melmill.flows.tasks.job import Held, Job
from melmill.flows.tasks.judging import run_judged
from melmill.flows.tasks.task import Receipt
from melmill.flows.watching.events import Place
from melmill.stages.task_context import current_task
from melmill.storage.product import Address

# Least time between two messages of a worker about the jobs of its chains, s.
TELL_EVERY_S = 1.0

# The last topics whose clients were interrupted: their chains begin no further job. A worker may
# serve many clients, so the first are forgotten.
_stopped: deque[str] = deque(maxlen=100)


class _LastTold(threading.local):
    """When this thread last told something, on the monotonic clock, s, and to whom."""

    topic = ""
    at_s = 0.0


_last_told = _LastTold()


@dataclass(frozen=True, kw_only=True)
class Link:
    """A job of a chain.

    Parameters
    ----------
    label : str
        Name of the attempt.
    pickled : bytes
        The job. A worker that lacks a module of it says so, and stays up.
    reads : frozenset of (str, str)
        Folder and key of the arrays that it can take from memory.
    limit_s : float or None
        The worker ends itself if the job takes longer, s.
    """

    label: str
    pickled: bytes
    reads: frozenset[Address] = frozenset()
    limit_s: float | None = None

    @classmethod
    def of(cls, label: str, job: Job, limit_s: float | None) -> Link:
        """Return the link of a job."""
        return cls(label=label, pickled=pickle.dumps(job), reads=job.reads, limit_s=limit_s)


@dataclass(kw_only=True)
class Told:
    """What a worker tells of a chain while it runs, and at its end.

    Parameters
    ----------
    label : str
        The job that begins now. Empty at the end.
    receipts : dict of str to Receipt
        Of the jobs that are done, by label.
    """

    label: str = ""
    receipts: dict[str, Receipt] = field(default_factory=dict)

    def message(self) -> bytes:
        """Return what Dask's events carry without a look into it."""
        return pickle.dumps((self.label, self.receipts))

    @classmethod
    def of(cls, message: bytes) -> Told:
        """Return what a message says."""
        label, receipts = pickle.loads(message)
        return cls(label=label, receipts=receipts)


def stop_chains(topic: str) -> None:
    """Let the chains of a client in this process begin no further job."""
    _stopped.append(topic)


def run_chain(links: Sequence[Link], topic: str, after: Sequence[object] = ()) -> tuple[Receipt, ...]:
    """Run jobs on a Dask worker, in order; return the receipts of those that are done.

    They are fewer than the jobs if the client was interrupted. An error ends the chain. It gets
    attributes: `place`, which says where it happened, `chain`, which is the Dask key, and
    `receipts`.

    Parameters
    ----------
    links : sequence of Link
        Each after those that it reads.
    topic : str
        Dask topic of the client, which receives the lines that jobs report, and what `Told` holds.
    after : sequence
        Answers of the chains that this one waited for.
    """
    from distributed.worker import get_worker, thread_state

    del after
    limit_threads(1)
    worker, key = get_worker(), thread_state.key

    def is_wanted() -> bool:
        # Dask releases the task when its client stops, disconnects or is lost. It can't end the
        # thread.
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    place = Place(worker=str(worker.name), host=platform.node(), address=worker.address)
    report = partial(worker.log_event, topic)
    receipts: list[Receipt] = []
    told, held = Told(), Held()
    try:
        for i, link in enumerate(links):
            if topic in _stopped or (i and not is_wanted()):
                break
            held.keep({address for later in links[i:] for address in later.reads})
            told.label = link.label
            _tell(told, topic, report)
            with current_task(link.label, report=report, is_wanted=is_wanted), time_limit(link.limit_s):
                receipts.append(_receipt(link, held, place))
            told.receipts[link.label] = receipts[-1]
            if receipts[-1].n_quarantined:
                # Too many of them stop the run.
                _last_told.topic = ""
    except Exception as error:
        error.__dict__.update(place=place, chain=key, receipts=tuple(receipts))
        raise
    # It goes ahead of Dask's own message that the task is done, so that the client need not fetch
    # the receipts from here.
    told.label = ""
    report(told.message())
    return tuple(receipts)


def _receipt(link: Link, held: Held, place: Place) -> Receipt:
    """Run a job, unless it is done; return its receipt."""

    def run() -> Receipt:
        job: Job = pickle.loads(link.pickled)
        # Dask runs a chain again if its worker died after it had answered.
        done = job.done()
        if done is not None:
            return done
        return replace(job.run_holding(held), worker=place.worker, address=place.address)

    return run_judged(run)


def _tell(told: Told, topic: str, report: Callable[[object], None]) -> None:
    """Tell the client how far a chain is, unless this thread told it something just now."""
    now = time.monotonic()
    if _last_told.topic == topic and now - _last_told.at_s < TELL_EVERY_S:
        return
    _last_told.topic, _last_told.at_s = topic, now
    report(told.message())
    told.receipts.clear()
