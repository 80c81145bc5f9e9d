"""`melmill invert` and `melmill mel make`: single files, without a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import click

from melmill.flows.cli.group import DONE, FAILED, cli
from melmill.flows.cli.mels import mel, spec_from
from melmill.flows.errors import PipelineError
from melmill.stages.formats.exchange.pcm import AUDIO_FORMATS, BITS
from melmill.stages.ingest.readers.mel_folder import LAYOUTS, Layout
from melmill.stages.numeric.errors import ParameterError, StageError
from melmill.storage.errors import StoreError

if TYPE_CHECKING:
    from melmill.flows.exchange.single import Made

_files = click.argument("files", metavar="FILE...", nargs=-1, required=True)
_preset = click.option("--preset", metavar="NAME", help="How the mels are made: a preset, or a node as PIPELINE:NODE.")
_spec = click.option(
    "--spec", multiple=True, metavar="K=V", help="Set a field of the mel spec, such as n_mels=100. Repeatable."
)
_verbose = click.option("-v", "--verbose", is_flag=True, help="Print what was written, and how long that took.")


@cli.command()
@_files
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="Write this .wav or .flac file; for several FILEs, a folder."
)
@_preset
@_spec
@click.option(
    "--method", default="auto", show_default=True, help="Solver: admm, griffin_lim, ... auto is the best for its time."
)
@click.option("--quality", type=click.Choice(["draft", "good", "best"]), help="What auto spends.  [default: good]")
@click.option("--n-iter", type=int, help="Iterations.  [default: 100, or what --quality spends]")
@click.option("--length", type=int, help="Samples to make of one FILE.  [default: the fewest that have its frames]")
@click.option(
    "--layout", type=click.Choice(LAYOUTS), help="Order of the arrays' axes.  [default: known by their shape]"
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(AUDIO_FORMATS),
    default="wav",
    show_default=True,
    help="Format of files in a folder.",
)
@click.option(
    "--bits", type=click.Choice([str(b) for b in BITS]), default="16", show_default=True, help="Bits per sample."
)
@_verbose
def invert(
    files: tuple[str, ...],
    output: str,
    preset: str | None,
    spec: tuple[str, ...],
    method: str,
    quality: str | None,
    n_iter: int | None,
    length: int | None,
    layout: Layout | None,
    format_: str,
    bits: str,
    verbose: bool,
) -> int:
    """Make a waveform of each mel in FILE..., a .npy file (n_mels, n_frames) or (n_frames, n_mels).

    \b
    Example:
      melmill invert mel.npy -o speech.wav --preset hifigan --quality best
    """
    from melmill.flows.exchange.single import invert_file, targets

    if length is not None and len(files) > 1:
        raise click.UsageError(f"--length takes one FILE, got {len(files)}: give one, or leave it out")
    given = {"quality": quality, "n_iter": n_iter}
    work = partial(
        invert_file,
        spec=spec_from(preset, spec),
        bits=next(known for known in BITS if str(known) == bits),
        layout=layout,
        length=length,
        options={"method": method, **{name: value for name, value in given.items() if value is not None}},
    )
    return _each(targets(files, output, sorted(AUDIO_FORMATS, key=lambda known: known != format_)), work, verbose)


@mel.command()
@_files
@click.option("-o", "--output", required=True, metavar="OUT", help="Write this .npy file; for several FILEs, a folder.")
@_preset
@_spec
@_verbose
def make(files: tuple[str, ...], output: str, preset: str | None, spec: tuple[str, ...], verbose: bool) -> int:
    """Make the mel of each recording in FILE..., a .npy file (n_mels, n_frames).

    \b
    Example:
      melmill mel make speech.wav -o mel.npy --preset hifigan
    """
    from melmill.flows.exchange.single import mel_file, targets

    return _each(targets(files, output, ["npy"]), partial(mel_file, spec=spec_from(preset, spec)), verbose)


def _each(places: Mapping[str, str], work: Callable[..., Made], verbose: bool) -> int:
    """Work on each file. A bad file is a line of error and the others go on; a bad option ends it."""
    failed = 0
    for file, out in places.items():
        try:
            made = work(file, out)
        except ParameterError:
            raise
        except (StageError, StoreError, PipelineError) as error:
            click.echo(f"error: {file}: {error}", err=True)
            failed += 1
            continue
        if made.n_clipped:
            click.echo(f"warning: {made.out}: {made.n_clipped:,} samples clipped at full scale", err=True)
        if verbose:
            click.echo(f"{made.out}: {made.duration_s:.2f} s of audio in {made.compute_s:.2f} s", err=True)
    return FAILED if failed else DONE
