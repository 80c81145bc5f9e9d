"""`melmill lint`: what a corpus is like, and which recordings and texts look wrong."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import click

from melmill.flows.cli.group import DONE, FAILED, GATE_TRIPPED, LocalPath, cli
from melmill.flows.cli.show import as_json, one_line, table

_RULES = {
    "clipped_runs": "Flat tops of a recording that is clipped.  [default: 3]",
    "cliff_db": "Break of the spectrum of a recording that is band-limited, dB.  [default: 25]",
    "hum_below_db": "Hum less than this under the speech is a finding, dB.  [default: 25]",
    "rate_factor": "Factor by which letters per second may differ from the usual.  [default: 2]",
    "snr_db": "A recording is noisy below this, dB.  [default: 10]",
}


@cli.command()
@click.argument("place", metavar="STORE|FOLDER")
@click.option(
    "-o",
    "--output",
    type=LocalPath(file_okay=False),
    metavar="FOLDER",
    help="Write the page here.  [default: lint-NAME]",
)
@click.option("--clipped-runs", type=click.IntRange(min=1), metavar="N", help=_RULES["clipped_runs"])
@click.option("--cliff-db", type=float, metavar="DB", help=_RULES["cliff_db"])
@click.option("--hum-below-db", type=float, metavar="DB", help=_RULES["hum_below_db"])
@click.option(
    "--rate-factor", type=click.FloatRange(min=1, min_open=True), metavar="FACTOR", help=_RULES["rate_factor"]
)
@click.option("--snr-db", type=float, metavar="DB", help=_RULES["snr_db"])
@click.option(
    "--players", type=click.IntRange(0, 200), default=3, show_default=True, help="Recordings to play, of each kind."
)
@click.option("--strict", is_flag=True, help="Exit with 3 if anything is found.")
@click.option(
    "-j", "--jobs", type=click.IntRange(min=1, max=4096), metavar="N", help="Processes.  [default: one per core]"
)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def lint(
    place: str,
    output: Path | None,
    clipped_runs: int | None,
    cliff_db: float | None,
    hum_below_db: float | None,
    rate_factor: float | None,
    snr_db: float | None,
    players: int,
    strict: bool,
    jobs: int | None,
    json_: bool,
) -> int:
    """Describe a corpus, and list recordings and texts that look wrong.

    Found are texts that do not fit their audio by speaking rate, and recordings that are clipped,
    band-limited (upsampled), humming, noisy, mostly silent or of another level. A page has hours,
    speakers, histograms, and players for the worst. The recordings are those of a FOLDER, or those
    that a STORE has ingested, which is only read.

    Call it again to go on where it stopped, or after files were added, changed or removed.

    \b
    Examples:
      melmill lint recordings -o lint
      melmill lint runs/demo -o lint --strict
    """
    from melmill.flows.scoring.lint import LintRequest
    from melmill.flows.scoring.lint import lint as linted

    given = {
        "clipped_runs": clipped_runs,
        "cliff_db": cliff_db,
        "hum_below_db": hum_below_db,
        "rate_factor": rate_factor,
        "snr_db": snr_db,
    }
    done = linted(
        LintRequest(
            place=place,
            output=output or Path(f"lint-{Path(place.rstrip('/')).name or 'corpus'}"),
            rules={name: value for name, value in given.items() if value is not None},
            players=players,
            jobs=jobs or len(os.sched_getaffinity(0)),
        )
    )
    failed = done.summary.tasks.failed
    if json_:
        as_json(done.as_dict())
    elif done.files:
        corpus = done.corpus
        click.echo(
            f"{corpus['recordings']:,} recordings, {corpus['hours']:.2f} h, {corpus['speakers']:,} speakers; "
            f"{corpus['with_text']:,} have texts"
        )
        rows = list(csv.reader(io.StringIO(done.output.read("headline.csv").decode())))
        table(rows[0], [row for row in rows[1:] if row[1] != "0"] or [["nothing", "0", "", ""]])
        for note in done.summary.notes:
            click.echo(f"note: {one_line(note)}")
        click.echo(f"page: {done.page}")
    if failed or not done.files:
        click.echo(f"error: {failed} tasks failed or needed failed ones; run again to retry", err=True)
        return FAILED
    return GATE_TRIPPED if strict and done.corpus["with_findings"] else DONE
