"""`melmill schedule`: runs at set times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict, Unpack

import click

from melmill.flows.cli.group import DONE, Defaulted, LocalPath, cli
from melmill.flows.cli.show import as_json, one_line, write_file

_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")


class _Run(TypedDict):
    """What a schedule runs: what `_run` makes of the arguments."""

    pipeline: Path
    rules: Path | None
    baseline: str | None
    notify: str | None
    store: str | None
    overrides: tuple[str, ...]
    executor: Literal["dask", "serial"]


_RUN = (
    click.argument("pipeline", type=LocalPath(dir_okay=False), metavar="PIPELINE"),
    click.option("--gate", "rules", type=LocalPath(dir_okay=False), metavar="FILE", help="Rules for `melmill gate`."),
    click.option("--baseline", metavar="TAG", help="Run that the gate compares with."),
    click.option(
        "--notify",
        metavar="COMMAND",
        help="Shell command that gets a JSON message if the run fails, is red or recovers.",
    ),
    click.option("--store", metavar="URL", help="Use this store instead of the pipeline's."),
    click.option("--set", "overrides", multiple=True, metavar="K=V", help="Override a field. Repeatable."),
    click.option("--executor", type=click.Choice(["dask", "serial"]), default="dask", show_default=True),
)
_name = click.option("--name", metavar="NAME", help="Name of the schedule.  [default: the pipeline's name]")


def _run(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the arguments of `_Run`."""
    for parameter in reversed(_RUN):
        command = parameter(command)
    return command


@cli.group(cls=Defaulted)
def schedule() -> None:
    """Run a pipeline at set times, judge it by a gate, and tell someone.

    \b
    Examples:
      melmill schedule pipeline.yaml --every day --gate gate.yaml --baseline good --notify 'mail -s melmill me@x.org'
      melmill schedule pipeline.yaml --every '30 2 * * *' --kind kubernetes --image registry/melmill -o deploy
    """


@schedule.command("make")
@_run
@click.option("--every", required=True, metavar="TIMES", help="hour, day, week, month, or cron's five fields.")
@click.option(
    "--kind",
    type=click.Choice(["systemd", "cron", "kubernetes"]),
    help="What calls it.  [default: systemd where it runs, else cron]",
)
@_name
@click.option("--image", metavar="IMAGE", help="Image of the container, for kubernetes.")
@click.option(
    "-o", "--output", type=LocalPath(file_okay=False), default=".", show_default=True, metavar="FOLDER",
    help="Write the files here.",
)  # fmt: skip
@_json
def make(
    *,
    every: str,
    kind: str | None,
    name: str | None,
    image: str | None,
    output: Path,
    json_: bool,
    **what: Unpack[_Run],
) -> int:
    """Write and check what runs PIPELINE at set times. `melmill schedule PIPELINE` is short for it.

    It writes a systemd timer and service, a cron line, or a Kubernetes CronJob. All of them call
    `melmill schedule tick`. Nothing is installed: the command says how.

    \b
    Examples:
      melmill schedule pipeline.yaml --every day --gate gate.yaml --baseline good --notify ./tell.sh
      melmill schedule pipeline.yaml --every '*/30 8-18 * * mon-fri' --kind cron -o schedules
    """
    from melmill.flows.runs.scheduling.files import files_of, has_systemd
    from melmill.flows.runs.scheduling.planned import planned

    made = planned(every=every, name=name, **what)
    written = files_of(made, kind or ("systemd" if has_systemd() else "cron"), image)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"can't make {str(output)!r}: {error.strerror or error}") from error
    for file, text in written.files.items():
        write_file(output / file, text.encode())
    checks = written.check(output)
    if json_:
        as_json({"schedule": made.name, "kind": written.kind, "every": made.times.cron,
                 "files": [str(output / file) for file in written.files], "next": made.next_times(3),
                 "checks": checks, "notes": list(written.notes)})  # fmt: skip
        return DONE
    for file in written.files:
        click.echo(f"wrote: {output / file}")
    for line in checks:
        click.echo(f"check: {one_line(line)}")
    click.echo(f"next:  {', '.join(made.next_times(3))}")
    for note in written.notes:
        click.echo(f"note:  {one_line(note)}")
    for line in written.install(output):
        click.echo(f"to install: {line}")
    return DONE


@schedule.command("tick")
@_run
@click.option("--every", metavar="TIMES", help="When it is due, to say which runs were missed.")
@_name
@_json
def tick(*, every: str | None, name: str | None, json_: bool, **what: Unpack[_Run]) -> int:
    """Run PIPELINE now, then the gate, unless a run of the same schedule is at work.

    The exit code is that of the run, or else of the gate: 3 if it tripped. If the run failed, if the
    gate tripped or if all is well again, the command of --notify gets a JSON message on its standard
    input.

    \b
    Example:
      melmill schedule tick pipeline.yaml --every day --gate gate.yaml --baseline good --notify ./tell.sh
    """
    from melmill.flows.runs.scheduling.cadence import read_cadence
    from melmill.flows.runs.scheduling.planned import schedule_name
    from melmill.flows.runs.scheduling.tick import Schedule
    from melmill.flows.runs.scheduling.tick import tick as run_once

    made = run_once(
        Schedule(name=name or schedule_name(what["pipeline"]), cadence=read_cadence(every) if every else None, **what),
        lambda line: click.echo(one_line(line), err=True),
    )
    if json_:
        as_json(made.as_dict())
    else:
        said = f" after {made.previous}" if made.event == "recovered" else ""
        click.echo(f"{made.schedule}: {made.state}{said}, exit code {made.exit_code}")
    return made.exit_code
