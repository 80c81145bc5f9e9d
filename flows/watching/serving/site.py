"""What the status page shows of each store. Nothing here knows a server."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2

from melmill.flows.runs.trends.page import report_pages, store_runs, trends_page
from melmill.flows.runs.usage import Usage, size, usage
from melmill.flows.watching.progress import duration
from melmill.flows.watching.status import RunStatus, StatusReader
from melmill.stages.contract import as_float
from melmill.storage.errors import StoreError
from melmill.storage.runs import SILENT_S, RunRecord
from melmill.storage.store import Store

# Stores are read again after this time, s. What one takes needs a look at every file.
_FRESH_S = 5.0
_USAGE_FRESH_S = 60.0
# Files of a store that the page leads to: reports and trainings show themselves by these.
_SHOWN_FILE = re.compile(r"[^/]+/[0-9a-f]{20}/(report/[^/]+|trained)/[^/]+\.(html|csv|svg|json|parquet|png|txt)")
# Utterances in quarantine that one page has, at most.
MOST_QUARANTINED = 500


@dataclass
class Shown:
    """A store that is served. Requests come at any time, so that one lock guards what was read.

    Parameters
    ----------
    store : Store
    name : str
        Its part of the addresses of its pages: the number among all stores that are served.
    """

    store: Store
    name: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reader: StatusReader | None = None
    _runs: list[RunRecord] = field(default_factory=list)
    _read_at: float = -_FRESH_S
    _usage_lock: threading.Lock = field(default_factory=threading.Lock)
    _usage: Usage | None = None
    _usage_at: float = 0.0
    _reports: dict[str, str] = field(default_factory=dict)
    _reports_of: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Place of the store."""
        return self.store.location.url

    def runs(self) -> list[RunRecord]:
        """Return its runs, the oldest first, a few seconds old at most."""
        with self._lock:
            if time.monotonic() - self._read_at > _FRESH_S:
                self._runs = self.store.runs()
                self._read_at = time.monotonic()
            return self._runs

    def usage(self) -> Usage:
        """Return what it takes, a minute old at most."""
        with self._usage_lock:
            if self._usage is None or time.monotonic() - self._usage_at > _USAGE_FRESH_S:
                self._usage = usage(self.store)
                self._usage_at = time.monotonic()
            return self._usage

    def status(self) -> RunStatus | None:
        """Return how far its last run is; None without any run."""
        with self._lock:
            self._reader = self._reader or StatusReader(self.store)
            try:
                return self._reader.read()
            except StoreError:
                if self.store.run_ids():
                    raise
                return None

    def reports(self, runs: Sequence[RunRecord]) -> dict[str, str]:
        """Return the page of each run's report, relative to the store."""
        states = tuple(f"{run.run_id} {run.state}" for run in runs)
        if states != self._reports_of or any(run.state == "running" for run in runs):
            self._reports, self._reports_of = report_pages(self.store, runs), states
        return self._reports

    def file(self, name: str) -> bytes:
        """Return a file of a report or a training; raise FileNotFoundError for all other files."""
        if not _SHOWN_FILE.fullmatch(name):
            raise FileNotFoundError(name)
        return self.store.location.read(name)

    def audio(self, node: str, utterance_id: str) -> bytes:
        """Return the waveform of an utterance as a WAV file; raise KeyError or StoreError where there is none."""
        from melmill.stages.formats.exchange.pcm import encode_audio

        store = Store(self.store.location)
        y = store[node][utterance_id]
        if y.ndim != 1:
            raise StoreError(f"node {node!r} makes no waveforms")
        return encode_audio(as_float(y), store[node].folder.array_spec.sr, "wav", 16).data


def progress(status: RunStatus | None, store: str) -> dict[str, Any]:
    """Return how far a run is, as the page's script takes it."""
    if status is None:
        return {"store": store, "run": None, "nodes": [], "line": "no runs yet", "state": ""}
    run = status.run
    state: str = "" if run is None else run.state
    if state == "running" and status.silent_s > SILENT_S:
        state = "lost"
    line = f"{status.n_done} of {status.n_tasks} tasks"
    if state == "running":
        line += f", {status.tasks_per_min:.0f} a minute"
        line += "" if status.time_left_s is None else f", {duration(status.time_left_s)} left"
    elif state == "lost":
        line += f", no news from its driver for {duration(status.silent_s)}"
    return {
        "store": store,
        "run": None if run is None else run.run_id,
        "state": state,
        "line": line,
        "share": status.n_done / max(1, status.n_tasks),
        "failures": [] if run is None else [_failure(one) for one in run.failures],
        "nodes": [
            {
                "node": node.node,
                "stage": node.stage,
                "done": node.done,
                "shards": node.shards,
                "failed": node.failed,
                "quarantined": node.quarantined,
                "compute": duration(node.compute_s),
                "speed": f"{node.audio_s / node.compute_s:.0f}" if node.compute_s else "",
                "note": node.note,
            }
            for node in status.nodes
        ],
    }


