"""`melmill listen`: listening tests of what a run made, and their results."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from melmill.flows.cli.group import DONE, INTERRUPTED, Defaulted, LocalPath, cli
from melmill.flows.cli.show import as_json, one_line, table
from melmill.flows.runs.addresses import parse_address, resolve

if TYPE_CHECKING:
    from melmill.flows.runs.listening.results import HeardResults

KINDS = ("abx", "mushra", "cmos", "preference")
_JSON = click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")


def names(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Return names between commas; commas in brackets belong to a name, as in ``admm[n_iter=5,rho=1]``."""
    split = [name.strip() for text in given for name in re.split(r",(?![^\[]*\])", text)]
    return tuple(name for name in split if name)


@cli.group(cls=Defaulted)
def listen() -> None:
    """Make a listening test of what a run made, collect its results, and evaluate them.

    \b
    Examples:
      melmill listen runs/demo --nodes gla,admm --test mushra --n 20 -o test
      melmill listen serve test                            on this machine; or copy the folder to a web server
      melmill listen import runs/demo test/results         files that listeners sent
      melmill listen results runs/demo                     means, intervals, screening, metrics
    """


@listen.command("make")
@click.argument("store", metavar="STORE")
@click.option("--nodes", multiple=True, callback=names, metavar="NAMES", help="Systems.  [default: all scored nodes]")
@click.option("--test", "kind", type=click.Choice(KINDS), required=True, help="Kind of test.")
@click.option("--n", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Utterances.")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Write the page here.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Draws the utterances.")
@click.option("--reference", metavar="NODE", help="Recordings.  [default: those that the nodes were scored against]")
@click.option("--against", metavar="NODE", help="Compare this one with each other, not all pairs.")
@click.option("--by", type=click.Choice(["speaker", "subset"]), help="Draw as many utterances of each.")
@click.option("--speakers", multiple=True, callback=names, metavar="NAMES", help="Draw from these speakers.")
@click.option("--subsets", multiple=True, callback=names, metavar="NAMES", help="Draw from these subsets.")
@click.option("--utterances", multiple=True, metavar="PATTERN", help="Draw from ids like `84-*`. Repeatable.")
@click.option(
    "--loudness",
    type=click.FloatRange(-50, -10),
    default=-23.0,
    show_default=True,
    help="Loudness of all sounds, LUFS.",
)
@click.option(
    "--longest", type=click.FloatRange(1, 60), default=10.0, show_default=True, help="Cut utterances here, seconds."
)
@click.option("--title", default="", help="Heading of the page.")
@_JSON
def make(
    store: str,
    nodes: tuple[str, ...],
    kind: str,
    n: int,
    output: str,
    seed: int,
    reference: str | None,
    against: str | None,
    by: str | None,
    speakers: tuple[str, ...],
    subsets: tuple[str, ...],
    utterances: tuple[str, ...],
    loudness: float,
    longest: float,
    title: str,
    json_: bool,
) -> int:
    """Write the page of a listening test of the nodes of a run. `melmill listen STORE` is short for it.

    STORE@TAG or STORE@RUN names another run than the last. FOLDER works from a disk and from any web
    server. It knows blind names alone: which sound is which stays in the STORE.

    \b
    Examples:
      melmill listen runs/demo --nodes gla,admm --test mushra --n 20 -o test
      melmill listen runs/demo --nodes admm --test abx --by speaker -o abx        against the recordings
    """
    from melmill.flows.runs.listening.making import ListeningRequest, make_test

    request = ListeningRequest(
        kind=kind, nodes=nodes, n=n, seed=seed, reference=reference, against=against, by=by, speakers=speakers,
        subsets=subsets, utterances=utterances, loudness_lufs=loudness, longest_s=longest, title=title,
    )  # fmt: skip
    run = resolve(parse_address(store))
    design = make_test(run.store, run.manifest, request, output)
    if json_:
        as_json(
            {
                "test": design.test_id,
                "kind": kind,
                "run": design.run_id,
                "folder": output,
                "reference": design.reference,
                "systems": [one.name for one in design.systems],
                "n_trials": len(design.trials),
                "utterances": list(dict.fromkeys(trial.utterance_id for trial in design.trials)),
                "notes": list(design.notes),
            }
        )
        return DONE
    click.echo(f"test {design.test_id}: {len(design.trials)} pages, {', '.join(one.name for one in design.systems)}")
    for note in design.notes:
        click.echo(f"note: {one_line(note)}")
    click.echo(f"page: {Path(output) / 'index.html' if '://' not in output else f'{output}/index.html'}")
    return DONE


@listen.command("serve")
@click.argument("folder", metavar="FOLDER", type=LocalPath(file_okay=False))
@click.option("--port", type=click.IntRange(0, 65535), default=8600, show_default=True, help="0 takes a free one.")
def serve(folder: Path, port: int) -> int:
    """Show a test on this machine (127.0.0.1), and store what listeners send in FOLDER/results.

    \b
    Examples:
      melmill listen serve test
      melmill listen import runs/demo test/results
    """
    from melmill.flows.runs.listening.serving import serve as serve_folder

    try:
        serve_folder(str(folder), port, click.echo)
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


@listen.command("import")
@click.argument("store", metavar="STORE")
@click.argument("results", metavar="RESULTS...", nargs=-1, required=True)
@click.option("--listener", metavar="NAME", help="Store a single result under this name.")
@_JSON
def import_(store: str, results: tuple[str, ...], listener: str | None, json_: bool) -> int:
    """Take the results of listeners into the STORE: files, or folders of files.

    A result is stored once and never changed. The report of the next run shows it.

    \b
    Examples:
      melmill listen import runs/demo mushra-*.json
      melmill listen import runs/demo test/results
    """
    from melmill.flows.runs.listening.results import import_results

    done = import_results(resolve(parse_address(store)).store, results, listener)
    if json_:
        as_json({"results": [asdict(one) for one in done]})
        return DONE
    for one in done:
        state = "imported" if one.is_new else "there already"
        click.echo(f"{one.test_id}: {one.listener}, {one.n_answers} answers, {state}")
    if any(one.is_new for one in done):
        click.echo("Run the pipeline again to show them in its report.")
    return DONE


@listen.command("results")
@click.argument("store", metavar="STORE")
@click.option("--test", metavar="TEST", help="This test alone.")
@_JSON
def results(store: str, test: str | None, json_: bool) -> int:
    """Say what listeners said: systems with intervals, screening, and how far metrics agree.

    \b
    Examples:
      melmill listen results runs/demo
      melmill listen results runs/demo --test mushra-77b6cfa8b9bb --json
    """
    from melmill.flows.runs.listening.results import results_of

    run = resolve(parse_address(store))
    found = results_of(run.store, run.manifest, test)
    if json_:
        as_json({"store": store, "tests": [one.as_dict() for one in found]})
        return DONE
    for one in found:
        _print(one)
    if not found:
        click.echo("no listening tests: make one with `melmill listen STORE --test mushra -o FOLDER`")
    return DONE


def _print(one: HeardResults) -> None:
    from melmill.flows.runs.listening.results import shown_tables

    made = one.outcome
    click.echo(f"{one.design.test_id} ({made.kind.source})")
    if not made.n_listeners:
        click.echo("no results yet: take them in with `melmill listen import STORE RESULTS...`\n")
        return
    for line in made.says:
        click.echo(line)
    for title, columns, rows in shown_tables(made):
        table(columns, rows, title)
    click.echo()
