"""`melmill export`: files for other programs, from the store."""

from __future__ import annotations

import re
import sys
import time

import click
from click.shell_completion import CompletionItem

from melmill.flows.cli.group import DONE, FAILED, cli
from melmill.flows.cli.show import as_json
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.watching.progress import PLAIN_INTERVAL_S, duration
from melmill.stages.contract import TRAINED_KINDS, Kind
from melmill.stages.formats.format import FORMATS, formats_for
from melmill.storage.files.location import folder_and_name
from melmill.storage.store import Store

NAMED = 10
TERMINAL_INTERVAL_S = 0.1


class FormatName(click.types.StringParamType):
    """The name of an exchange format; help and shells list those that are installed.

    Parameters
    ----------
    kind : Kind or None
        List the formats that hold this kind of product; None: all.
    """

    def __init__(self, kind: Kind | None = None) -> None:
        self.kind = kind

    @property
    def names(self) -> list[str]:
        """Names of the formats; reading them loads those of other packages."""
        return list(FORMATS) if self.kind is None else formats_for(self.kind)

    def get_metavar(self, *_: object, **__: object) -> str:  # its arguments depend on click's version
        """Return the names, for help texts."""
        return f"[{'|'.join(self.names)}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with what was typed."""
        return [CompletionItem(name, help=FORMATS[name].says) for name in self.names if name.startswith(incomplete)]


