"""The command line: `melmill`."""

from __future__ import annotations

import sys

import click

from melmill.errors import Error
from melmill.flows.cli.group import BAD_USAGE, DONE, FAILED, INTERRUPTED, cli
from melmill.flows.cli.show import one_line
from melmill.flows.execution.errors import RunFailed


def main() -> None:
    """Run the command line and exit.

    The exit code is 0 for done, 1 for failed, 2 for bad usage or a bad pipeline, 3 for a gate that
    tripped, and 130 for interrupted.
    """
    try:
        result = cli.main(prog_name="melmill", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(BAD_USAGE)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else ""
        _say(error.format_message().removesuffix(".") + (f" (see `{command} -h`)" if command else ""))
        sys.exit(BAD_USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: what is stored stays; run again to go on", err=True)
        sys.exit(INTERRUPTED)
    except RunFailed as error:
        _say(str(error))
        sys.exit(FAILED)
    except Error as error:
        _say(str(error))
        sys.exit(BAD_USAGE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(DONE)
    sys.exit(result if isinstance(result, int) else DONE)


def _say(problem: str) -> None:
    click.echo(f"error: {one_line(problem)}", err=True)
