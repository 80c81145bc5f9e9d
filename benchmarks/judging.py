"""The parts of the inversion benchmark that measure scores and their cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

import melmill
from benchmarks.corpora import SR
from benchmarks.figure import Figure
from benchmarks.inverting import SPEC, Speech
from benchmarks.timing import in_turns
from melmill.stages.score.metric import METRICS as CATALOGUE
from melmill.stages.score.metric import metric
from melmill.stages.score.pair import Pair

REPEATS = 5
METRICS = (
    *("pesq_wb", "estoi", "stoi", "scm", "sc", "lsd", "mstft", "mel_mae", "mcd", "si_sdr", "snr_seg", "loudness_diff"),
)
SLOW = ("pesq_wb", "estoi", "stoi")

# What the means over the 20 utterances are to reach after so many iterations: name, bound, whether a lower one.
GOALS = {
    50: {"scm": (-32.0, False), "pesq_wb": (3.66, True), "estoi": (0.922, True)},
    100: {"scm": (-36.0, False), "pesq_wb": (3.70, True), "estoi": (0.926, True)},
}


def pair(reference: NDArray[np.float32], estimate: NDArray[np.float32]) -> Pair:
    """Return two waveforms at 16 kHz to be compared."""
    return Pair(reference=reference, reference_sr=SR, estimate=estimate, estimate_sr=SR, spec=SPEC)


def scoring(speech: Speech) -> list[Figure]:
    """Measure the speed of every metric and of pystoi on one core, as multiples of real time."""
    from pystoi import stoi

    y = speech.y
    estimate = melmill.invert(speech.mel, SPEC, method="griffin_lim", n_iter=20, length=y.size)

    def score(name: str) -> Callable[[], object]:
        return lambda: metric(name).measure(pair(y, estimate))

    taken = in_turns(
        {
            **{name: score(name) for name in METRICS},
            "pystoi's ESTOI": lambda: stoi(y, estimate, SR, extended=True),
            "pystoi's STOI": lambda: stoi(y, estimate, SR, extended=False),
        },
        REPEATS,
    )
    # Of those that need a package, which may take seconds, one turn after the first.
    others = [name for name, one in CATALOGUE.items() if one.package and one.is_installed]
    taken |= in_turns({name: score(name) for name in others}, 1)
    goals = {name: None if name in (*SLOW, *others) else 500.0 for name in (*METRICS, *others)}
    found = [
        Figure(name=f"{name}, of real time", measured=speech.duration_s / taken[name], unit="x", goal=goals[name],
               at_least=True)
        for name in (*METRICS, *others)
    ]  # fmt: skip
    for name in ("ESTOI", "STOI"):
        ratio = taken[f"pystoi's {name}"] / taken[name.lower()]
        found.append(Figure(name=f"pystoi's {name} over ours", measured=ratio, unit="x", goal=5, at_least=True))
    return found


def quality(speech: Speech) -> list[Figure]:
    """Mean scores of our methods, without a prior, and of librosa's default.

    Means are over the 20 utterances of test-other whose names end in -0003 or -0004.
    """
    files = sorted(speech.root.glob("test-other/*/*/*-000[34].flac"))
    if len(files) != 20:
        print(f"quality: skipped, {speech.name} has {len(files)} of the 20 utterances", flush=True)
        return []
    found: list[Figure] = []
    for name, invert in _CONTENDERS.items():
        means = _means(files, invert)
        goals = GOALS.get(int(name.split()[-1]), {}) if name.startswith("invert") else {}
        for column, mean in means.items():
            bound, at_least = goals.get(column, (None, False))
            found.append(Figure(name=f"{name}: {column}", measured=mean, unit="", goal=bound, at_least=at_least))
    return found


def _means(
    files: Sequence[Path], invert: Callable[[NDArray[np.float32], int], NDArray[np.float32]]
) -> dict[str, float]:
    scores: dict[str, list[float]] = {name: [] for name in ("scm", "sc", "pesq_wb", "estoi")}
    for file in files:
        y = soundfile.read(file, dtype="float32")[0]
        both = pair(y, invert(melmill.mel(y, SPEC), y.size))
        for name, values in scores.items():
            value = metric(name).measure(both).value
            values.append(float("nan") if value is None else value)
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _librosa(M: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
    import librosa

    y = librosa.feature.inverse.mel_to_audio(
        M, sr=SR, power=1, n_fft=SPEC.n_fft, hop_length=SPEC.hop_length, length=n_samples
    )
    return np.asarray(y, dtype=np.float32)


def _invert(n_iter: int) -> Callable[[NDArray[np.float32], int], NDArray[np.float32]]:
    return lambda M, n_samples: melmill.invert(M, SPEC, n_iter=n_iter, length=n_samples, prior="none")


_CONTENDERS = {
    "librosa mel_to_audio 32": _librosa,
    "invert 10": _invert(10),
    "invert 20": _invert(20),
    "invert 50": _invert(50),
    "invert 100": _invert(100),
}

JUDGEMENT: Mapping[str, Callable[[Speech], list[Figure]]] = {"scoring": scoring, "quality": quality}
