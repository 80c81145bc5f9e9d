"""`melmill fetch`: corpora to work on, made here or from their publishers."""

from __future__ import annotations

import difflib
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from melmill.flows.cli.group import DONE, LocalPath, cli
from melmill.flows.cli.show import as_json
from melmill.flows.execution.errors import RunFailed

if TYPE_CHECKING:
    from melmill.stages.ingest.facts import Download

_SHOWN_EVERY_S = 0.5


class Corpora(click.Group):
    """A command for each corpus that has public addresses, besides those that are written here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *_fetchable()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a corpus."""
        command = super().get_command(ctx, cmd_name)
        downloads = None if command else _fetchable().get(cmd_name)
        return command if downloads is None else _command(cmd_name, downloads)


def _fetchable() -> dict[str, tuple[Download, ...]]:
    from melmill.stages.ingest.reader import READERS

    return {name: one.facts.downloads for name, one in READERS.items() if one.facts and one.facts.downloads}


@cli.group(cls=Corpora)
def fetch() -> None:
    """Get a corpus to work on: the demo corpus, or one that has public addresses."""


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


def _command(name: str, downloads: tuple[Download, ...]) -> click.Command:
    """Return the command that fetches a corpus."""
    parts = [one.part for one in downloads if one.part]
    example = f"melmill fetch {name} data/{name}" + (f" --part {parts[0]}" if parts else "")
    text = f"""Fetch the archives of {name} to FOLDER. They are read in place, so nothing is unpacked.

    An archive that was interrupted goes on where it stopped. It has its name only once its size and
    its checksum are right.

    \b
    Example:
      {example}
    """
    options: list[click.Parameter] = [click.Argument(["folder"], type=LocalPath(file_okay=False))]
    if parts:
        options.append(
            click.Option(
                ["--part", "chosen"], multiple=True, metavar="NAME", help=f"One of {', '.join(parts)}; or all."
            )
        )
    options += [
        click.Option(
            ["--mirror", "mirrors"], multiple=True, metavar="URL", help="Folder to try before the publisher's."
        ),
        click.Option(["--list", "list_"], is_flag=True, help="List the files, and fetch nothing."),
        click.Option(["--json", "json_"], is_flag=True, help="Print one JSON object to standard output."),
    ]

    def run(folder: Path, mirrors: tuple[str, ...], list_: bool, json_: bool, chosen: tuple[str, ...] = ()) -> int:
        wanted = [one for one in downloads if not chosen or one.part in chosen or "all" in chosen]
        _check_parts(chosen, parts)
        if parts and not chosen and not list_:
            raise click.UsageError(f"say which parts: --part {parts[0]}, or --part all (parts: {', '.join(parts)})")
        if list_:
            _list(wanted, json_)
            return DONE
        return _fetch(name, wanted, folder, mirrors, json_)

    return click.Command(name, params=options, callback=run, help=text, short_help=f"Fetch {name}.")


def _check_parts(chosen: tuple[str, ...], parts: list[str]) -> None:
    for one in chosen:
        if one not in (*parts, "all"):
            near = difflib.get_close_matches(one, parts, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no part {one!r}{hint} (parts: {', '.join(parts)})")


def _list(wanted: list[Download], json_: bool) -> None:
    if json_:
        as_json({"files": [one._asdict() for one in wanted]})
        return
    for one in wanted:
        size = f"{one.n_bytes / 1e9:.2f} GB" if one.n_bytes else "size not published"
        proof = f"sha256 {one.sha256}" if one.sha256 else f"md5 {one.md5}" if one.md5 else "no checksum published"
        click.echo(f"{one.name}  {size}  {proof}  {one.url}")


def _fetch(name: str, wanted: list[Download], folder: Path, mirrors: tuple[str, ...], json_: bool) -> int:
    from melmill.storage.errors import SourceError
    from melmill.storage.files.downloads import Wanted, fetch_file

    made = []
    for one in wanted:
        urls = (*(f"{mirror.rstrip('/')}/{one.name}" for mirror in mirrors), one.url)
        file = Wanted(name=one.name, urls=urls, n_bytes=one.n_bytes, sha256=one.sha256, md5=one.md5)
        try:
            fetched = fetch_file(file, folder, _Bytes(one.name))
        except SourceError as error:
            raise RunFailed(str(error)) from error
        made.append(fetched)
        if not json_:
            how = "fetched" if fetched.is_new else "was there"
            proof = "verified" if fetched.is_verified else f"no checksum is published; sha256 {fetched.sha256}"
            click.echo(f"{fetched.path}: {how}, {fetched.n_bytes:,} bytes, {proof}")
    if json_:
        files = [
            {
                "path": str(one.path),
                "n_bytes": one.n_bytes,
                "sha256": one.sha256,
                "fetched": one.is_new,
                "verified": one.is_verified,
            }
            for one in made
        ]
        as_json({"corpus": name, "files": files})
    else:
        click.echo(f"in a pipeline: {{uses: {name}, root: {shlex.quote(str(made[0].path))}}}")
    return DONE


class _Bytes:
    """Show on standard error how much of a file is there, on a terminal."""

    def __init__(self, name: str) -> None:
        self.name, self.shown = name, 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes are there, unless that was shown a moment ago."""
        now = time.monotonic()
        last = done == total
        if not sys.stderr.isatty() or (not last and now - self.shown < _SHOWN_EVERY_S):
            return
        self.shown = now
        share = f" of {total / 1e6:,.0f} MB ({100 * done / total:.0f} %)" if total else " MB"
        click.echo(f"\r\033[K{self.name}: {done / 1e6:,.0f}{share}", nl=last, err=True)
