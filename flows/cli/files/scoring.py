"""`melmill score`: folders of audio against recordings, without a pipeline of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from melmill.flows.cli.group import DONE, FAILED, LocalPath, cli
from melmill.flows.cli.show import as_json, one_line
from melmill.flows.cli.tables import format_option, print_means
from melmill.stages.numeric.checks import MAX_SR

if TYPE_CHECKING:
    from melmill.flows.scoring.card import Card


@cli.command()
@click.argument("reference", metavar="REF_FOLDER")
@click.argument("systems", metavar="EST_FOLDER...", nargs=-1, required=True)
@click.option(
    "-o", "--output", type=LocalPath(file_okay=False), required=True, metavar="FOLDER", help="Write the report here."
)
@click.option(
    "-m",
    "--metrics",
    "metrics",
    multiple=True,
    metavar="NAMES",
    help="Metrics, between commas; all: each that is installed. Repeatable.  [default: pesq_wb,estoi,scm,sc]",
)
@click.option(
    "--sr",
    type=click.IntRange(min=1, max=MAX_SR),
    help="Compare at this rate, Hz.  [default: that of most files of each folder]",
)
@click.option(
    "--preset", metavar="NAME", help="Mel of the spectral metrics.  [default: paper, at the rate of the recordings]"
)
@click.option(
    "--lengths",
    type=click.Choice(["same", "cut"]),
    default="same",
    show_default=True,
    help="Lengths that differ by more than a hop: no value, or cut both to the shorter.",
)
@click.option("--pairs", metavar="FILE", help="Table of estimates and references, where names don't tell.")
@click.option("--store", metavar="URL", help="Keep results here.  [default: store, in the report's folder]")
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1, max=4096), metavar="N", help="Processes.  [default: one per core]"
)
@format_option
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def score(
    reference: str,
    systems: tuple[str, ...],
    output: Path,
    metrics: tuple[str, ...],
    sr: int | None,
    preset: str | None,
    lengths: Literal["same", "cut"],
    pairs: str | None,
    store: str | None,
    jobs: int | None,
    format_: str,
    json_: bool,
) -> int:
    """Score the files in each EST_FOLDER against the recordings in REF_FOLDER, and write a report.

    A folder is a system, and NAME=FOLDER names it. Files belong together by name, whatever their
    folders and formats. The first system is the baseline of the paired tests.

    Call it again to go on where it stopped, or after files or folders were added, changed or
    removed: what is scored already is kept. FOLDER/pipeline.yaml is the pipeline that all of this
    stands for.

    \b
    Examples:
      melmill score recordings out/hifigan out/vocos -o report
      melmill score recordings a=out/a/wavs b=out/b/wavs -o report -m pesq_wb,estoi,mcd -j 8
    """
    from melmill.flows.scoring.card import score_folders
    from melmill.flows.scoring.request import Request, chosen_metrics, named_systems

    chosen = chosen_metrics([name.strip() for names in metrics for name in names.split(",") if name.strip()])
    request = Request(
        reference=reference,
        systems=named_systems(systems, output),
        output=output,
        metrics=chosen,
        preset=preset,
        sr=sr,
        lengths=lengths,
        pairs=pairs,
        store=store,
        jobs=jobs or len(os.sched_getaffinity(0)),
    )
    card = score_folders(request)
    failed = card.summary.tasks.failed
    if json_:
        as_json(card.as_dict())
    else:
        if card.files:
            print_means(card.report, format_)
        # What is typeset goes into a file by itself.
        for line in _said(card):
            click.echo(line, err=format_ != "table")
    if failed:
        click.echo(f"error: {failed} tasks failed or needed failed ones; run again to retry", err=True)
    return FAILED if failed or not card.files else DONE


def _said(card: Card) -> Iterator[str]:
    for note in card.notes:
        yield f"note: {one_line(note)}"
    yield f"pipeline: {card.request.pipeline_path}"
    if card.page is not None:
        yield f"report: {card.page}"
