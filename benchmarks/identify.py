"""Measure how often `melmill mel identify` is right.

python -m benchmarks.identify [--data FOLDER] [--per-make N] [--seed N]

Mels of all presets are made of utterances of all corpora in FOLDER/corpora, as they are, normalised at
random, in float16, and disturbed as an acoustic model does. Each is identified with its recording and
without. Mels of makes that no preset has must not fit. Presets that give equal mels of an utterance
count as one. Speakers whose clips trained the network are left out of what is judged without recordings.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.identify_data import EQUAL, NORMALISATIONS, Clip, clips, normalised, predicted, recordings, unknown_make
from melmill.flows.exchange.identify.candidates import Candidate, candidates
from melmill.flows.exchange.identify.explaining import Setup
from melmill.flows.exchange.identify.fits import best_form
from melmill.flows.exchange.identify.identify import identify
from melmill.flows.exchange.identify.matching import Recording
from melmill.flows.exchange.identify.result import Identified
from melmill.stages.numeric.errors import EmptyBandWarning, StageError
from melmill.stages.numeric.mel import mel_spectrogram

_DEFAULT = Path(__file__).parents[2] / "shared"
_TREATMENTS = ("as it is", "normalised", "float16", "predicted")
_UNKNOWN = "unknown make"
_LONGEST_S = 5.0
_FEWEST_FRAMES = 16
_SPEECH = ("LJSpeech", "LibriSpeech", "LibriTTS", "VCTK")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """Hold a mel, and how it was made of a recording."""

    make: Candidate | None
    treatment: str
    clean: NDArray[np.floating]
    values: NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Hold how a mel was told: with its recording (None where that was left out), and alone."""

    treatment: str
    right: bool | None
    fits: bool | None
    three: bool
    one: bool
    confidence: float
    likely: bool
    said: str


def drawn(n_clips: int, per_make: int, rng: np.random.Generator) -> dict[int, list[tuple[int, str]]]:
    """Draw a clip for each mel: by the clip's number, pairs of make (-1: unknown) and treatment."""
    found: dict[int, list[tuple[int, str]]] = {}
    for make in range(len(candidates())):
        for treatment in _TREATMENTS * per_make:
            found.setdefault(int(rng.integers(n_clips)), []).append((make, treatment))
    for _ in range(50 * per_make):
        found.setdefault(int(rng.integers(n_clips)), []).append((-1, _UNKNOWN))
    return found


def judged(clip: Clip, wanted: Sequence[tuple[int, str]], seed: int, alone: bool) -> list[Answer]:
    """Make mels of a clip and tell how they were made. The presets' mels are made once for all of them."""
    warnings.simplefilter("ignore", EmptyBandWarning)
    rng, heard = np.random.default_rng(seed), Recording(y=clip.y, sr=clip.sr)
    made = (_trial(clip, make, treatment, rng) for make, treatment in wanted)
    return [_judged(trial, heard, alone) for trial in made if trial is not None]


def _trial(clip: Clip, number: int, treatment: str, rng: np.random.Generator) -> Trial | None:
    makes = candidates()
    unknown = number < 0
    spec = unknown_make(rng, [candidate.spec for candidate in makes]) if unknown else makes[number].spec
    try:
        M = mel_spectrogram(clip.at(spec.sr), spec).astype(np.float64)
    except StageError:
        return None
    if M.shape[1] < _FEWEST_FRAMES or M.std() == 0:
        return None
    kinds = NORMALISATIONS if unknown else NORMALISATIONS[1:]
    kind = str(rng.choice(kinds)) if treatment in ("normalised", _UNKNOWN) else treatment
    clean = normalised(M, kind, rng)
    values = predicted(M, rng) if treatment == "predicted" else clean
    return Trial(make=None if unknown else makes[number], treatment=treatment, clean=clean, values=values)


def _judged(trial: Trial, heard: Recording, alone: bool) -> Answer:
    answer = None if alone else identify(trial.values, heard)
    guess = identify(trial.values)
    return Answer(
        treatment=trial.treatment,
        right=None if answer is None else is_right(trial, heard, first(answer, 1)),
        fits=None if answer is None else answer.fits,
        three=is_right(trial, heard, first(guess, 3)),
        one=is_right(trial, heard, first(guess, 1)),
        confidence=guess.best.confidence or 0.0 if guess.best else 0.0,
        likely=guess.verdict == "likely",
        said=f"{trial.make and trial.make.names[0]}: {[] if answer is None else answer.lines()[:3]}",
    )


