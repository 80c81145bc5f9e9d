"""What melmill adds to a Dask scheduler: metrics of runs, bounded memory, links to its pages."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin

from melmill.cluster.contract import ClusterSpec
from melmill.cluster.settings import LOOPBACK_HTTP

if TYPE_CHECKING:
    from distributed import Client, Scheduler
    from prometheus_client import Metric

TOPIC = "melmill-metrics"
PUBLISH_TIMEOUT_S = 2.0

# Field of a node's message, metric, text.
COUNTERS = (
    ("done", "melmill_tasks_done", "Tasks done"),
    ("failed", "melmill_tasks_failed", "Tasks given up"),
    ("retried", "melmill_tasks_retried", "Attempts that failed and were followed by another"),
    ("deaths", "melmill_worker_deaths", "Workers that died at a task"),
    ("stalled", "melmill_tasks_stalled", "Attempts that ran much longer than their node's do"),
    ("quarantined", "melmill_utterances_quarantined", "Utterances set aside"),
    ("audio_s", "melmill_audio_seconds", "Audio of the tasks done"),
    ("compute_s", "melmill_compute_seconds", "Time inside stages"),
    ("task_s", "melmill_task_seconds", "Time of whole tasks, with reading and writing"),
)
GAUGES = (
    ("in_flight", "melmill_tasks_in_flight", "Tasks handed out and not answered"),
    ("pending", "melmill_tasks_pending", "Tasks neither done nor given up"),
)


class RunCollector:
    """Hold the last message of each run and give them to Prometheus's client library."""

    def __init__(self) -> None:
        self.runs: dict[str, Mapping[str, Any]] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. Runs of one project are summed, so that counters only grow."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        runs = list(self.runs.values())
        for made, fields in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
            for field, name, text in fields:
                family = made(name, f"{text}, by node.", labels=["project", "node"])
                for labels, value in _sums(runs, field).items():
                    family.add_metric(labels, value)
                yield family
        speed = GaugeMetricFamily(
            "melmill_times_real_time", "Audio through all nodes of a run over wall time.", labels=["project"]
        )
        for run in runs:
            if run["alive"]:
                speed.add_metric([run["project"]], run["times_real_time"])
        yield speed


def _sums(runs: list[Mapping[str, Any]], field: str) -> dict[tuple[str, str], float]:
    sums: dict[tuple[str, str], float] = {}
    for run in runs:
        for node, counts in run["nodes"].items():
            labels = (run["project"], node)
            sums[labels] = sums.get(labels, 0.0) + counts[field]
    return sums


class RunMetrics(SchedulerPlugin):  # type: ignore[misc]
    """Serve what drivers publish under `TOPIC` at the scheduler's ``/metrics``."""

    name = "melmill-metrics"
    # A scheduler that others started outlives runs. Their counts stay.
    idempotent = True

    def start(self, scheduler: Scheduler) -> None:
        """Register with Prometheus's library.

        Without it, the scheduler's own page says what is missing.
        """
        del scheduler
        self.collector = RunCollector()
        if importlib.util.find_spec("prometheus_client"):
            from prometheus_client import REGISTRY

            REGISTRY.register(self.collector)

    def log_event(self, topic: str, msg: Any) -> None:  # noqa: ANN401 - whatever a topic carries
        """Keep a run's message."""
        if topic == TOPIC:
            self.collector.runs[msg["run"]] = msg

    async def close(self) -> None:
        """Unregister, as the registry may outlive the scheduler."""
        if importlib.util.find_spec("prometheus_client"):
            from prometheus_client import REGISTRY

            REGISTRY.unregister(self.collector)


def publisher(client: Client) -> Callable[[Mapping[str, Any]], None]:
    """Return a function that sends a run's counts to the client's scheduler, for its ``/metrics``.

    A message holds ``run``, ``project``, ``alive``, ``times_real_time`` and ``nodes``. The last
    maps each node to the fields of `COUNTERS` and `GAUGES`.

    Raises
    ------
    ImportError
        The scheduler's process can't import melmill.
    """
    client.register_plugin(RunMetrics())

    def publish(message: Mapping[str, Any]) -> None:
        # A run that failed leaves its cluster a moment before its watchers know.
        if client.status == "running":
            # A lost message does no harm: the next one holds all that this one does.
            with suppress(TimeoutError):
                client.sync(
                    client.scheduler.log_event, topic=TOPIC, msg=dict(message), callback_timeout=PUBLISH_TIMEOUT_S
                )

    return publish


SPAN = "melmill"

# Tasks that are forgotten between two prunings.
PRUNE_EVERY = 64


@contextmanager
def one_span() -> Iterator[None]:
    """Count the tasks that are submitted in the block in one span.

    Outside of a span, a scheduler makes a new one whenever it has run dry, and keeps them all.
    """
    from distributed import span

    with span(SPAN):
        yield


_RUN_TOPIC = "melmill-of-"


def topic_of(client_id: str) -> str:
    """Return the topic by which workers tell a client how its tasks are doing.

    >>> topic_of("Client-1")
    'melmill-of-Client-1'
    """
    return _RUN_TOPIC + client_id


