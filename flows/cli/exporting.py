"""`melmill export`: from the store to files for other programs."""

from __future__ import annotations

import sys
import time

import click

from melmill.flows.cli.group import DONE, FAILED, cli
from melmill.flows.cli.show import as_json
from melmill.flows.errors import PipelineError
from melmill.flows.watching.progress import PLAIN_INTERVAL_S, duration
from melmill.stages.contract import Kind
from melmill.stages.formats.encode import AUDIO_FORMATS, BITS, AudioFormat
from melmill.storage.store import Store

NAMED = 10
TERMINAL_INTERVAL_S = 0.1


@cli.command()
@click.argument("store", metavar="STORE")
@click.argument("node", metavar="NODE")
@click.argument("folder", metavar="FOLDER")
@click.option("--format", "format_", type=click.Choice(AUDIO_FORMATS), help="Of waveforms.  [default: flac]")
@click.option("--bits", type=click.Choice([str(bits) for bits in BITS]), help="Of waveforms.  [default: 16]")
@click.option("--utterances", multiple=True, metavar="GLOB", help="Only those whose id matches (84-*).")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def export(
    store: str,
    node: str,
    folder: str,
    format_: AudioFormat | None,
    bits: str | None,
    utterances: tuple[str, ...],
    json_: bool,
) -> int:
    """Write what NODE of STORE's last run made to FOLDER, a file an utterance, or go on where that stopped.

    A file has the path of its source below FOLDER: audio of the same length and loudness, clipped at full scale and
    never wrapped round; mels as .npy, (n_mels, n_frames); of a training its weights, their configuration and its page,
    to load with melmill.load_vocoder(FOLDER). Files that are there whole are not written again, and files
    that another program put there are never touched.

    \b
    Example:
      melmill export runs/demo admm resynthesised --format flac
    """
    from melmill.flows.exchange.export import export as export_node

    opened = Store.open(store)
    if node in opened.nodes and opened.nodes[node].kind == Kind.VOCODER:
        return _export_vocoder(opened, node, folder, bool(format_ or bits or utterances), json_)
    chosen = next((known for known in BITS if str(known) == bits), None)
    summary = export_node(opened, node, folder, format_=format_, bits=chosen, utterances=utterances, report=Progress())
    if json_:
        as_json(summary.as_dict())
    else:
        click.echo(f"{summary.written} files written, {summary.kept} were there, in {duration(summary.duration_s)}")
        if summary.quarantined:
            click.echo(f"left out: {summary.quarantined} utterances in quarantine; see `melmill quarantine {store}`")
        _show_clipped(summary.clipped)
        click.echo(f"folder: {summary.folder}")
    if summary.missing:
        click.echo(
            f"error: {summary.missing} utterances of {node!r} are not done yet: run the pipeline, then export again",
            err=True,
        )
    return FAILED if summary.missing else DONE


def _export_vocoder(store: Store, node: str, folder: str, options: bool, json_: bool) -> int:
    from melmill.flows.exchange.vocoder import export_vocoder

    if options:
        raise PipelineError(f"node {node!r} makes a vocoder: leave --format, --bits and --utterances out")
    exported = export_vocoder(store, node, folder)
    if json_:
        as_json(exported.as_dict())
    else:
        click.echo(f"{exported.written} files written, {exported.kept} were there")
        click.echo(f"folder: {exported.folder}")
    return DONE


def _show_clipped(clipped: dict[str, int]) -> None:
    if clipped:
        worst = sorted(clipped.items(), key=lambda pair: (-pair[1], pair[0]))
        named = ", ".join(f"{file} ({count:,})" for file, count in worst[:NAMED])
        more = f" and {len(worst) - NAMED} more (--json names all)" if len(worst) > NAMED else ""
        click.echo(f"clipped at full scale: {sum(clipped.values()):,} samples in {len(worst)} files: {named}{more}")


class Progress:
    """Says on standard error how many files are done: in place on a terminal, in a line now and then elsewhere."""

    def __init__(self) -> None:
        self.started = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """Hear of a file."""
        now = time.monotonic()
        last = done == total
        if not last and now - self.shown < (TERMINAL_INTERVAL_S if self.terminal else PLAIN_INTERVAL_S):
            return
        self.shown = now
        left = f", {duration((now - self.started) * (total - done) / done)} left" if done and not last else ""
        line = f"{done}/{total} files{left}"
        click.echo(f"\r\033[K{line}" if self.terminal else line, nl=last or not self.terminal, err=True)
