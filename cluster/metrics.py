"""How a run is doing, served by its Dask scheduler beside the scheduler's own metrics, for one scrape."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

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
