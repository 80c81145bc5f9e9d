"""`melmill mel` and `melmill invert`: mel specs, and single files without a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from melmill.flows.cli.files.exporting import FormatName
from melmill.flows.cli.group import DONE, FAILED, cli
from melmill.flows.cli.show import as_json, table
from melmill.flows.pipeline.convert import convert, field_types, unknown
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.located import parse
from melmill.flows.pipeline.spec import load
from melmill.stages.contract import Kind, Mel
from melmill.stages.extract.fields import check_complete, with_statistics
from melmill.stages.ingest.levels import MIX
from melmill.stages.ingest.readers.mel_folder import LAYOUTS, Layout
from melmill.stages.numeric.contract import explain as explain_pair
from melmill.stages.numeric.errors import ParameterError, StageError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import Preset, equal_presets, find_presets, preset, preset_of
from melmill.storage.errors import StoreError

if TYPE_CHECKING:
    from melmill.flows.exchange.single import Made
    from melmill.stages.extract.transcoding import Via

_files = click.argument("files", metavar="FILE...", nargs=-1, required=True)
_preset = click.option("--preset", metavar="NAME", help="How the mels are made: a preset, or a node as PIPELINE:NODE.")
_spec = click.option(
    "--spec", multiple=True, metavar="K=V", help="Set a field of the mel spec, such as n_mels=100. Repeatable."
)
_stats = click.option(
    "--stats", metavar="FILE", help="Mean and deviation of each band, by which the mels are normalised: stats.h5, ..."
)
_verbose = click.option("-v", "--verbose", is_flag=True, help="Print what was written, and how long that took.")


@cli.group()
def mel() -> None:
    """Make mels of audio files; show mel specs, and what differs between two.

    A spec has the name of a preset (hifigan) or of a node of a pipeline (pipeline.yaml:mel).
    """


@mel.command()
@click.argument("name", nargs=-1)
@click.option("--project", metavar="TEXT", help="List presets of projects with this in their names.")
@click.option("--sr", type=int, metavar="HZ", help="List presets of this sampling rate.")
@click.option("--bands", type=int, metavar="N", help="List presets with this number of bands.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def show(name: tuple[str, ...], project: str | None, sr: int | None, bands: int | None, json_: bool) -> int:
    """Print every field of the spec NAME. Without NAME, list all presets.

    Words that are no name list the presets that have all of them in their names, projects or notes.

    \b
    Example:
      melmill mel show hifigan
      melmill mel show --sr 24000 --bands 100
      melmill mel show pre-emphasis
    """
    text = " ".join(name)
    searching = (project, sr, bands) != (None, None, None)
    if text and not searching and _is_spec(text):
        spec = spec_of(text)
        if json_:
            as_json(spec.as_dict())
        else:
            about = [] if ":" in text else _about(preset_of(text))
            shown = [(key, _shown(value)) for key, value in spec.as_dict().items()]
            table(("field", "value"), [*about, *shown])
        return DONE
    found = find_presets(text, project=project, sr=sr, n_mels=bands)
    if not found:
        if text and not searching:
            preset_of(text)  # raises, with the nearest name
        raise PipelineError("no preset fits: `melmill mel show` lists all")
    if json_:
        as_json({known.name: known.spec.as_dict() for known in found})
        return DONE
    columns = ("sr", "n_fft", "hop_length", "n_mels", "fmin", "fmax", "log", "floor", "center")
    rows = [(known.name, known.project, *(getattr(known.spec, c) for c in columns)) for known in found]
    table(("preset", "project", *columns), rows)
    return DONE


def _is_spec(text: str) -> bool:
    """Tell whether a text names a preset, or a node as ``FILE:NODE``."""
    if ":" in text:
        return True
    try:
        preset_of(text)
    except ParameterError:
        return False
    return True


def _about(named: Preset) -> list[tuple[str, str]]:
    """Return what is known of a preset beside its fields."""
    said = {
        "preset": named.name,
        "project": named.project,
        "source": named.source,
        "vocoders": named.feeds,
        "note": named.note,
        "recipe before": "; ".join(named.recipe),
        "needs": named.needs,
        "equal to": ", ".join(other for other in equal_presets(named.spec) if other != named.name),
        "not undone": "; ".join(named.spec.lost()),
    }
    return [(key, value) for key, value in said.items() if value]


def _shown(value: object) -> object:
    return "null" if value is None else value


@mel.command()
@click.argument("a")
@click.argument("b")
def explain(a: str, b: str) -> int:
    """Print which fields of the specs A and B differ, and whether a mel of A can become one of B.

    \b
    Example:
      melmill mel explain hifigan bigvgan_v2_22khz_80band_256x
    """
    click.echo(explain_pair(spec_of(a), spec_of(b)))
    return DONE


@mel.command()
@_files
@click.option("-o", "--output", required=True, metavar="OUT", help="Write this .npy file; for several FILEs, a folder.")
@_preset
@_spec
@_stats
@click.option(
    "--channel",
    default=MIX,
    show_default=True,
    metavar="NAME",
    help="Take this channel: left, right, loudest, a number from 0, or mix for the mean of all.",
)
@_verbose
def make(
    files: tuple[str, ...],
    output: str,
    preset: str | None,
    spec: tuple[str, ...],
    stats: str | None,
    channel: str,
    verbose: bool,
) -> int:
    """Make the mel of each recording in FILE..., a .npy file (n_mels, n_frames).

    \b
    Example:
      melmill mel make speech.wav -o mel.npy --preset hifigan
    """
    from melmill.flows.exchange.single import mel_file, targets

    chosen = int(channel) if channel.isdecimal() else channel
    work = partial(mel_file, spec=spec_from(preset, spec, stats), channel=chosen)
    return _each(targets(files, output, ["npy"]), work, verbose)


@mel.command()
@_files
@click.option("--audio", metavar="WAV", help="The recording that the mels may have been made of: proves the spec.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Specs to list.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def identify(files: tuple[str, ...], audio: str | None, top: int, json_: bool) -> int:
    """Tell how the mel in each FILE was made: .npy, .npz, .pt or .safetensors.

    With --audio the answer is exact: the presets that make this mel of the recording, its normalisation,
    framing and rate, and the lines that read it. Without it, the likely presets are ranked.

    \b
    Example:
      melmill mel identify mel.npy --audio speech.wav
    """
    from melmill.flows.exchange.identify.array import read_array
    from melmill.flows.exchange.identify.identify import identify as identified
    from melmill.flows.exchange.identify.matching import Recording
    from melmill.flows.exchange.single import recording

    y, sr = recording(audio) if audio else (None, 0)
    heard = None if y is None else Recording(y=y, sr=sr)
    answers: dict[str, object] = {}
    failed = 0
    for file in files:
        try:
            found = identified(read_array(file), heard, top)
        except (StageError, StoreError, PipelineError) as error:
            click.echo(f"error: {file}: {error}", err=True)
            failed += 1
            continue
        failed += found.verdict in ("unknown", "no_mel")
        answers[file] = found.as_dict()
        if not json_:
            first, *others = found.lines()
            click.echo("\n".join([f"{file}: {first}", *others]))
    if json_:
        as_json(answers)
    return FAILED if failed else DONE


@mel.command()
@click.argument("files", metavar="IN...", nargs=-1, required=True)
@click.argument("output", metavar="OUT")
@click.option("--from", "made_by", required=True, metavar="A", help="How IN was made: a preset, or PIPELINE:NODE.")
@click.option("--to", "needed", required=True, metavar="B", help="How OUT is to be: a preset, or PIPELINE:NODE.")
@click.option("--audio", metavar="FILE", help="Recording of one IN: the error is measured against its mel.")
@click.option(
    "--via",
    type=click.Choice(("auto", "magnitude", "waveform")),
    default="auto",
    show_default=True,
    help="How, where it is not exact.",
)
@click.option(
    "--quality",
    type=click.Choice(("draft", "good", "best")),
    default="good",
    show_default=True,
    help="What an inversion spends.",
)
@click.option("--length", type=int, help="Samples of the sound of one IN at the rate of A.")
@click.option(
    "--layout", type=click.Choice(LAYOUTS), help="Order of the arrays' axes.  [default: known by their shape]"
)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def transcode(
    files: tuple[str, ...],
    output: str,
    made_by: str,
    needed: str,
    audio: str | None,
    via: Via,
    quality: str,
    length: int | None,
    layout: Layout | None,
    json_: bool,
) -> int:
    """Make the mel of kind B of each mel of kind A in IN..., .npy files, and print its error.

    OUT is a .npy file, or a folder for several IN. What is a function of the same bands is exact.
    Mels of the same frames come from a magnitude, others from a waveform.

    \b
    Example:
      melmill mel transcode mel.npy other.npy --from hifigan --to vocos_24khz
    """
    from melmill.flows.exchange.single import targets, transcode_file

    if len(files) > 1 and (audio is not None or length is not None):
        raise click.UsageError(f"--audio and --length take one IN, got {len(files)}: leave them out")
    a, b = spec_from(made_by, ()), spec_from(needed, ())
    found: list[dict[str, object]] = []

    def work(file: str, out: str) -> Made:
        made, result = transcode_file(
            file, out, a, b, layout=layout, audio=audio, length=length, via=via, quality=quality
        )
        row = {"in": file, "out": out, "error_db": result.error_db, "measured": result.measured}
        found.append({**row, "via": result.via, "unseen": list(result.unseen), "notes": list(result.notes)})
        if not json_:
            said = "exact" if result.measured == "exact" else f"{result.error_db:.3g} dB ({result.measured})"
            click.echo(f"{out}: {result.M.shape[0]} bands, {result.M.shape[1]} frames, by {result.via}, error {said}")
            for note in result.notes:
                click.echo(f"note: {note}", err=True)
        return made

    code = _each(targets(files, output, ["npy"]), work, verbose=False)
    if json_:
        as_json({"mels": found})
    return code


@cli.command()
@_files
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="Write this audio file; for several FILEs, a folder."
)
@_preset
@_spec
@_stats
@click.option(
    "--method", default="auto", show_default=True, help="Solver: admm, griffin_lim, ... auto is the best for its time."
)
@click.option("--quality", type=click.Choice(["draft", "good", "best"]), help="What auto spends.  [default: good]")
@click.option("--n-iter", type=int, help="Iterations.  [default: 100, or what --quality spends]")
@click.option(
    "--prior",
    metavar="PRIOR",
    help="Learned prior, which guesses the starting magnitude: auto, none, a name or a file.  "
    "[default: auto if --method is, else none]",
)
@click.option("--length", type=int, help="Samples to make of one FILE.  [default: the fewest that have its frames]")
@click.option(
    "--layout", type=click.Choice(LAYOUTS), help="Order of the arrays' axes.  [default: known by their shape]"
)
@click.option(
    "--format",
    "format_",
    type=FormatName(Kind.WAVEFORM),
    default="wav",
    show_default=True,
    help="Format of files in a folder.",
)
@click.option("--bits", type=int, metavar="N", help="Bits per sample of flac and wav: 16 or 24.  [default: 16]")
@_verbose
def invert(
    files: tuple[str, ...],
    output: str,
    preset: str | None,
    spec: tuple[str, ...],
    stats: str | None,
    method: str,
    quality: str | None,
    n_iter: int | None,
    prior: str | None,
    length: int | None,
    layout: Layout | None,
    format_: str,
    bits: int | None,
    verbose: bool,
) -> int:
    """Make a waveform of each mel in FILE..., a .npy file (n_mels, n_frames) or (n_frames, n_mels).

    \b
    Example:
      melmill invert mel.npy -o speech.wav --preset hifigan --quality best
    """
    from melmill.flows.exchange.export import bits_for
    from melmill.flows.exchange.prior_files import load_prior
    from melmill.flows.exchange.single import audio_targets, invert_file
    from melmill.stages.invert.inversion import default_prior
    from melmill.stages.invert.priors import AUTO, NONE, fitting

    if length is not None and len(files) > 1:
        raise click.UsageError(f"--length takes one FILE, got {len(files)}: give one, or leave it out")
    places, written = audio_targets(files, output, format_)
    made_by, wanted = spec_from(preset, spec, stats), prior or default_prior(method)
    if wanted == AUTO and (note := fitting(made_by).note):
        click.echo(f"note: {note}", err=True)
    guide = wanted if wanted in (AUTO, NONE) else load_prior(wanted)
    given = {"quality": quality, "n_iter": n_iter}
    work = partial(
        invert_file,
        spec=made_by,
        format_=written,
        bits=bits_for(written, bits, "`melmill invert`"),
        layout=layout,
        length=length,
        options={
            "method": method,
            "prior": guide,
            **{name: value for name, value in given.items() if value is not None},
        },
    )
    return _each(places, work, verbose)


def _each(places: Mapping[str, str], work: Callable[..., Made], verbose: bool) -> int:
    """Work on each file. A bad file is one line of error, and the others go on."""
    failed = 0
    for file, out in places.items():
        try:
            made = work(file, out)
        except ParameterError:
            raise  # an option is wrong, for every file
        except (StageError, StoreError, PipelineError) as error:
            click.echo(f"error: {file}: {error}", err=True)
            failed += 1
            continue
        if made.n_clipped:
            click.echo(f"warning: {made.out}: {made.n_clipped:,} samples clipped at full scale", err=True)
        if verbose:
            start = f", from {made.start}" if made.start else ""
            click.echo(f"{made.out}: {made.duration_s:.2f} s of audio in {made.compute_s:.2f} s{start}", err=True)
    return FAILED if failed else DONE


def spec_from(name: str | None, overrides: Sequence[str], stats: str | None = None) -> MelSpec:
    """Return the spec that ``--preset``, ``--spec`` and ``--stats`` say; fields alone change `paper`."""
    if name is None and not overrides:
        raise click.UsageError(
            "say how the mels are made, by --preset NAME or --spec FIELD=VALUE; `melmill mel show` lists the presets"
        )
    types, values = field_types(MelSpec), {}
    for override in overrides:
        field, equals, text = override.partition("=")
        where = f"--spec {override}"
        if not equals:
            raise PipelineError(f"--spec takes FIELD=VALUE, such as n_mels=100, got {override!r}")
        if field not in types:
            raise PipelineError(unknown("field", field, types, "a mel spec"), where)
        values[field] = convert(parse(text, where), types[field], field)
    spec = replace(spec_of(name or "paper"), **values)
    if stats is not None:
        spec = with_statistics(spec, stats)
    if name is not None and ":" not in name:
        check_complete(preset_of(name), spec)
    return spec


def spec_of(name: str) -> MelSpec:
    """Return the spec of a preset or of a mel node, ``FILE:NODE``."""
    path, colon, node = name.rpartition(":")
    if not colon:
        return preset(name)
    nodes = build_graph(load(Path(path)))
    product = nodes[node].product if node in nodes else None
    if not isinstance(product, Mel):
        mels = ", ".join(other.name for other in nodes.values() if isinstance(other.product, Mel))
        raise PipelineError(f"{path} has no mel node {node!r} (mel nodes: {mels or 'none'})")
    return product.spec
