"""`melmill cluster`: what clusters need besides a pipeline."""

from __future__ import annotations

from pathlib import Path

import click

from melmill.flows.cli.group import DONE, LocalPath, cli


@cli.group()
def cluster() -> None:
    """Prepare clusters."""


@cluster.command()
@click.argument("folder", metavar="DIR", type=LocalPath(file_okay=False))
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long it is good for.")
def certs(folder: Path, days: int) -> int:
    """Make a certificate authority in DIR, and a certificate that lets its holder into a cluster.

    Client, scheduler and workers show each other the same certificate. Whoever lacks its key,
    key.pem, is refused. Run again, the command makes a new certificate of the same authority. Keep
    ca-key.pem to yourself: hosts need the other three files.

    \b
    Example:
      melmill cluster certs ~/.melmill-tls

    Then the pipeline names the folder: cluster: {security: ~/.melmill-tls, ...}
    """
    from melmill.cluster.errors import require_packages

    require_packages(["cryptography"], "melmill[tls]", "melmill cluster certs")
    from melmill.cluster.authority import make_folder

    try:
        authority = make_folder(folder, days)
    except OSError as error:
        raise click.ClickException(f"{str(folder)!r} can't be written: {error.strerror}") from error
    if authority is not None:
        click.echo(f"{authority}: key of the new authority; keep it to yourself")
    click.echo(f"{folder}: certificate for {days} days; use it with cluster: {{security: {folder}}}")
    return DONE
