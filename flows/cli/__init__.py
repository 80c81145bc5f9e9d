"""The command line: `melmill`."""

from __future__ import annotations

import sys

import click

from melmill.errors import Error
from melmill.flows.errors import RunFailed

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="melmill")
def cli() -> None:
    """Take a speech corpus to mel spectrograms and back, and say how good the way back was.

    \b
    melmill run pipeline.yaml          run a pipeline, or go on where it stopped
    melmill plan pipeline.yaml         say what a run would do, and why
    melmill scores runs/demo           one row per utterance and method
    melmill export runs/demo admm out  what a node made, as files
    """


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad usage or pipeline, 130 interrupted."""
    try:
        result = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: what is stored stays; run again to go on", err=True)
        sys.exit(INTERRUPTED)
    except RunFailed as error:
        _say(error)
        sys.exit(FAILED)
    except Error as error:
        _say(error)
        sys.exit(BAD_USAGE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(DONE)
    sys.exit(result if isinstance(result, int) else DONE)


def _say(error: Error) -> None:
    click.echo(f"error: {error}", err=True)


# Imported last: each module adds its commands to `cli`.
from melmill.flows.cli import care, cluster, corpora, exporting, files, inspect, mels, running, status, vocoders  # noqa: E402, F401
