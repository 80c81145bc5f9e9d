"""`melmill runs`: the history of stores, one run of it, and how two runs differ."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import click

from melmill.flows.cli.group import DONE, Defaulted, cli
from melmill.flows.cli.show import as_json, table
from melmill.flows.runs.addresses import ResolvedRun, parse_address, resolve
from melmill.flows.watching.progress import duration
from melmill.storage.runs import RunRecord
from melmill.storage.store import Store

_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")


class RunsGroup(Defaulted):
    """A group whose first argument may be a store: then it lists."""

    MAIN = "list"


@cli.group(cls=RunsGroup)
def runs() -> None:
    """List the runs of stores; show one of them, compare two, draw how scores went.

    `melmill runs STORE...` lists. A store that is called like a command is written as a path: ./show.

    \b
    Examples:
      melmill runs runs/demo
      melmill runs show runs/demo@nightly
      melmill runs diff runs/demo@baseline runs/demo
    """


@runs.command(name="list")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--metric", metavar="NAME", help="Show the means of this metric, a column for each node that was scored.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Show the last N runs of each store only.")
@_json
def list_runs(stores: tuple[str, ...], metric: str | None, last: int | None, json_: bool) -> int:
    """List the runs of each STORE, the oldest first: how they ended, and what they did.

    A run is `lost` if its driver was killed: it left no outcome, and no news for a minute. What it
    stored is whole, and the next run goes on from there.

    \b
    Example:
      melmill runs runs/demo runs/other --metric pesq_wb
    """
    found = {store: Store.open(store).runs()[-(last or 0) :] for store in dict.fromkeys(stores)}
    if json_:
        as_json({"runs": [run.as_dict() for listed in found.values() for run in listed]})
        return DONE
    if metric is not None:
        metric = _column(metric, [run for listed in found.values() for run in listed])
    for store, listed in found.items():
        if not listed:
            click.echo(f"store {store!r} has no runs yet: run a pipeline on it")
            continue
        scored = _scored(listed, metric) if metric else []
        columns = ("run", "tags", "state", "started", "took", "run", "reused", "failed", "quarantined", *scored)
        rows = [_row(run, metric, scored) for run in listed]
        table(columns, rows, title=store if len(found) > 1 else None)
    return DONE


def _column(metric: str, listed: list[RunRecord]) -> str:
    """Return the column of a metric that the runs have; raise PipelineError where they have none."""
    from melmill.flows.pipeline.convert import unknown
    from melmill.flows.pipeline.errors import PipelineError

    known = {score.metric for run in listed if run.outcome for score in run.outcome.scores}
    # Columns of metrics with a unit have it in their names: scm_db.
    meant = [column for column in known if metric == column] or [
        one for one in known if one.rpartition("_")[0] == metric
    ]
    if len(meant) != 1:
        raise PipelineError(unknown("metric", metric, sorted(known), "the history"), "--metric")
    return meant[0]


def _scored(listed: Iterable[RunRecord], metric: str) -> list[str]:
    rows = (score for run in listed if run.outcome for score in run.outcome.scores)
    return list(dict.fromkeys(score.scored for score in rows if score.metric == metric))


def _row(run: RunRecord, metric: str | None, scored: list[str]) -> tuple[object, ...]:
    outcome = run.outcome
    counts: tuple[object, ...] = ("", "", "", "")
    means: dict[str, str] = {}
    if outcome is not None:
        nodes = outcome.nodes.values()
        counts = (
            sum(node.done for node in nodes),
            sum(node.reused for node in nodes),
            sum(node.failed for node in nodes),
            "" if outcome.quarantined is None else outcome.quarantined,
        )
        means = {
            score.scored: mean_text(score.mean, score.low, score.high)
            for score in outcome.scores
            if score.metric == metric
        }
    elif run.progress is not None:
        nodes_now = run.progress.nodes.values()
        counts = (
            sum(int(node.get("done", 0)) for node in nodes_now),
            "",
            sum(int(node.get("failed", 0)) for node in nodes_now),
            "",
        )
    took = "" if run.duration_s is None else duration(run.duration_s)
    started = datetime.fromisoformat(run.started_at).strftime("%Y-%m-%d %H:%M:%S")
    return (
        run.run_id,
        ", ".join(run.tags),
        "" if run.state == "unknown" else run.state,
        started,
        took,
        *counts,
        *(means.get(node, "") for node in scored),
    )


def mean_text(mean: float | None, low: float | None, high: float | None) -> str:
    """Return a mean with half the width of its interval."""
    if mean is None:
        return ""
    if low is None or high is None:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {(high - low) / 2:.2g}"


@runs.command()
@click.argument("run", metavar="RUN")
@click.option("--pipeline", "as_pipeline", is_flag=True, help="Print the run's pipeline alone, after overrides.")
@_json
def show(run: str, as_pipeline: bool, json_: bool) -> int:
    """Show RUN: what it ran, by what, on what, and what came of it.

    RUN is STORE for its last run, STORE@TAG, or STORE@ID; the beginning of an id is enough.

    \b
    Examples:
      melmill runs show runs/demo
      melmill runs show runs/demo@baseline --pipeline > pipeline.yaml
    """
    found = _whole_run(run)
    if as_pipeline:
        import yaml

        click.echo(yaml.safe_dump(dict(found.manifest.pipeline), sort_keys=False, allow_unicode=True), nl=False)
    elif json_:
        as_json(found.record.as_dict())
    else:
        _show(found)
    return DONE


def _whole_run(text: str) -> ResolvedRun:
    address = parse_address(text)
    found = resolve(address)
    if found.node is not None:
        raise click.UsageError(f"expected a run, got {text!r}, which names the node {found.node!r}: leave it out")
    return found


def _show(found: ResolvedRun) -> None:
    record, facts, outcome = found.record, found.facts, found.outcome
    state = {"unknown": "nothing is known of how it ended", "lost": "lost: its driver was killed"}
    lines = {
        "run": found.run_id,
        "store": found.location.url,
        "project": found.manifest.project,
        "tags": ", ".join(found.tags),
        "state": state.get(record.state, record.state) + (f": {outcome.reason}" if outcome and outcome.reason else ""),
        "started": record.started_at,
        "took": "" if record.duration_s is None else duration(record.duration_s),
    }
    if outcome is not None:
        lines["exit code"] = str(outcome.exit_code)
        if outcome.utterances is not None:
            lines["utterances"] = f"{outcome.utterances}, {outcome.quarantined} quarantined"
    if facts is not None:
        commit = facts.git_commit or ""
        lines |= {
            "command": " ".join(facts.command),
            "overrides": " ".join(facts.overrides),
            "executor": facts.executor + (", some nodes only" if facts.partial else ""),
            "host": facts.host,
            "git commit": commit + (" with changes" if facts.git_dirty else ""),
            "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
        }
    for name, text in lines.items():
        if text:
            click.echo(f"{name + ':':12}{text}")
    rows = []
    for name, entry in found.manifest.nodes.items():
        node = None if outcome is None else outcome.nodes.get(name)
        counts: tuple[str, ...] = ("",) * 6
        if node is not None:
            numbers = (node.done, node.reused, node.failed, node.retried, node.quarantined)
            counts = (*map(str, numbers), duration(node.compute_s))
        rows.append((name, entry.stage, entry.key, *counts))
    columns = ("node", "stage", "key", "run", "reused", "failed", "retried", "quarantined", "compute")
    table(columns, rows)
    if outcome is not None and outcome.scores:
        table(
            ("scored", "metric", "mean", "n", "failed"),
            [(s.scored, s.metric, mean_text(s.mean, s.low, s.high), s.n, s.n_failed) for s in outcome.scores],
        )


@runs.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@_json
def diff(a: str, b: str, json_: bool) -> int:
    """Say how run B differs from run A: fields of the pipeline, nodes and why, versions.

    A and B are STORE, STORE@TAG or STORE@ID, of one store or of two.

    \b
    Example:
      melmill runs diff runs/demo@baseline runs/demo
    """
    from melmill.flows.runs.differences import run_difference, shown

    found = run_difference(_whole_run(a), _whole_run(b))
    if json_:
        as_json(found.as_dict())
        return DONE
    click.echo(f"{found.a} -> {found.b}")
    parts = {"field": found.fields, "version": found.versions, "around": found.around}
    for what, changes in parts.items():
        if changes:
            table((what, "A", "B"), [(c.name, shown(c.before), shown(c.after)) for c in changes])
    if found.nodes:
        rows = [(n.node, n.change, n.before, n.after, "; ".join(n.reasons)) for n in found.nodes]
        table(("node", "", "key in A", "key in B", "why"), rows)
    click.echo(f"{found.n_same} nodes mean the same products in both")
    return DONE


@runs.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", help="Write the page to this path or URL.")
@click.option("--parquet", metavar="FILE", help="Write a table of all summaries to this path or URL.")
@click.option("--mlflow", metavar="URI", help="Log each run that is over to this MLflow server or folder.")
@_json
def page(stores: tuple[str, ...], output: str | None, parquet: str | None, mlflow: str | None, json_: bool) -> int:
    """Draw how each metric went over the runs of each STORE, as one HTML file that loads nothing.

    The page has the intervals of all means, marks changes of versions and of levels, and leads to
    the reports. A run with scores leaves such a page in its store: STORE/runs/trends.html.

    With --parquet, all summaries become a table for other tools: a row for each run, score node and
    metric. With --mlflow, each run that was not logged before becomes an MLflow run.

    \b
    Examples:
      melmill runs page runs/demo -o trends.html
      melmill runs page s3://team/nightly -o s3://team/site/trends.html --parquet runs.parquet
    """
    from melmill.flows.runs.trends.page import store_runs, trends_page
    from melmill.flows.runs.trends.tables import export_to_mlflow, summary_parquet

    if not (output or parquet or mlflow):
        raise click.UsageError("expected -o FILE, --parquet FILE or --mlflow URI")
    opened = [Store.open(store) for store in dict.fromkeys(stores)]
    found = [store.runs() for store in opened]
    listed = [run for some in found for run in some]
    said: dict[str, object] = {"runs": len(listed)}
    if output is not None:
        data = trends_page([store_runs(*pair) for pair in zip(opened, found, strict=True)], output)
        said["page"] = _written(output, data)
    if parquet is not None:
        said["parquet"] = _written(parquet, summary_parquet(listed))
    if mlflow is not None:
        logged, known = export_to_mlflow(listed, mlflow)
        said["mlflow"] = {"uri": mlflow, "logged": logged, "known": known}
    if json_:
        as_json(said)
        return DONE
    for what in ("page", "parquet"):
        if what in said:
            click.echo(f"{what}: {said[what]}")
    if mlflow is not None:
        click.echo(f"mlflow: {logged} runs logged, {known} were there")
    return DONE


def _written(place: str, data: bytes) -> str:
    """Write a file to a path or URL; return where it is."""
    from melmill.storage.files.location import folder_and_name

    folder, name = folder_and_name(place)
    folder.make()
    folder.replace(name, data)
    return f"{folder.url}/{name}"
