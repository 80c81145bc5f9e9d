"""`melmill score` and `trust`: folders of audio against recordings, and which metric to trust on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from melmill.flows.cli.group import DONE, FAILED, LocalPath, cli
from melmill.flows.cli.show import as_json, one_line, table
from melmill.flows.cli.tables import format_option, print_means
from melmill.stages.numeric.checks import MAX_SR
from melmill.stages.score.trust.damages import DAMAGES

if TYPE_CHECKING:
    import pandas as pd

    from melmill.flows.scoring.card import Card

_LEGEND = (
    "A cell: Spearman's correlation of step and score, and the mildest step from which on all are told from the "
    "recording."
)


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
@click.option("--asr", metavar="COMMAND", help="Hear words for wer and cer by it.  [default: pocketsphinx]")
@click.option(
    "--embedding",
    type=click.Choice(["log_mel", "speaker"]),
    default="log_mel",
    show_default=True,
    help="Compare whole sets by it: fad and kad.",
)
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
    asr: str | None,
    embedding: str,
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
      melmill score recordings out/tts -o report -m estoi,wer,fad,kad --asr "python hear.py"
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
        asr=asr,
        embedding=embedding,
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


@cli.command()
@click.argument("place", metavar="STORE|FOLDER")
@click.option(
    "-m",
    "--metrics",
    "metrics",
    multiple=True,
    metavar="NAMES",
    help="Metrics, between commas; all: each that is installed. Repeatable.  [default: pesq_wb,estoi,scm,sc]",
)
@click.option("-n", "--utterances", type=click.IntRange(6, 100_000), metavar="N", help="Damage about N.  [default: 30]")
@click.option(
    "-d", "--damage", "damages", multiple=True, type=click.Choice(list(DAMAGES)), help="Do this one only. Repeatable."
)
@click.option(
    "--preset", metavar="NAME", help="Mel of the spectral metrics.  [default: paper, at the recordings' rate]"
)
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1, max=4096), metavar="N", help="Processes.  [default: one per core]"
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "md", "csv"]),
    default="table",
    show_default=True,
    help="csv has the numbers: a row per metric and damage.",
)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def trust(
    place: str,
    metrics: tuple[str, ...],
    utterances: int | None,
    damages: tuple[str, ...],
    preset: str | None,
    jobs: int | None,
    format_: str,
    json_: bool,
) -> int:
    """Damage recordings in known steps, and say which metric hears it.

    The recordings are some of a STORE's or a FOLDER's. Each is damaged in kinds that listeners hear
    (phase, smeared bands, buzz, noise, clipping, low-pass, quantisation) and in some that nobody
    hears (a shift, another level, polarity). A metric to trust hears the first, in order, and not
    the second.

    If the last run of a STORE has measured this (`trust: true` on a score node), that is printed,
    unless an option asks for something else.

    \b
    Examples:
      melmill trust recordings
      melmill trust runs/demo -m pesq_wb,estoi,mcd -n 40 --format md
    """
    from melmill.flows.scoring.trust import UTTERANCES, TrustRequest, stored_trust, trust_rows
    from melmill.stages.report.tables import judged_by_node
    from melmill.stages.score.trust.judgement import judged, overall

    asked = bool(metrics or utterances or damages or preset)
    rows = None if asked else stored_trust(place)
    if rows is None:
        request = TrustRequest(
            place=place,
            metrics=tuple(name.strip() for names in metrics for name in names.split(",") if name.strip()),
            preset=preset,
            utterances=utterances or UTTERANCES,
            damages=damages or tuple(DAMAGES),
            jobs=jobs or len(os.sched_getaffinity(0)),
        )
        made = judged(trust_rows(request))
    else:
        made = judged_by_node(rows)
        made = made[made["node"] == made["node"].iloc[0]].drop(columns="node")
    if json_:
        whole = overall(made)
        as_json({"place": place, "metrics": _records(whole), "damages": _records(made)})
    elif format_ == "csv":
        click.echo(made.to_csv(index=False), nl=False)
    else:
        _print(made, as_markdown=format_ == "md")
    return DONE


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    import json

    rows: list[dict[str, object]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def _print(made: pd.DataFrame, *, as_markdown: bool) -> None:
    """Print metrics across and damages down, as a terminal is higher than wide."""
    from melmill.stages.score.trust.judgement import as_cells

    header, rows = as_cells(made)
    if as_markdown:
        for line in (header, ["---"] * len(header), *rows):
            click.echo("| " + " | ".join(line) + " |")
    else:
        table(header, rows)
    click.echo(f"{chr(10) if as_markdown else ''}Of {int(made['n'].max())} recordings. {_LEGEND}")
