"""`melmill init`: a first pipeline for a folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from melmill.flows.cli.group import DONE, LocalPath, cli
from melmill.flows.cli.show import one_line
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import read
from melmill.flows.pipeline.starter import PURPOSES, Answers, Purpose, purposes, starter, usual_preset
from melmill.stages.numeric.checks import MAX_SR
from melmill.stages.numeric.presets import preset as spec_of
from melmill.stages.numeric.presets import preset_names

if TYPE_CHECKING:
    from melmill.flows.pipeline.layouts import Contents

T = TypeVar("T")


@cli.command()
@click.argument("folder", default=".")
@click.option("--for", "purpose", type=click.Choice(PURPOSES), help="What the pipeline is for.")
@click.option(
    "--preset", metavar="NAME", help="Mel that it makes, or that the folder holds; `melmill mel show` lists all."
)
@click.option("--sr", type=click.IntRange(min=1, max=MAX_SR), help="Rate to store, Hz.  [default: the mel's]")
@click.option("--store", metavar="URL", help="Where results go.  [default: runs/NAME-PURPOSE]")
@click.option(
    "--output",
    type=LocalPath(dir_okay=False),
    default="pipeline.yaml",
    show_default=True,
    help="File to write.",
)
@click.option("-y", "--yes", is_flag=True, help="Ask nothing: take the default of whatever no option says.")
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
def init(
    folder: str,
    purpose: Purpose | None,
    preset: str | None,
    sr: int | None,
    store: str | None,
    output: Path,
    yes: bool,
    force: bool,
) -> int:
    """Look at FOLDER, ask what it is for, and write a commented pipeline that runs as it stands.

    FOLDER holds a corpus in the layout of LibriSpeech, LibriTTS, VCTK or LJSpeech, any other audio
    files with or without texts, or mels as .npy files. It may be a path or any URL that fsspec knows.

    What options say is not asked. Without a terminal nothing is asked, and defaults are taken.

    \b
    Examples:
      melmill init /corpora/LJSpeech
      melmill init /corpora/LJSpeech --for training --preset hifigan --store runs/lj --yes
    """
    from melmill.flows.pipeline.layouts import contents_of

    if preset is not None:
        spec_of(preset)
    contents = contents_of(folder)
    if output.exists() and not force:
        raise PipelineError(
            f"{str(output)!r} exists already: add --force to overwrite it, or --output for another file"
        )
    _show(folder, contents)
    ask = _Asking(interactive=sys.stdin.isatty() and not yes)
    possible = purposes(contents)
    goal = ask("--for", "What is it for", possible[0], click.Choice(possible)) if purpose is None else purpose
    preset = preset or ask("--preset", "Mel", usual_preset(contents, goal), click.Choice(preset_names()))
    if contents.n_mels is None:
        sr = sr or ask("--sr", "Rate to store, Hz", spec_of(preset).sr, click.IntRange(min=1, max=MAX_SR))
    name = _name(folder)
    store = store or ask("--store", "Where results go", f"runs/{name}-{goal}", click.STRING)
    answers = Answers(purpose=goal, preset=preset, sr=sr or spec_of(preset).sr, store=store, name=name)
    text = starter(contents, answers, str(output))
    build_graph(read(text, str(output)))
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PipelineError(f"{str(output)!r} can't be written: {error.strerror}") from error
    if ask.taken:
        click.echo(f"defaults taken: {' '.join(ask.taken)}")
    for note in (*contents.notes, *_warnings(contents, answers)):
        click.echo(f"note: {one_line(note)}")
    click.echo(f"{output} is written; next: melmill plan {output}, then melmill run {output}")
    return DONE


class _Asking:
    """Ask a person on a terminal; elsewhere take defaults and remember which."""

    def __init__(self, *, interactive: bool) -> None:
        self.interactive = interactive
        self.taken: list[str] = []

    def __call__(self, option: str, question: str, default: T, kind: click.ParamType[Any]) -> T:
        """Return the answer to a question, which `option` answers too."""
        if not self.interactive:
            self.taken.append(f"{option} {default}")
            return default
        shown = option != "--preset"  # there are too many
        answer: T = click.prompt(question, default=default, type=kind, show_choices=shown)
        return answer


def _show(folder: str, contents: Contents) -> None:
    layout = contents.layout
    click.echo(f"{folder}: {layout.name}, {contents.n_files:,} files")
    if contents.n_mels is not None:
        axes = {"bands_first": "(n_mels, n_frames)", "frames_first": "(n_frames, n_mels)"}[str(layout.fields["layout"])]
        click.echo(f"  mels of {contents.n_mels} bands, {axes}")
        return
    rates = ", ".join(f"{rate} Hz ({count:,})" for rate, count in contents.rates.items()) or "none known"
    click.echo(f"  {contents.duration_s / 3600:.2f} h by their headers; rates: {rates}")
    click.echo(f"  texts: {contents.n_texts:,} of {contents.n_files:,}; speakers: {contents.n_speakers or 'unknown'}")
    if contents.n_unreadable:
        click.echo(f"  {contents.n_unreadable:,} files have unreadable headers: a run puts them in quarantine")
    for note in contents.notes:
        click.echo(f"  {note}")


def _warnings(contents: Contents, answers: Answers) -> list[str]:
    """Return what a person should know of a choice."""
    needed = spec_of(answers.preset).sr
    warnings = []
    low = sum(count for rate, count in contents.rates.items() if rate < needed)
    if low:
        warnings.append(
            f"{low:,} files have less than the {needed} Hz of {answers.preset}: upper bands of their mels stay empty"
        )
    if answers.purpose == "training" and answers.sr != needed:
        warnings.append(
            f"{answers.preset} is a mel of audio at {needed} Hz, and the store gets {answers.sr} Hz: to train on both "
            f"together, leave --sr {answers.sr} out"
        )
    return warnings


def _name(folder: str) -> str:
    """Return a project's name for a folder.

    >>> _name("/corpora/LJSpeech-1.1/"), _name("s3://bucket/My Corpus")
    ('ljspeech-1-1', 'my-corpus')
    """
    last = folder.rstrip("/").rpartition("/")[2] if "://" in folder else Path(folder).absolute().name
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-") or "corpus"
