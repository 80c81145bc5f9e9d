"""`melmill serve`: stores as a small website for reading."""

from __future__ import annotations

import os
from pathlib import Path

import click

from melmill.flows.cli.group import DONE, LocalPath, cli
from melmill.flows.pipeline.errors import PipelineError
from melmill.storage.store import Store

PORT = 8780


@cli.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port", type=click.IntRange(min=0, max=65535), default=PORT, show_default=True, help="Port; 0 is any free one."
)
@click.option(
    "--password-file",
    type=LocalPath(dir_okay=False),
    metavar="FILE",
    help="File whose first line is the password of readers, as MELMILL_SERVE_PASSWORD may be too.",
)
@click.option(
    "--certificate", type=LocalPath(dir_okay=False), metavar="FILE", help="Encrypt with this certificate, PEM."
)
@click.option("--key", type=LocalPath(dir_okay=False), metavar="FILE", help="Private key of the certificate, PEM.")
def serve(
    stores: tuple[str, ...],
    host: str,
    port: int,
    password_file: Path | None,
    certificate: Path | None,
    key: Path | None,
) -> int:
    """Show each STORE in a browser: runs, live progress, reports, trends, disk usage, quarantine with players.

    The pages only read. They are served to this machine. At another address a password is needed:
    browsers ask for it, and any user name will do.

    \b
    Examples:
      melmill serve runs/demo
      MELMILL_SERVE_PASSWORD=... melmill serve s3://team/nightly --host 0.0.0.0 --certificate c.pem --key k.pem
    """
    from melmill.flows.watching.serving.access import Access

    access = Access(host=host, password=_password(password_file))
    opened = [Store.open(store) for store in dict.fromkeys(stores)]
    # tornado is imported only where something is served.
    from melmill.flows.watching.serving.server import serve as serve_site
    from melmill.flows.watching.serving.server import tls_context
    from melmill.flows.watching.serving.site import Site

    tls = tls_context(certificate, key)
    if not access.is_loopback and tls is None:
        click.echo("note: without --certificate, the password and all pages travel unencrypted", err=True)
    serve_site(Site(opened), access, port, lambda url: click.echo(f"serving {url} (ctrl-C ends it)"), tls)
    return DONE


def _password(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get("MELMILL_SERVE_PASSWORD")
    from melmill.flows.watching.serving.access import read_password

    password = read_password(file)
    if not password:
        raise PipelineError(f"{str(file)!r} has no password in its first line", "--password-file")
    return password
