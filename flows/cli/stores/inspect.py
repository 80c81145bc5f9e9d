"""`melmill scores` and `report`: show what a store holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from melmill.flows.cli.group import DONE, FAILED, LocalPath, cli
from melmill.flows.cli.show import as_json, table, write_file
from melmill.flows.cli.tables import format_option, print_means
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.trends.page import trends_url
from melmill.flows.tasks.report import PAGE
from melmill.flows.watching.status import run_pages
from melmill.storage.store import Store

_store = click.argument("store", metavar="STORE")
_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")


@cli.command()
@_store
@click.option(
    "--format", "format_", type=click.Choice(["table", "csv", "json", "parquet"]), default="table", show_default=True
)
@click.option("--output", type=LocalPath(dir_okay=False), help="Write to this file instead of standard output.")
def scores(store: str, format_: str, output: Path | None) -> int:
    """Print one row per utterance and scored node of STORE's last run.

    \b
    Example:
      melmill scores runs/demo --format csv --output scores.csv
    """
    frame = Store.open(store).scores()
    if frame.empty:
        click.echo(f"store {store!r} holds no scores yet: run a pipeline with a score node to its end", err=True)
    if format_ == "table" and output is None:
        values = frame.drop(columns=[name for name in frame.columns if name.startswith(("status_", "weight_"))])
        text = values.map(lambda value: f"{value:.3f}" if isinstance(value, float) else value)
        table(list(text.columns), text.itertuples(index=False))
        return DONE
    if format_ == "parquet":
        data = frame.to_parquet(index=False)
    elif format_ == "json":
        data = (json.dumps(json.loads(frame.to_json(orient="records")), ensure_ascii=False) + "\n").encode()
    else:
        data = frame.to_csv(index=False).encode()
    if output is not None:
        write_file(output, data)
    else:
        sys.stdout.buffer.write(data)
    return DONE


@cli.command()
@_store
@click.option("--node", metavar="NAME", help="Show this report or training only.")
@click.option(
    "--run", "run_id", metavar="RUN", help="Show this run's instead of the last run's: a folder in STORE/runs."
)
@format_option
@_json
def report(store: str, node: str | None, run_id: str | None, format_: str, json_: bool) -> int:
    """Print the table of STORE's last report, and where its page and those of trainings are.

    With another --format than table, nothing but the table is printed.

    \b
    Examples:
      melmill report runs/demo
      melmill report runs/demo --format latex > table.tex
      melmill report runs/demo --node report --run 20260102T030405000000
    """
    pages = run_pages(Store.open(store), run_id, node)
    location = pages.report
    if location is None and not pages.trainings:
        what = f"node {node!r}" if node is not None else "report"
        if run_id is not None:
            text = f"run {run_id!r} of store {store!r} finished no {what}: look at a later run"
        elif node is not None:
            text = f"store {store!r} holds no page of {what} yet: run the pipeline to its end"
        else:
            text = f"store {store!r} holds no report yet: run a pipeline with an aggregate node to its end"
        click.echo(f"error: {text}", err=True)
        return FAILED
    trends = trends_url(store) if node is None and run_id is None else None
    if json_:
        shown = {} if location is None else {"report": f"{location.url}/{PAGE}", "files": sorted(location.sizes())}
        further = {"trends": trends} if trends else {}
        as_json({"store": store, **shown, "trainings": list(pages.trainings), **further})
        return DONE
    if format_ != "table":
        if location is None:
            raise PipelineError(f"the page of {node!r} is that of a training: --format {format_} takes a report")
        print_means(location, format_)
        return DONE
    for page in pages.trainings:
        click.echo(f"training: {page}")
    if location is not None:
        print_means(location, format_)
        click.echo(f"report: {location.url}/{PAGE}")
    if trends:
        click.echo(f"trends: {trends}")
    return DONE
