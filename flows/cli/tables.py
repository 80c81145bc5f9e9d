"""Print the table of a report: for a terminal, as numbers, or typeset."""

from __future__ import annotations

import csv
import io

import click

from melmill.flows.cli.show import table
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.tasks.report import HEADLINE
from melmill.storage.files.location import Location

FORMATS = ("table", "csv", "md", "latex")
format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How to print the table of means: numbers as csv; md and latex have the best in bold, ties and failures.",
)
# Metrics up to this number are columns even where there are fewer nodes.
_WIDE = 6


def print_means(report: Location, format_: str) -> None:
    """Print the means of a report, in one of `FORMATS`.

    Parameters
    ----------
    report : Location
        Folder of its files.
    format_ : str

    Raises
    ------
    PipelineError
        It has no means: another stage than `aggregate` made it.
    """
    if format_ == "table":
        print_headline(report.read(HEADLINE))
        return
    import pandas as pd

    from melmill.stages.report.ranking import ranks, standings
    from melmill.stages.report.typeset import latex, markdown, means_table

    files = report.sizes()
    if not {"summary.parquet", "failures.parquet", "scores.parquet"} <= set(files):
        raise PipelineError(f"the report {report.url!r} has no table of means, so it can't be printed as {format_}")

    def read(name: str) -> pd.DataFrame:
        return pd.read_parquet(io.BytesIO(report.read(f"{name}.parquet")))

    summary = read("summary")
    if format_ == "csv":
        whole = summary[summary["level"] == "all"].drop(columns=["level", "subset", "speaker_id"])
        click.echo(whole.to_csv(index=False), nl=False)
        return
    # Reports of earlier versions have no ranks.
    ranked = read("ranks") if "ranks.parquet" in files else ranks(standings(read("scores")))
    made = means_table(summary, ranked, read("failures"))
    click.echo({"md": markdown, "latex": latex}[format_](made), nl=False)


def print_headline(data: bytes) -> None:
    """Print the headline of a report, CSV, as a table; the longer side goes down."""
    header, *rows = csv.reader(io.StringIO(data.decode()))
    if len(header) - 1 > max(_WIDE, len(rows)):
        header, *rows = [list(column) for column in zip(header, *rows, strict=True)]
        header[0] = "metric"
    table(header, rows)