class Housekeeper(SchedulerPlugin):  # type: ignore[misc]
    """Forget groups of tasks that are over, and messages to clients that are gone.

    Dask groups tasks by name and forgets a group with its last task. But the group's span keeps it
    for its statistics, and an entry for every graph that was submitted. The tasks of a node come
    and go in a small window, each time as a new group of a new graph. That costs some 3 KiB a task.
    Dask also caches the names of the last 100,000 tasks. Only spans of melmill's own are pruned.

    Dask keeps the last messages of every topic. A scheduler that serves many runs would keep a
    thousand of each.
    """

    name = "melmill-housekeeping"
    idempotent = True

    def start(self, scheduler: Scheduler) -> None:
        """Start counting."""
        self.scheduler = scheduler
        self.n_forgotten = 0

    def transition(self, key: object, start: str, finish: str, *args: object, **kwargs: object) -> None:
        """Prune after every `PRUNE_EVERY` forgotten tasks."""
        if finish == "forgotten":
            self.n_forgotten += 1
            if self.n_forgotten % PRUNE_EVERY == 0:
                self.prune()

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Forget what workers told clients that are gone.

        Workers may tell a client more when it has just left, so those that left before are looked
        at too.
        """
        topics = scheduler._broker._topics
        mine = {topic_of(one) for one in scheduler.clients if one != client}
        for topic in [one for one in topics if one.startswith(_RUN_TOPIC) and one not in mine]:
            del topics[topic]

    def prune(self) -> None:
        """Remove what is over from the spans of melmill."""
        extension = self.scheduler.extensions.get("spans")
        groups = self.scheduler.task_groups
        for span in extension.spans_search_by_name[(SPAN,)] if extension else ():
            span.groups.intersection_update([group for group in span.groups if groups.get(group.name) is group])
            if span.metadata:
                span.metadata["collections"].clear()
        key_split.cache_clear()


def bound_memory(client: Client) -> None:
    """Keep the memory of the client's scheduler from growing with the number of tasks.

    Raises
    ------
    ImportError
        The scheduler's process can't import melmill.
    """
    client.register_plugin(Housekeeper())


# Limit for a question to a scheduler that may be silent by now.
CPU_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ProcessorTimes:
    """Processor time that two processes have taken, s.

    Parameters
    ----------
    driver_s : float
        Of this process.
    scheduler_s : float or None
        Of the scheduler's. None if it runs in this process, whose time is then of both, or if it
        did not answer.
    """

    driver_s: float
    scheduler_s: float | None

    @classmethod
    def of(cls, client: Client, spec: ClusterSpec) -> ProcessorTimes:
        """Return the times until now."""
        scheduler_s: float | None = None
        if not spec.scheduler_here:
            with suppress(OSError):  # a timeout and a lost connection are such errors
                scheduler_s = client.run_on_scheduler(time.process_time, callback_timeout=CPU_TIMEOUT_S)
        return cls(time.process_time(), scheduler_s)

    def since(self, before: ProcessorTimes) -> ProcessorTimes:
        """Return what was taken since other times."""
        scheduler_s = None
        if self.scheduler_s is not None and before.scheduler_s is not None:
            scheduler_s = self.scheduler_s - before.scheduler_s
        return ProcessorTimes(self.driver_s - before.driver_s, scheduler_s)


# Dask's own port. Where it is taken, the scheduler uses a free one.
DASHBOARD_PORT = 8787

# Limit for the pages of a scheduler elsewhere, which may show them to its own machine alone.
PROBE_TIMEOUT_S = 2.0


def scheduler_options(spec: ClusterSpec) -> Mapping[str, bool | str]:
    """Return the options of a scheduler that melmill starts on this machine.

    Without `dashboard`, it still serves metrics and health on a free port of the loopback device.
    """
    if not spec.dashboard:
        return LOOPBACK_HTTP
    return {
        "dashboard": True,
        "dashboard_address": f"127.0.0.1:{DASHBOARD_PORT}" if spec.dashboard is True else spec.dashboard,
    }


def links(client: Client, spec: ClusterSpec) -> tuple[str | None, str | None]:
    """Return the addresses of the scheduler's pages and metrics, None for what it does not serve.

    Of a scheduler elsewhere, an address is returned if it answers from here.
    """
    if "dashboard" not in client.scheduler_info(n_workers=0)["services"]:
        return None, None
    pages: str = client.dashboard_link
    metrics = f"{pages.removesuffix('/status')}/metrics"
    if not spec.scheduler_here:
        return _answering(pages), _answering(metrics)
    shown = spec.dashboard and missing_bokeh(spec) is None
    return pages if shown else None, metrics if importlib.util.find_spec("prometheus_client") else None


def _answering(url: str) -> str | None:
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=PROBE_TIMEOUT_S):
            return url
    except OSError:
        return None


def missing_bokeh(spec: ClusterSpec) -> str | None:
    """Return a line that says how to install what the pages need, None where nothing is missing."""
    if not spec.dashboard or importlib.util.find_spec("bokeh"):
        return None
    return "no dashboard: bokeh is not installed; install melmill[observe], or bokeh"
