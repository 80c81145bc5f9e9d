"""`melmill fetch`: small corpora to start with."""

from __future__ import annotations

from pathlib import Path

import click

from melmill.flows.cli.group import DONE, LocalPath, cli


@cli.group()
def fetch() -> None:
    """Get a corpus to work on."""


@fetch.command()
@click.argument("folder", type=LocalPath(file_okay=False))
@click.option("--with-bad-files", is_flag=True, help="Add broken files, to see quarantine at work.")
def demo(folder: Path, with_bad_files: bool) -> int:
    """Make the demo corpus in FOLDER: two minutes of eight synthetic voices.

    \b
    Example:
      melmill fetch demo data/demo
    """
    from melmill.stages.ingest.demo.corpus import make_demo_corpus
    from melmill.stages.ingest.demo.espeak import SynthesisError

    try:
        click.echo(make_demo_corpus(folder, with_bad_files=with_bad_files))
    except (SynthesisError, OSError) as error:
        raise click.ClickException(str(error)) from error
    return DONE
