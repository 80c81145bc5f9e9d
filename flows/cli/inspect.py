"""`melmill scores` and `report`: show what a store holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from melmill.flows.cli.group import DONE, FAILED, cli
from melmill.flows.cli.show import as_json, csv_table, table
from melmill.flows.tasks.report import HEADLINE, PAGE
from melmill.flows.watching.status import latest_report, training_pages
from melmill.storage.store import Store

_store = click.argument("store", metavar="STORE")
_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")


@cli.command()
@_store
@click.option(
    "--format", "format_", type=click.Choice(["table", "csv", "json", "parquet"]), default="table", show_default=True
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of standard output."
)
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
        values = frame.drop(columns=[name for name in frame.columns if name.startswith("status_")])
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
        output.write_bytes(data)
    else:
        sys.stdout.buffer.write(data)
    return DONE


@cli.command()
@_store
@_json
def report(store: str, json_: bool) -> int:
    """Print the table of STORE's last report, and where its page and those of trainings are.

    \b
    Example:
      melmill report runs/demo
    """
    opened = Store.open(store)
    location, trainings = latest_report(opened), training_pages(opened)
    if location is None and not trainings:
        click.echo(
            f"error: store {store!r} holds no report yet: run a pipeline with an aggregate node to its end", err=True
        )
        return FAILED
    if json_:
        shown = {} if location is None else {"report": f"{location.url}/{PAGE}", "files": sorted(location.sizes())}
        as_json({"store": store, **shown, "trainings": trainings})
        return DONE
    for page in trainings:
        click.echo(f"training: {page}")
    if location is not None:
        csv_table(location.read(HEADLINE))
        click.echo(f"report: {location.url}/{PAGE}")
    return DONE
