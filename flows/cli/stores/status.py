"""`melmill status`: say how far the last run of a store is, once or until it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime

import click

from melmill.flows.cli.group import DONE, FAILED, INTERRUPTED, Seconds, cli
from melmill.flows.cli.show import as_json, made_table, table
from melmill.flows.watching.progress import duration
from melmill.flows.watching.status import NodeState, RunStatus, StatusReader
from melmill.storage.runs import SILENT_S
from melmill.storage.store import Store

COLUMNS = ("node", "stage", "shards done", "failed", "quarantined", "compute", "x real time", "memory", "last 5 min")


@cli.command()
@click.argument("store", metavar="STORE")
@click.option("--watch", is_flag=True, help="Refresh until the run has ended.")
@click.option("--interval", type=Seconds(), default=5.0, show_default=True, help="Seconds between refreshes.")
@click.option(
    "--json", "json_", is_flag=True, help="Print one JSON object to standard output; with --watch, one per refresh."
)
def status(store: str, watch: bool, interval: float, json_: bool) -> int:
    """Say how far each node of the last run is.

    All is read from the STORE, so this works on any machine that reaches it.

    \b
    Examples:
      melmill status runs/demo
      melmill status s3://bucket/runs/demo --watch
    """
    reader = StatusReader(Store.open(store))
    if not watch:
        now = reader.read()
        if json_:
            as_json(_json(store, now))
        else:
            table(COLUMNS, map(_row, now.nodes))
            for line in _notes(now):
                click.echo(line)
        return DONE
    try:
        return _watch(store, reader, interval, json_)
    except KeyboardInterrupt:
        # Only the watching was interrupted, not the run.
        return INTERRUPTED


def _watch(store: str, reader: StatusReader, interval: float, json_: bool) -> int:
    statuses = _refreshed(reader, interval)
    if json_:
        for now in statuses:
            as_json(_json(store, now))
    elif sys.stdout.isatty():
        now = _live(statuses)
    else:
        printed: set[str] = set()
        for now in statuses:
            news = [line for line in (*_notes(now), *_stalled(now)) if line not in printed]
            printed.update(news)
            for line in (_line(now), *news):
                click.echo(line)
        table(COLUMNS, map(_row, now.nodes))
    if not json_:
        for one in now.run.failures if now.run is not None else ():
            click.echo(f"failed: {_task(one)}: {one['reason']}")
    return DONE if now.run is None or now.run.state == "done" else FAILED


def _refreshed(reader: StatusReader, interval: float) -> Iterator[RunStatus]:
    """Yield the status now and every `interval` s, for the last time when the run has ended."""
    while True:
        now = reader.read()
        yield now
        if now.over:
            return
        time.sleep(interval)


def _live(statuses: Iterator[RunStatus]) -> RunStatus:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for now in statuses:
            lines = [*_notes(now), _line(now), *_stalled(now)]
            live.update(Group(made_table(COLUMNS, map(_row, now.nodes)), *map(Text, lines)), refresh=True)
    return now


def _row(node: NodeState) -> tuple[object, ...]:
    return (
        node.node,
        node.stage,
        f"{node.done}/{node.shards}",
        node.failed,
        node.quarantined,
        duration(node.compute_s),
        f"{node.audio_s / node.compute_s:.0f}" if node.compute_s else "",
        f"{node.peak_mem_bytes / 2**20:.0f} MiB" if node.peak_mem_bytes else "",
        node.recent or "",
    )


def _line(now: RunStatus) -> str:
    last, left = now.last, now.time_left_s
    # The clock of the other machine may be ahead.
    ago_s = max(0.0, (now.at - datetime.fromisoformat(str(last.last_at))).total_seconds()) if last else 0.0
    parts = [
        f"{now.at.astimezone():%H:%M:%S}  {now.n_done}/{now.n_tasks} tasks",
        f"{now.n_failed} failed" if now.n_failed else "",
        f"{now.tasks_per_min:.1f} tasks/min",
        f"{duration(left)} left" if left is not None and now.n_done < now.n_tasks else "",
        f"last committed: {last.node}, {duration(ago_s)} ago" if last else "",
        _driver(now),
    ]
    return ", ".join(part for part in parts if part)


def _driver(now: RunStatus) -> str:
    if now.run is None:
        return ""
    if now.run.state != "running":
        return f"run {now.run.run_id} {now.run.state}"
    if now.silent_s > SILENT_S:
        return f"no news from run {now.run.run_id} on {now.run.host} for {duration(now.silent_s)}"
    return ""


def _stalled(now: RunStatus) -> list[str]:
    stalled = now.run.stalled if now.run is not None and now.run.state == "running" else ()
    return [
        f"stalled: {_task(one)} ({one['worker']} on {one['host']})"
        + (f", utterance {one['utterance']}" if one["utterance"] else "")
        for one in stalled
    ]


def _notes(now: RunStatus) -> list[str]:
    return [f"{node.node}: {node.note}" for node in now.nodes if node.note]


def _task(one: Mapping[str, object]) -> str:
    return f"{one['node']}, {'all shards' if one['shard'] is None else 'shard ' + str(one['shard'])}"


def _json(store: str, now: RunStatus) -> dict[str, object]:
    return {
        "store": store,
        "at": now.at.isoformat(timespec="seconds"),
        "nodes": [node.as_dict() for node in now.nodes],
        "tasks": {"total": now.n_tasks, "done": now.n_done, "failed": now.n_failed},
        "tasks_per_min": round(now.tasks_per_min, 3),
        "time_left_s": None if now.time_left_s is None else round(now.time_left_s, 1),
        "run": None if now.run is None else now.run.as_dict(),
        "over": now.over,
    }
