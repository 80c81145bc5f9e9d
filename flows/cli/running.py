"""`melmill run` and `melmill plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from melmill.cluster.process import keep_freed_memory
from melmill.flows.cli.group import DONE, FAILED, GATE_TRIPPED, LocalPath, Seconds, cli
from melmill.flows.cli.show import as_json, one_line, table, write_file
from melmill.flows.cli.tables import print_headline
from melmill.flows.execution.run import run as run_plan
from melmill.flows.execution.summary import Summary, too_many_quarantined
from melmill.flows.pipeline.pools import cpu_fallbacks, device
from melmill.flows.pipeline.spec import Pipeline, load
from melmill.flows.planning.drawing import dot, drawing
from melmill.flows.planning.estimate import estimate as predicted
from melmill.flows.planning.plan import NodePlan, Plan, make_plan
from melmill.flows.planning.svg import svg
from melmill.flows.runs.trends.page import trends_url
from melmill.flows.tasks.report import HEADLINE
from melmill.flows.watching.observers import Watching
from melmill.flows.watching.progress import duration
from melmill.flows.watching.stalls import STALL_AFTER_S

GIB = 2**30

# How a pipeline is drawn, by the suffix of the file.
DRAWINGS = {".svg": svg, ".dot": dot}

_pipeline = click.argument("pipeline", type=LocalPath(dir_okay=False), default="pipeline.yaml")
_store = click.option("--store", metavar="URL", help="Use this store instead of the pipeline's.")
_also = click.option(
    "--also",
    multiple=True,
    metavar="URL",
    help="Read what this store of the same project has done, in place of doing it again. It is not written.",
)
_set = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="K=V",
    help="Override a field: admm.n_iter=50, or admm.n_iter=[10,100] to fan out.",
)
_until = click.option("--until", metavar="NODE", help="Run this node and what it needs, no more.")
_follow = click.option(
    "--follow",
    is_flag=True,
    help="Follow a corpus that changed: files that are gone leave the results, and changed ones are made anew.",
)
_as_catalogued = click.option(
    "--as-catalogued",
    is_flag=True,
    help="Don't look at the corpora: take what the store has catalogued of them. New files wait for another run.",
)


@cli.command()
@_pipeline
@_store
@_also
@_set
@_until
@_follow
@_as_catalogued
@click.option("--executor", type=click.Choice(["dask", "serial"]), default="dask", show_default=True)
@click.option(
    "--log",
    type=LocalPath(dir_okay=False),
    metavar="FILE",
    help="Append events to FILE, as JSON.",
)
@click.option(
    "--stall-after",
    type=Seconds(),
    default=STALL_AFTER_S,
    show_default=True,
    metavar="SECONDS",
    help="Warn of a task that takes longer than this and five times as long as others of its node.",
)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def run(
    pipeline: Path,
    store: str | None,
    also: tuple[str, ...],
    overrides: tuple[str, ...],
    until: str | None,
    follow: bool,
    as_catalogued: bool,
    executor: Literal["dask", "serial"],
    log: Path | None,
    stall_after: float,
    json_: bool,
) -> int:
    """Run PIPELINE (default: pipeline.yaml), or go on where it stopped.

    The exit code is 3 if a gate of the pipeline tripped, with one line for each rule.

    \b
    Example:
      melmill run pipeline.yaml --set admm.n_iter=50 --until scores --log run.jsonl
    """
    if executor == "serial":
        keep_freed_memory()  # this process computes
    watching = Watching(log=log, stall_after_s=stall_after)
    loaded = load(pipeline, overrides, store, also)
    plan = _plan(loaded, until, follow=follow, as_catalogued=as_catalogued)
    summary = run_plan(plan, executor, partial=until is not None, watching=watching)
    too_many = too_many_quarantined(plan, summary.quarantined)
    if json_:
        as_json(summary.as_dict())
    else:
        _show(summary)
    if too_many:
        click.echo(f"error: {too_many}", err=True)
    if summary.tasks.failed:
        click.echo(
            f"error: {summary.tasks.failed} tasks failed or needed failed ones; run again to retry",
            err=True,
        )
    for line in summary.tripped:
        click.echo(f"tripped: {one_line(line)}", err=True)
    if too_many or summary.tasks.failed:
        return FAILED
    return GATE_TRIPPED if summary.tripped else DONE


def _plan(pipeline: Pipeline, until: str | None, *, follow: bool, as_catalogued: bool) -> Plan:
    if follow and as_catalogued:
        raise click.UsageError("--follow looks at the corpora, and --as-catalogued does not: give one of them")
    return make_plan(pipeline, until, follow=follow, as_catalogued=as_catalogued)


def _show(summary: Summary) -> None:
    tasks = summary.tasks
    if tasks.run or tasks.failed:
        took = duration(summary.duration_s)
        done = f"{tasks.run} tasks run, {tasks.reused} reused, {tasks.failed} failed in {took}"
    else:
        done = f"nothing to run: all {tasks.total} tasks are done"
    if summary.report:
        from melmill.storage.files.location import Location

        folder, _, _ = summary.report.rpartition("/")
        print_headline(Location(folder).read(HEADLINE))
    click.echo(f"{done}; {summary.utterances} utterances, {summary.quarantined} quarantined")
    for note in summary.notes:
        click.echo(f"note: {one_line(note)}")
    click.echo(f"store:  {summary.store}")
    for training in summary.trainings:
        click.echo(f"training: {training}")
    for report in summary.reports:
        click.echo(f"report: {report}")
    for gate in summary.gates:
        for line in gate.unsure:
            click.echo(f"note: {gate.node}: {one_line(line)}")
        click.echo(f"gate:   {gate.node} {'passed' if gate.passed else 'tripped'}: {gate.page}")
    if summary.reports and (trends := trends_url(summary.store)):
        click.echo(f"trends: {trends}")


@cli.command()
@_pipeline
@_store
@_also
@_set
@_until
@_follow
@_as_catalogued
@click.option(
    "--graph",
    type=LocalPath(dir_okay=False),
    metavar="FILE",
    help="Draw the pipeline into FILE: .svg for a browser, .dot for Graphviz.",
)
@click.option("--estimate", is_flag=True, help="Run a few shards, and predict time, disk and files.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def plan(
    pipeline: Path,
    store: str | None,
    also: tuple[str, ...],
    overrides: tuple[str, ...],
    until: str | None,
    follow: bool,
    as_catalogued: bool,
    graph: Path | None,
    estimate: bool,
    json_: bool,
) -> int:
    """Show how many shards of each node of PIPELINE a run would do, and why. Nothing is run or stored.

    With --graph, the pipeline is drawn too: what each node reads, what it has to do, and why.

    With --estimate, each worker of the cluster runs a few shards into the store, and the rest is predicted from
    them: its time, and the disk space and files of all. A run then finds these shards done.

    \b
    Examples:
      melmill plan pipeline.yaml --set admm.n_iter=50
      melmill plan pipeline.yaml --estimate
      melmill plan pipeline.yaml --graph pipeline.svg
    """
    if graph is not None and graph.suffix not in DRAWINGS:
        raise click.BadParameter(f"must end in {' or '.join(DRAWINGS)}, got {str(graph)!r}", param_hint="--graph")
    made = _plan(load(pipeline, overrides, store, also), until, follow=follow, as_catalogued=as_catalogued)
    if graph is not None:
        write_file(graph, DRAWINGS[graph.suffix](drawing(made)).encode())
    if estimate:
        return _estimate(made, json_)
    if json_:
        as_json(_plan_json(made))
        return DONE
    table(("node", "stage", "pool", "device", "shards", "to run", "why"), map(_row, made.nodes.values()))
    fallbacks = cpu_fallbacks({name: node.node.route for name, node in made.nodes.items()})
    if fallbacks:
        click.echo(fallbacks)
    hours = sum(catalogue.duration_s for catalogue in made.catalogues.values()) / 3600
    click.echo(
        f"{made.n_pending} of {made.n_tasks} tasks to run; {made.n_utterances} utterances, {hours:.2f} h of audio"
    )
    for note in made.notes:
        click.echo(f"note: {one_line(note)}")
    return DONE


def _row(plan: NodePlan) -> tuple[str | int, ...]:
    node = plan.node
    why = "; ".join(f"{reason} ({count})" for reason, count in sorted(plan.reasons.items())) or "done"
    return node.name, node.stage.uses, str(node.route), device(node.stage), plan.n_shards, len(plan.pending), why


def _estimate(made: Plan, json_: bool) -> int:
    estimated = predicted(made)
    if json_:
        as_json({"pipeline": made.pipeline.name, "store": made.pipeline.store, **estimated.as_dict()})
        return DONE
    rows = [
        (
            node.node,
            node.pool,
            node.shards_left,
            f"{1 / node.task_s_per_audio_s:.0f}" if node.task_s_per_audio_s else "",
            duration(node.left_s),
            f"{node.disk_bytes / GIB:.2f} GiB",
            node.files,
        )
        for node in estimated.nodes
    ]
    table(("node", "pool", "to run", "x real time", "work left", "disk, all done", "files"), rows)
    for pool in estimated.pools:
        click.echo(f"pool {pool.pool}: {pool.slots} at a time, done in about {duration(pool.left_s)}")
    click.echo(
        f"{estimated.sampled} tasks were run to find out, and are done; "
        f"the rest takes about {duration(estimated.left_s)}; "
        f"all of it needs {estimated.disk_bytes / GIB:.2f} GiB in {estimated.files} files"
    )
    if estimated.left_out:
        click.echo(f"not counted: {', '.join(estimated.left_out)}")
    return DONE


def _plan_json(made: Plan) -> dict[str, object]:
    return {
        "pipeline": made.pipeline.name,
        "store": made.pipeline.store,
        "tasks": {"total": made.n_tasks, "run": made.n_pending, "reused": made.n_tasks - made.n_pending},
        "utterances": made.n_utterances,
        "notes": list(made.notes),
        "nodes": [
            {
                "node": name,
                "stage": node.node.stage.uses,
                "key": node.node.key,
                "pool": node.node.route.pool,
                "pool_asked": node.node.route.asked,
                "device": device(node.node.stage),
                "shards": node.n_shards,
                "run": len(node.pending),
                "reasons": dict(node.reasons),
                **({"note": node.note} if node.note else {}),
            }
            for name, node in made.nodes.items()
        ],
    }
