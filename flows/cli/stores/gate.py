"""`melmill gate`: whether a run is good enough, by a file of rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from melmill.flows.cli.group import DONE, GATE_TRIPPED, LocalPath, cli
from melmill.flows.cli.show import as_json, one_line, table, write_file

if TYPE_CHECKING:
    from melmill.flows.runs.addresses import ResolvedRun
    from melmill.stages.report.comparison.verdicts import Judgement


@cli.command()
@click.argument("run", metavar="STORE")
@click.option(
    "--rules",
    "rules_path",
    type=LocalPath(dir_okay=False),
    required=True,
    metavar="FILE",
    help="Rules in YAML: what the run must hold.",
)
@click.option(
    "--baseline",
    metavar="TAG|RUN|STORE",
    help="What not_worse_than compares with: a tag or a run of STORE, or another store; with :NODE for one node.",
)
@click.option("--update-baseline", is_flag=True, help="If no rule tripped, move the tag of --baseline to this run.")
@click.option("--other-project", is_flag=True, help="Compare with a run of another project.")
@click.option("--html", type=LocalPath(dir_okay=False), metavar="FILE", help="Write the verdict as a page.")
@click.option("--junit", type=LocalPath(dir_okay=False), metavar="FILE", help="Write JUnit's XML.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def gate(
    run: str,
    rules_path: Path,
    baseline: str | None,
    update_baseline: bool,
    other_project: bool,
    html: Path | None,
    junit: Path | None,
    json_: bool,
) -> int:
    """Judge a run by rules: the last one of STORE, or STORE@TAG or STORE@RUN.

    The exit code is 3 if a rule trips, with one line for each. It is 2 if a rule can't be judged, and 0 otherwise.

    \b
    Examples:
      melmill gate runs/x --rules gate.yaml --baseline nightly
      melmill gate runs/x --rules gate.yaml --baseline nightly --junit gate.xml --update-baseline
    """
    from melmill.flows.runs.gate import gate_store, read_rules

    if update_baseline and baseline is None:
        raise click.UsageError("--update-baseline moves the tag of --baseline, and none is given")
    rules = read_rules(rules_path)
    judgement, judged = gate_store(run, rules, baseline, other_project=other_project)
    if update_baseline:
        _check_tag(str(baseline), judged)
    if junit is not None:
        from melmill.stages.report.comparison.junit import of_gate

        write_file(junit, of_gate(judgement))
    if html is not None:
        from melmill.stages.report.comparison.page import gate_page

        write_file(html, gate_page(judgement))
    moved = ""
    if update_baseline and judgement.passed:
        moved = _moved(str(baseline), judged)
    if json_:
        as_json({**judgement.as_dict(), **({"tag": baseline} if moved else {})})
    else:
        _show(judgement)
        if moved:
            click.echo(moved)
        elif update_baseline:
            click.echo(f"tag {baseline!r} stays where it is: a rule tripped", err=True)
    for line in judgement.tripped:
        click.echo(f"tripped: {one_line(line)}", err=True)
    return DONE if judgement.passed else GATE_TRIPPED


def _check_tag(baseline: str, judged: ResolvedRun) -> None:
    """Raise UsageError unless the baseline is a tag of the store, and the run came to its end."""
    if judged.record.state not in ("done", "unknown"):
        raise click.UsageError(
            f"--update-baseline takes a run that is done, and run {judged.run_id!r} is {judged.record.state}"
        )
    if baseline.removeprefix("@") not in judged.store.tags():
        raise click.UsageError(
            f"--update-baseline moves a tag, and {baseline!r} is none of {judged.location.url!r}: make it one with "
            f"`melmill tag {judged.location.url} {judged.run_id} NAME`"
        )


def _moved(baseline: str, judged: ResolvedRun) -> str:
    from melmill.flows.runs.history import set_tag

    name = baseline.removeprefix("@")
    before = judged.store.tags()[name].run_id
    if before == judged.run_id:
        return f"tag {name!r} means this run already"
    set_tag(judged.store, name, judged.run_id, force=True)
    return f"tag {name!r} means run {judged.run_id} now, and meant {before} before"


def _show(judgement: Judgement) -> None:
    click.echo(f"run:      {judgement.run}")
    if judgement.baseline is not None:
        click.echo(f"baseline: {judgement.baseline}")
    table(
        ("where", "rule", "verdict", "found"),
        (
            (placed.where, placed.rule.text, judgement.state(at), judgement.found(at))
            for at, placed in enumerate(judgement.rules, start=1)
        ),
    )
    for note in judgement.notes:
        click.echo(f"note: {one_line(note)}")
    n_tripped, n_rules = len(judgement.tripped), len(judgement.rules)
    click.echo("no rule tripped" if judgement.passed else f"{n_tripped} of {n_rules} rules tripped")