def is_right(trial: Trial, heard: Recording, answers: Sequence[str]) -> bool:
    """Tell whether one of the presets named made the mel, or gives an equal one of the recording.

    A mel that was normalised is equal to another up to that normalisation.
    """
    if trial.make is None:
        return False
    if set(answers) & set(trial.make.names):
        return True
    named = {name: candidate for candidate in candidates() for name in candidate.names}
    for candidate in {id(named[name]): named[name] for name in answers}.values():
        M = heard.mel(candidate.spec, Setup())
        if M is None or M.shape != trial.clean.shape:
            continue
        fit = best_form(np.asarray(trial.clean, dtype=np.float64), M, EQUAL)
        if fit.misfit <= (1e-3 if trial.treatment == "float16" else EQUAL) and (
            fit.how == "as it is" or trial.treatment == "normalised"
        ):
            return True
    return False


def first(found: Identified, n: int) -> list[str]:
    """Return the presets of the first matches."""
    return [name for match in found.matches[:n] for name in match.presets]


def calibration(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield, for stretches of confidence, how often the first answer was right."""
    yield "| confidence | first answer right | mels |"
    yield "|---|---|---|"
    for low, high in itertools.pairwise(np.linspace(0, 1, 6)):
        chosen = [answer.one for answer in answers if low <= answer.confidence < high + (high == 1)]
        if chosen:
            yield f"| {low:.1f} to {high:.1f} | {np.mean(chosen):.2f} | {len(chosen)} |"


def report(answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a table of shares by treatment."""
    yield "| mel | with the recording: first | told as fits | alone: first three | first | mels |"
    yield "|---|---|---|---|---|---|"
    for treatment in (*_TREATMENTS, "all"):
        chosen = [answer for answer in answers if treatment in (answer.treatment, "all")]
        if chosen:
            heard = [(answer.right, answer.fits) for answer in chosen if answer.right is not None]
            shares = " | ".join(f"{share:.4f}" for share in np.mean(heard, axis=0)) if heard else " | "
            three, one = np.mean([(answer.three, answer.one) for answer in chosen], axis=0)
            yield f"| {treatment} | {shares} | {three:.3f} | {one:.3f} | {len(chosen)} |"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder that holds corpora/ and corpora-more/.")
@click.option("--per-make", default=2, show_default=True, help="Mels of each preset and treatment.")
@click.option("--seed", default=1, show_default=True)
@click.option("--clips", "n_clips", default=60, show_default=True, help="Utterances to draw from.")
@click.option("--without-audio-only", is_flag=True, help="Leave out what needs the recordings.")
@click.option("--jobs", default=2, show_default=True)
@click.option("--verbose", is_flag=True, help="Print every mel that was told wrongly with its recording.")
def main(
    data: Path | None, per_make: int, seed: int, n_clips: int, without_audio_only: bool, jobs: int, verbose: bool
) -> None:
    """Print how often the answers are right, as Markdown."""
    rng = np.random.default_rng(seed)
    folder = data or Path(os.environ.get("MELMILL_REAL_DATA", _DEFAULT))
    root = folder / "corpora"
    paths = [path for path in recordings(root) if path.relative_to(root).parts[0] in _SPEECH]
    paths = [paths[int(i)] for i in rng.permutation(len(paths))[:n_clips]]
    found = list(clips(paths, root, rng, longest_s=_LONGEST_S))
    wanted = drawn(len(found), per_make, rng)
    answers: list[Answer] = []
    with ProcessPoolExecutor(jobs) as pool:
        tasks = [
            pool.submit(judged, found[clip], makes, seed + clip, without_audio_only) for clip, makes in wanted.items()
        ]
        for task in as_completed(tasks):
            answers += task.result()
            click.echo(f"{len(answers)} of {sum(map(len, wanted.values()))}", err=True)
    known = [answer for answer in answers if answer.treatment != _UNKNOWN]
    unknown = [answer for answer in answers if answer.treatment == _UNKNOWN]
    if verbose:
        click.echo("\n".join(f"{one.treatment}, {one.said}" for one in known if one.right is False))
    click.echo("\n".join([*report(known), "", *calibration(known)]))
    n_fits, n_likely = sum(bool(one.fits) for one in unknown), sum(one.likely for one in unknown)
    click.echo(
        f"\nOf {len(unknown)} mels of unknown makes {n_fits} were told to fit with their recordings, and {n_likely} "
        "were told to be likely of a known one without."
    )


if __name__ == "__main__":
    main()
