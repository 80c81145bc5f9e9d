"""How a run is doing, served by its Dask scheduler beside the scheduler's own metrics, for one scrape.

- Keep a scheduler's memory from growing with the number of tasks.
- Where a scheduler shows its pages and metrics.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin

from melmill.cluster.settings import HTTP, SPAN
from melmill.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed import Client, Scheduler

TOPIC = "melmill-metrics"
PATIENCE_S = 2.0

# Field of a node's message, metric, what it says.
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
    """Hold what runs last said of themselves and give it to Prometheus's client library."""

    def __init__(self) -> None:
        self.runs: dict[str, Mapping[str, Any]] = {}

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, runs of one project added up, so that counters only grow while a scheduler lives."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        runs = list(self.runs.values())
        for made, fields in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
            for field, name, says in fields:
                family = made(name, f"{says}, by node.", labels=["project", "node"])
                for labels, value in _added(runs, field).items():
                    family.add_metric(labels, value)
                yield family
        speed = GaugeMetricFamily(
            "melmill_times_real_time", "Audio through all nodes of a run over wall time.", labels=["project"]
        )
        for run in runs:
            if run["alive"]:
                speed.add_metric([run["project"]], run["times_real_time"])
        yield speed


def _added(runs: list[Mapping[str, Any]], field: str) -> dict[tuple[str, str], float]:
    sums: dict[tuple[str, str], float] = {}
    for run in runs:
        for node, counts in run["nodes"].items():
            labels = (run["project"], node)
            sums[labels] = sums.get(labels, 0.0) + counts[field]
    return sums


class RunMetrics(SchedulerPlugin):  # type: ignore[misc]
    """Take what drivers publish under `TOPIC` and serve it at the scheduler's ``/metrics``."""

    name = "melmill-metrics"
    # A scheduler that others started outlives runs, whose counts must stay.
    idempotent = True

    def start(self, scheduler: Scheduler) -> None:
        """Register with the library's registry; without the library the scheduler's own page says what is missing."""
        del scheduler
        self.collector = RunCollector()
        if importlib.util.find_spec("prometheus_client"):
            from prometheus_client import REGISTRY

            REGISTRY.register(self.collector)

    def log_event(self, topic: str, msg: Any) -> None:  # noqa: ANN401 - whatever a topic carries
        """Take a message."""
        if topic == TOPIC:
            self.collector.runs[msg["run"]] = msg

    async def close(self) -> None:
        """Leave the registry, which may outlive the scheduler."""
        if importlib.util.find_spec("prometheus_client"):
            from prometheus_client import REGISTRY

            REGISTRY.unregister(self.collector)


def publisher(client: Client) -> Callable[[Mapping[str, Any]], None]:
    """Return what sends to the client's scheduler how a run is doing, for its ``/metrics``.

    A message holds ``run``, ``project``, ``alive``, ``times_real_time`` and ``nodes``: by node, the fields of
    `COUNTERS` and `GAUGES`.

    Raises
    ------
    ImportError
        The scheduler is a process that can't import melmill.
    """
    client.register_plugin(RunMetrics())

    def publish(message: Mapping[str, Any]) -> None:
        # A run that failed has left its cluster a moment before its watchers know.
        if client.status == "running":
            # A scheduler that is silent for a while loses nothing: the next message holds all that this one does.
            with suppress(TimeoutError):
                client.sync(client.scheduler.log_event, topic=TOPIC, msg=dict(message), callback_timeout=PATIENCE_S)

    return publish


if TYPE_CHECKING:
    from distributed import Client, Scheduler

# Tasks forgotten between two looks.
EVERY = 64


class SpanPruner(SchedulerPlugin):  # type: ignore[misc]
    """Let go of what is over.

    Dask makes a group for all tasks of one name and forgets it with the last of them, but the span that it belongs to
    keeps it for its statistics, and a word on every graph that was submitted. Streamed in a small window, the tasks of
    a node come and go, each time as a new group of a new graph: some 3 KiB a task. Only spans of melmill's own are
    looked at. Names of the last 100,000 tasks stay in a cache as well.
    """

    name = "melmill-housekeeping"
    idempotent = True

    def start(self, scheduler: Scheduler) -> None:
        """Begin to count."""
        self.scheduler = scheduler
        self.n_forgotten = 0

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Dask's
        """Look every so often."""
        if finish == "forgotten":
            self.n_forgotten += 1
            if self.n_forgotten % EVERY == 0:
                self.prune()

    def prune(self) -> None:
        """Do so now."""
        extension = self.scheduler.extensions.get("spans")
        groups = self.scheduler.task_groups
        for span in extension.spans_search_by_name[(SPAN,)] if extension else ():
            span.groups.intersection_update([group for group in span.groups if groups.get(group.name) is group])
            if span.metadata:
                span.metadata["collections"].clear()
        key_split.cache_clear()


def keep_tidy(client: Client) -> None:
    """Let the client's scheduler forget what is over of spans called `SPAN`.

    Raises
    ------
    ImportError
        The scheduler is a process that can't import melmill.
    """
    client.register_plugin(SpanPruner())


if TYPE_CHECKING:
    from distributed import Client

# Dask's own port; where it is taken the scheduler uses a free one.
PORT = 8787

# A scheduler elsewhere may show its pages to its own machine alone.
ANSWER_S = 2.0


def scheduler_options(spec: ClusterSpec) -> dict[str, Any]:
    """Return the options of a scheduler that melmill starts on this machine.

    Without `dashboard` there is still a small server of metrics and health on a free port of the loopback device.
    """
    if not spec.dashboard:
        return HTTP
    return {"dashboard": True, "dashboard_address": f"127.0.0.1:{PORT}" if spec.dashboard is True else spec.dashboard}


def links(client: Client, spec: ClusterSpec) -> tuple[str | None, str | None]:
    """Return the addresses of the scheduler's pages and of its metrics; None for what it does not serve.

    Of a scheduler that others started, what answers from here is told.
    """
    if "dashboard" not in client.scheduler_info(n_workers=0)["services"]:
        return None, None
    pages: str = client.dashboard_link
    metrics = f"{pages.removesuffix('/status')}/metrics"
    if spec.type == "address":
        return _answering(pages), _answering(metrics)
    shown = spec.dashboard and missing_bokeh(spec) is None
    return pages if shown else None, metrics if importlib.util.find_spec("prometheus_client") else None


def _answering(url: str) -> str | None:
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=ANSWER_S):
            return url
    except OSError:
        return None


def missing_bokeh(spec: ClusterSpec) -> str | None:
    """Say that the pages asked for need a package that is not installed; None where nothing is missing."""
    if not spec.dashboard or spec.type == "address" or importlib.util.find_spec("bokeh"):
        return None
    return "no dashboard: bokeh is not installed; install melmill[observe], or bokeh"