def _failure(one: Any) -> str:  # noqa: ANN401 - a mapping of JSON
    shard = "all shards" if one["shard"] is None else f"shard {one['shard']}"
    return f"{one['node']}, {shard}: {one['reason']}"


class Site:
    """Make the pages of some stores.

    Parameters
    ----------
    stores : sequence of Store
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = {str(at): Shown(store=store, name=str(at)) for at, store in enumerate(stores)}
        self._environment = jinja2.Environment(
            loader=jinja2.FunctionLoader(resource),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def _page(self, template: str, title: str, **values: object) -> bytes:
        rendered = self._environment.get_template(f"{template}.html.j2").render(title=title, **values)
        return rendered.encode()

    def front(self) -> bytes:
        """Return the page of all stores."""
        rows = []
        for shown in self.stores.values():
            runs = shown.runs()
            last = runs[-1] if runs else None
            rows.append(
                {
                    "name": shown.name,
                    "url": shown.url,
                    "project": "" if last is None else last.manifest.project,
                    "last": None if last is None else _run_row(last, ""),
                    "n_runs": len(runs),
                }
            )
        return self._page("front", "melmill", stores=rows)

    def store(self, name: str) -> bytes:
        """Return the page of a store: its progress and its runs."""
        shown = self.stores[name]
        runs = shown.runs()
        reports = shown.reports(runs)
        rows = [_run_row(run, reports.get(run.run_id, "")) for run in reversed(runs)]
        now = progress(shown.status(), shown.url)
        return self._page("store", shown.url, store=shown, runs=rows, progress=now)

    def progress(self, name: str) -> dict[str, Any]:
        """Return how far the last run of a store is."""
        shown = self.stores[name]
        return progress(shown.status(), shown.url)

    def run(self, name: str, run_id: str) -> bytes:
        """Return the page of a run; raise KeyError where there is none."""
        from melmill.flows.runs.trends.page import described

        shown = self.stores[name]
        runs = shown.runs()
        run = {run.run_id: run for run in runs}[run_id]
        report = shown.reports(runs).get(run_id, "")
        nodes = [
            {
                "name": node,
                "stage": entry.stage,
                "key": entry.key,
                "counts": run.outcome and run.outcome.nodes.get(node),
            }
            for node, entry in run.manifest.nodes.items()
        ]
        scores = () if run.outcome is None else run.outcome.scores
        names = {score.metric: described(score.metric) for score in scores}
        return self._page(
            "run",
            f"Run {run_id}",
            store=shown,
            run=run,
            row=_run_row(run, report),
            nodes=nodes,
            scores=scores,
            names=names,
        )

    def trends(self, name: str) -> bytes:
        """Return the page of trends of a store."""
        shown = self.stores[name]
        return trends_page([store_runs(shown.store, shown.runs())], served=True)

    def disk(self, name: str) -> bytes:
        """Return the page of what a store takes, by node and by run."""
        shown = self.stores[name]
        return self._page(
            "disk", f"Disk usage of {shown.url}", store=shown, used=shown.usage(), size=size, duration=duration
        )

    def quarantine(self, name: str) -> bytes:
        """Return the page of the utterances that the last run could not process, with players."""
        shown = self.stores[name]
        store = Store(shown.store.location)
        rows = store.quarantine().to_dict(orient="records")
        sources = self._recordings(store)
        listed = [
            {**row, "source": next((node for node in sources if row["utterance_id"] in store[node]), None)}
            for row in rows[:MOST_QUARANTINED]
        ]
        return self._page("quarantine", f"Quarantine of {shown.url}", store=shown, rows=listed, n=len(rows))

    @staticmethod
    def _recordings(store: Store) -> list[str]:
        """Return the ingest nodes of the last run that hold recordings."""
        return [
            name
            for name, entry in store.nodes.items()
            if (entry.folder, entry.key) in entry.catalogues and entry.kind in ("utterances", "waveform")
        ]


def _run_row(run: RunRecord, report: str) -> dict[str, Any]:
    outcome = run.outcome
    nodes = [] if outcome is None else list(outcome.nodes.values())
    return {
        "id": run.run_id,
        "report": report,
        "tags": run.tags,
        "state": "" if run.state == "unknown" else run.state,
        "started": datetime.fromisoformat(run.started_at).strftime("%Y-%m-%d %H:%M"),
        "took": "" if run.duration_s is None else duration(run.duration_s),
        "run": "" if outcome is None else sum(node.done for node in nodes),
        "reused": "" if outcome is None else sum(node.reused for node in nodes),
        "failed": sum(node.failed for node in nodes),
        "quarantined": "" if outcome is None or outcome.quarantined is None else outcome.quarantined,
    }


def resource(name: str) -> str:
    """Return a template, the style or the script of the site."""
    if name == "page.css":
        return resources.files("melmill.stages.report").joinpath(name).read_text(encoding="utf-8")
    return resources.files("melmill.flows.watching.serving").joinpath(name).read_text(encoding="utf-8")
