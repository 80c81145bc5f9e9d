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
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.identify_data import NORMALISATIONS, Clip, clips, normalised, predicted, recordings, unknown_make
from melmill.flows.exchange.identify.candidates import Candidate, candidates
from melmill.flows.exchange.identify.fits import best_form
from melmill.flows.exchange.identify.identify import identify
from melmill.flows.exchange.identify.result import Identified
from melmill.stages.numeric.errors import EmptyBandWarning, StageError
from melmill.stages.numeric.mel import mel_spectrogram

_DEFAULT = Path(__file__).parents[2] / "shared"
_TREATMENTS = ("as it is", "normalised", "float16", "predicted")
# Misfit of two makes that give equal mels.
_EQUAL = 1e-4
_LONGEST_S = 5.0
_SPEECH = ("LJSpeech", "LibriSpeech", "LibriTTS", "VCTK")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """Hold a mel, how it was made, and its recording."""

    clip: Clip
    make: Candidate | None
    treatment: str
    clean: NDArray[np.floating]
    values: NDArray[np.floating]


def trials(found: Sequence[Clip], per_make: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Yield mels of every make by every treatment, of clips drawn at random."""
    for candidate in candidates():
        for treatment in _TREATMENTS:
            for _ in range(per_make):
                clip = found[int(rng.integers(len(found)))]
                M = _made(clip, candidate)
                if M is not None:
                    kind = str(rng.choice(NORMALISATIONS[1:])) if treatment == "normalised" else treatment
                    clean = normalised(M, kind, rng)
                    values = predicted(M, rng) if treatment == "predicted" else clean
                    yield Trial(clip=clip, make=candidate, treatment=treatment, clean=clean, values=values)


def _made(clip: Clip, candidate: Candidate) -> NDArray[np.float64] | None:
    try:
        M = mel_spectrogram(clip.at(candidate.spec.sr), candidate.spec).astype(np.float64)
    except StageError:
        return None
    return M if M.shape[1] >= 16 and M.std() > 0 else None


def unknowns(found: Sequence[Clip], n: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Yield mels of makes that no preset has."""
    specs = [candidate.spec for candidate in candidates()]
    for _ in range(n):
        clip = found[int(rng.integers(len(found)))]
        M = _made(clip, Candidate(names=("unknown",), spec=unknown_make(rng, specs)))
        if M is not None:
            kind = str(rng.choice(NORMALISATIONS))
            yield Trial(clip=clip, make=None, treatment=kind, clean=M, values=normalised(M, kind, rng))


def is_right(trial: Trial, answers: Sequence[str]) -> bool:
    """Tell whether one of the presets named made the mel, or gives an equal one of the recording.

    A mel that was normalised is equal to another up to that normalisation.
    """
    if trial.make is None:
        return False
    if set(answers) & set(trial.make.names):
        return True
    named = {name: candidate for candidate in candidates() for name in candidate.names}
    for candidate in {id(named[name]): named[name] for name in answers}.values():
        M = _made(trial.clip, candidate)
        if M is None or M.shape != trial.clean.shape:
            continue
        fit = best_form(np.asarray(trial.clean, dtype=np.float64), M, _EQUAL)
        if fit.misfit <= (1e-3 if trial.treatment == "float16" else _EQUAL) and (
            fit.how == "as it is" or trial.treatment == "normalised"
        ):
            return True
    return False


def first(found: Identified, n: int) -> list[str]:
    """Return the presets of the first matches."""
    return [name for match in found.matches[:n] for name in match.presets]


def calibration(confidences: Sequence[float], right: Sequence[bool]) -> Iterator[str]:
    """Yield, for stretches of confidence, how often the first answer was right."""
    edges = np.linspace(0, 1, 6)
    for low, high in itertools.pairwise(edges):
        chosen = [ok for value, ok in zip(confidences, right, strict=True) if low <= value < high + (high == 1)]
        if chosen:
            yield f"| {low:.1f} to {high:.1f} | {np.mean(chosen):.2f} | {len(chosen)} |"


def report(rows: Mapping[str, Counter[str]], n_alone: Mapping[str, Counter[str]]) -> Iterator[str]:
    """Yield a table of shares by treatment."""
    yield "| mel | with the recording: first | told as fits | alone: first three | first | mels |"
    yield "|---|---|---|---|---|---|"
    for treatment in (*_TREATMENTS, "all"):
        with_audio, alone = rows[treatment], n_alone[treatment]
        if with_audio["n"]:
            yield (
                f"| {treatment} | {with_audio['right'] / with_audio['n']:.4f} | "
                f"{with_audio['fits'] / with_audio['n']:.3f} | {alone['three'] / max(1, alone['n']):.3f} | "
                f"{alone['one'] / max(1, alone['n']):.3f} | {with_audio['n']}, {alone['n']} |"
            )


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder that holds corpora/ and corpora-more/.")
@click.option("--per-make", default=2, show_default=True, help="Mels of each preset and treatment.")
@click.option("--seed", default=1, show_default=True)
@click.option("--clips", "n_clips", default=60, show_default=True, help="Utterances to draw from.")
@click.option("--without-audio-only", is_flag=True, help="Leave out what needs the recordings.")
@click.option("--verbose", is_flag=True, help="Print every mel that was told wrongly with its recording.")
def main(data: Path | None, per_make: int, seed: int, n_clips: int, without_audio_only: bool, verbose: bool) -> None:
    """Print how often the answers are right, as Markdown."""
    warnings.simplefilter("ignore", EmptyBandWarning)
    rng = np.random.default_rng(seed)
    folder = data or Path(os.environ.get("MELMILL_REAL_DATA", _DEFAULT))
    root = folder / "corpora"
    paths = [path for path in recordings(root) if path.relative_to(root).parts[0] in _SPEECH]
    paths = [paths[int(i)] for i in rng.permutation(len(paths))[:n_clips]]
    found = list(clips(paths, root, rng, longest_s=_LONGEST_S))
    with_audio: dict[str, Counter[str]] = defaultdict(Counter)
    alone: dict[str, Counter[str]] = defaultdict(Counter)
    confidences: list[float] = []
    hits: list[bool] = []
    for trial in trials(found, per_make, rng):
        kinds = (trial.treatment, "all")
        if not without_audio_only:
            answer = identify(trial.values, trial.clip.y, trial.clip.sr)
            right = is_right(trial, first(answer, 1))
            for kind in kinds:
                with_audio[kind].update(n=1, right=right, fits=answer.fits)
            if verbose and not right:
                click.echo(f"{trial.make and trial.make.names[0]}, {trial.treatment}: {answer.lines()[:3]}")
        guess = identify(trial.values)
        for kind in kinds:
            with_audio[kind].update(n=without_audio_only)
            alone[kind].update(n=1, three=is_right(trial, first(guess, 3)), one=is_right(trial, first(guess, 1)))
        confidences.append(guess.best.confidence or 0.0 if guess.best else 0.0)
        hits.append(is_right(trial, first(guess, 1)))
    click.echo("\n".join(report(with_audio, alone)))
    click.echo("\n| confidence | first answer right | mels |\n|---|---|---|")
    click.echo("\n".join(calibration(confidences, hits)))
    wrong = Counter(
        {"n": 0, "fits": 0, "likely": 0},
    )
    for trial in unknowns(found, per_make * 50, rng):
        likely = identify(trial.values)
        fits = not without_audio_only and identify(trial.values, trial.clip.y, trial.clip.sr).fits
        wrong.update(n=1, fits=fits, likely=likely.verdict == "likely")
    click.echo(
        f"\nOf {wrong['n']} mels of unknown makes {wrong['fits']} were told to fit with their recordings, and "
        f"{wrong['likely']} were told to be likely of a known one without."
    )


if __name__ == "__main__":
    main()