class LayoutName(click.types.StringParamType):
    """The name of a layout of training sets; help and shells list those that are installed."""

    @property
    def names(self) -> list[str]:
        """Names of the layouts."""
        from melmill.flows.exchange.sets.layout import LAYOUTS

        return [*LAYOUTS, "hf"]

    def get_metavar(self, *_: object, **__: object) -> str:  # its arguments depend on click's version
        """Return the names, for help texts."""
        return f"[{'|'.join(self.names)}]"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the names that begin with what was typed."""
        del ctx, param
        return [CompletionItem(name) for name in self.names if name.startswith(incomplete)]


@cli.command()
@click.argument("store", metavar="STORE")
@click.argument("node", metavar="NODE")
@click.argument("folder", metavar="FOLDER")
@click.option("--format", "format_", type=FormatName(), help="Format of the files.  [default: flac; npy for mels]")
@click.option("--bits", type=int, metavar="N", help="Bits per sample of flac and wav: 16 or 24.  [default: 16]")
@click.option("--utterances", multiple=True, metavar="GLOB", help="Only utterances whose id matches (84-*).")
@click.option("--to", type=LayoutName(), help="Write a training set in this layout, in place of single files.")
@click.option("--split", metavar="RULE", help="Splits of a training set: subset, or shares as dev=0.05,test=0.05.")
@click.option("--split-list", metavar="FILE", help="Splits by a list: an id or a speaker, a tab and a split a line.")
@click.option("--share-speakers", is_flag=True, help="Let splits share speakers.")
@click.option("--licence", metavar="TEXT", help="Licence of the corpus, for the dataset card.  [default: its reader's]")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def export(
    store: str,
    node: str,
    folder: str,
    format_: str | None,
    bits: int | None,
    utterances: tuple[str, ...],
    to: str | None,
    split: str | None,
    split_list: str | None,
    share_speakers: bool,
    licence: str | None,
    json_: bool,
) -> int:
    """Write what NODE of STORE's last run made to FOLDER, one file per utterance.

    Each file has the path of its source. Audio keeps its length and loudness, and is clipped at
    full scale. Mels become .npy files, (n_mels, n_frames). A metadata.csv beside them lists each
    file with its text, speaker and duration. Of a training, the files are its weights, their
    configuration and its page; load them with melmill.load_vocoder(FOLDER). Of statistics, they are
    their tables. An export that was stopped goes on where it was: whole files are not written again.
    Files that another program put there are never touched.

    With --to, FOLDER becomes a training set with its lists, a dataset card and checksums. NODE may
    name a node of recordings, one of mels and any of features then: speech,mel,f0,energy.

    \b
    Example:
      melmill export runs/demo admm resynthesised --format flac
      melmill export runs/demo speech,mel train --to hifigan --split dev=0.05
    """
    from melmill.flows.exchange.export import export as export_node

    opened = Store.open(store)
    if to is not None:
        if format_ or utterances:
            raise PipelineError(
                "--to takes all utterances in the format of its layout: leave --format and --utterances out"
            )
        return _export_set(opened, node, folder, to, bits, split, split_list, share_speakers, licence, json_)
    if split or split_list or share_speakers or licence:
        raise PipelineError(
            "--split, --split-list, --share-speakers and --licence are about training sets: add --to "
            f"{'|'.join(LayoutName().names)}"
        )
    if node in opened.nodes and opened.nodes[node].kind in TRAINED_KINDS:
        return _export_training(opened, node, folder, bool(format_ or bits or utterances), json_)
    summary = export_node(opened, node, folder, format_=format_, bits=bits, utterances=utterances, progress=Progress())
    if json_:
        as_json(summary.as_dict())
    else:
        removed = f", {summary.removed} of utterances that are gone or changed removed" if summary.removed else ""
        took = duration(summary.duration_s)
        click.echo(f"{summary.written} files written, {summary.kept} were there{removed}, in {took}")
        if summary.quarantined:
            click.echo(f"left out: {summary.quarantined} {_left_out(opened, node)}")
        _show_clipped(summary.clipped)
        click.echo(f"folder: {summary.folder}")
    if summary.missing:
        click.echo(
            f"error: {summary.missing} utterances of {node!r} are not done yet: run the pipeline, then export again",
            err=True,
        )
    return FAILED if summary.missing else DONE


def _export_set(
    store: Store,
    node: str,
    folder: str,
    to: str,
    bits: int | None,
    split: str | None,
    split_list: str | None,
    share_speakers: bool,
    licence: str | None,
    json_: bool,
) -> int:
    from melmill.flows.exchange.sets.export import SetRequest, export_set

    if bits not in (None, 16, 24):
        raise PipelineError(f"--bits must be 16 or 24, got {bits}")
    if split and split_list:
        raise PipelineError("--split and --split-list both say the splits: leave one out")
    request = SetRequest(
        # Names of a fan-out hold commas between brackets.
        nodes=tuple(re.split(r",(?![^\[]*\])", node)),
        to=to,
        split=split or "",
        split_list=None if split_list is None else (_text_of(split_list), split_list),
        share_speakers=share_speakers,
        bits=24 if bits == 24 else 16,
        licence=licence or "",
    )
    summary = export_set(store, request, folder, Progress())
    if json_:
        as_json(summary.as_dict())
    else:
        removed = f", {summary.removed} removed" if summary.removed else ""
        took = duration(summary.duration_s)
        click.echo(f"{summary.written} files written, {summary.kept} were there{removed}, in {took}")
        parts = ", ".join(f"{name} {n:,}" for name, n in summary.splits.items())
        click.echo(
            f"{summary.utterances:,} utterances ({parts}), {summary.hours:.2f} h, {summary.speakers:,} speakers; "
            f"{summary.with_text:,} have texts"
        )
        for n, what in (
            (summary.quarantined, _left_out(store, request.nodes[0])),
            (summary.left_out, f"utterances that {split_list} does not name"),
        ):
            if n:
                click.echo(f"left out: {n:,} {what}")
        if summary.clipped_samples:
            click.echo(f"clipped at full scale: {summary.clipped_samples:,} samples")
        click.echo(f"folder: {summary.folder}")
    if summary.missing:
        click.echo(
            f"error: {summary.missing} utterances are not done yet: run the pipeline, then export again", err=True
        )
    return FAILED if summary.missing else DONE


def _text_of(place: str) -> str:
    """Return the content of a list of splits."""
    location, name = folder_and_name(place)
    try:
        return location.read(name).decode()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise PipelineError(f"--split-list must be a file, got {place!r}, which is not there") from error
    except UnicodeDecodeError as error:
        raise PipelineError(f"--split-list must be UTF-8, got {place!r}: byte {error.start:,} is not") from error


def _export_training(store: Store, node: str, folder: str, options: bool, json_: bool) -> int:
    from melmill.flows.exchange.export import export_training

    if options:
        raise PipelineError(
            f"node {node!r} makes a {store.nodes[node].kind}: leave --format, --bits and --utterances out"
        )
    exported = export_training(store, node, folder)
    if json_:
        as_json(exported.as_dict())
    else:
        click.echo(f"{exported.written} files written, {exported.kept} were there")
        click.echo(f"folder: {exported.folder}")
    return DONE


def _left_out(store: Store, node: str) -> str:
    """Return the words for utterances of a node that there is nothing to write of."""
    return f"utterances in quarantine or dropped; see `melmill account {store.location.url}:{node}`"


def _show_clipped(clipped: dict[str, int]) -> None:
    if clipped:
        worst = sorted(clipped.items(), key=lambda pair: (-pair[1], pair[0]))
        named = ", ".join(f"{file} ({count:,})" for file, count in worst[:NAMED])
        more = f" and {len(worst) - NAMED} more (--json names all)" if len(worst) > NAMED else ""
        click.echo(f"clipped at full scale: {sum(clipped.values()):,} samples in {len(worst)} files: {named}{more}")


class Progress:
    """Show on standard error how many files are done, in one line on a terminal."""

    def __init__(self) -> None:
        self.started = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` files are done, unless that was shown a moment ago."""
        now = time.monotonic()
        last = done == total
        if not last and now - self.shown < (TERMINAL_INTERVAL_S if self.terminal else PLAIN_INTERVAL_S):
            return
        self.shown = now
        left = f", {duration((now - self.started) * (total - done) / done)} left" if done and not last else ""
        line = f"{done}/{total} files{left}"
        click.echo(f"\r\033[K{line}" if self.terminal else line, nl=last or not self.terminal, err=True)
