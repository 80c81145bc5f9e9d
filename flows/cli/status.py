"""`melmill status`: how far a store's last run is, once or as it goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime

import click

from melmill.flows.cli.group import DONE, FAILED, INTERRUPTED, cli
from melmill.flows.cli.show import as_json, made_table, table
from melmill.flows.watching.progress import duration
from melmill.flows.watching.status import SILENT_S, Look, NodeState, Watcher
from melmill.storage.store import Store

COLUMNS = ("node", "stage", "shards done", "failed", "quarantined", "compute", "x real time", "memory", "last 5 min")


@cli.command()
@click.argument("store", metavar="STORE")
@click.option("--watch", is_flag=True, help="Look again and again until the run has ended.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds between looks."
)
@click.option(
    "--json", "json_", is_flag=True, help="Print one JSON object to standard output, with --watch one a look."
)
def status(store: str, watch: bool, interval: float, json_: bool) -> int:
    """Say how far each node of the last run is, from the STORE alone: on any machine that reaches it.

    \b
    Examples:
      melmill status runs/demo
      melmill status s3://bucket/runs/demo --watch
    """
    watcher = Watcher(Store.open(store))
    if not watch:
        look = watcher.look()
        if json_:
            as_json(_json(store, look))
        else:
            table(COLUMNS, map(_row, look.nodes))
            for line in _notes(look):
                click.echo(line)
        return DONE
    try:
        return _watched(store, watcher, interval, json_)
    except KeyboardInterrupt:
        # Nothing was interrupted but the looking.
        return INTERRUPTED


def _watched(store: str, watcher: Watcher, interval: float, json_: bool) -> int:
    looks = _looks(watcher, interval)
    if json_:
        for look in looks:
            as_json(_json(store, look))
    elif sys.stdout.isatty():
        look = _live(looks)
    else:
        told: set[str] = set()
        for look in looks:
            news = [line for line in (*_notes(look), *_stalled(look)) if line not in told]
            told.update(news)
            for line in (_line(look), *news):
                click.echo(line)
        table(COLUMNS, map(_row, look.nodes))
    if not json_:
        for line in _failures(look):
            click.echo(line)
    return DONE if look.run is None or look.run.state == "done" else FAILED


def _looks(watcher: Watcher, interval: float) -> Iterator[Look]:
    """Yield a look at once and one every `interval` s, the last when the run has ended."""
    while True:
        look = watcher.look()
        yield look
        if look.over:
            return
        time.sleep(interval)


def _live(looks: Iterator[Look]) -> Look:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        for look in looks:
            lines = [*_notes(look), _line(look), *_stalled(look)]
            live.update(Group(made_table(COLUMNS, map(_row, look.nodes)), *map(Text, lines)), refresh=True)
    return look


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


def _line(look: Look) -> str:
    last, left = look.last, look.time_left_s
    parts = [
        f"{look.at.astimezone():%H:%M:%S}  {look.n_done}/{look.n_tasks} tasks",
        f"{look.n_failed} failed" if look.n_failed else "",
        f"{look.tasks_per_min:.1f} tasks/min",
        f"{duration(left)} left" if left is not None and look.n_done < look.n_tasks else "",
        f"last committed: {last.node}, {_ago(look, last)} ago" if last else "",
        _driver(look),
    ]
    return ", ".join(part for part in parts if part)


def _ago(look: Look, node: NodeState) -> str:
    # Another machine's clock may be ahead.
    return duration(max(0.0, (look.at - datetime.fromisoformat(str(node.last_at))).total_seconds()))


def _driver(look: Look) -> str:
    if look.run is None:
        return ""
    if look.run.state != "running":
        return f"run {look.run.run_id} {look.run.state}"
    if look.silent_s > SILENT_S:
        return f"no word from run {look.run.run_id} on {look.run.host} for {duration(look.silent_s)}"
    return ""


def _stalled(look: Look) -> list[str]:
    found = look.run.stalled if look.run is not None and look.run.state == "running" else ()
    return [
        f"stalled: {_task(one)} ({one['worker']} on {one['host']})"
        + (f", utterance {one['utterance']}" if one["utterance"] else "")
        for one in found
    ]


def _notes(look: Look) -> list[str]:
    return [f"{node.node}: {node.note}" for node in look.nodes if node.note]


def _failures(look: Look) -> list[str]:
    found = look.run.failures if look.run is not None else ()
    return [f"failed: {_task(one)}: {one['reason']}" for one in found]


def _task(one: Mapping[str, object]) -> str:
    return f"{one['node']}, {'all shards' if one['shard'] is None else 'shard ' + str(one['shard'])}"


def _json(store: str, look: Look) -> dict[str, object]:
    return {
        "store": store,
        "at": look.at.isoformat(timespec="seconds"),
        "nodes": [node.as_dict() for node in look.nodes],
        "tasks": {"total": look.n_tasks, "done": look.n_done, "failed": look.n_failed},
        "tasks_per_min": round(look.tasks_per_min, 3),
        "time_left_s": None if look.time_left_s is None else round(look.time_left_s, 1),
        "run": None if look.run is None else look.run.as_dict(),
        "over": look.over,
    }
