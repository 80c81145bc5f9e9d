"""Plot what inversion reaches for its time: PESQ, ESTOI and SCM at 5 to 500 iterations.

python -m benchmarks.frontier [--prior NAME|FILE] [--utterances N] [--plot FILE]

The contenders are `invert` with and without a prior, its three qualities as users get them, fast
Griffin-Lim, librosa's `mel_to_audio`, and torchaudio's `InverseMelScale` with `GriffinLim` where it
can be imported. All run on one thread.
Means are over the first of the 20 utterances of test-other whose names end in -0003 or -0004. The
time is CPU time, which other processes hardly change. It is stated as a multiple of that of `invert`
at 50 iterations without a prior. ``MELMILL_REAL_DATA`` names the folder of ``corpora/LibriSpeech``.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import soundfile
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import melmill
from benchmarks.corpora import SR, librispeech
from benchmarks.inverting import SPEC
from benchmarks.judging import pair
from melmill.stages.numeric.prior import Prior
from melmill.stages.numeric.solvers.auto import Auto, Quality
from melmill.stages.score.metric import metric

Array = NDArray[np.float32]
Invert = Callable[[Array, int], Array]
N_ITERS = (5, 10, 20, 30, 50, 100, 200, 500)
METRICS = {"pesq_wb": "PESQ-wb", "estoi": "ESTOI", "scm": "SCM, dB"}
UNIT = ("invert without a prior", 50)
_QUALITIES: tuple[Quality, ...] = ("draft", "good", "best")


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a contender reaches: its curve, its iterations, CPU time a second of speech, and means."""

    curve: str
    n_iter: int
    cpu_s: float
    means: Mapping[str, float]


def contenders(prior: Prior) -> dict[tuple[str, int], Invert]:
    """Return every way to invert by curve and number of iterations."""
    made: dict[tuple[str, int], Invert] = {}
    for n_iter in N_ITERS:
        made["invert without a prior", n_iter] = _ours(n_iter=n_iter, prior="none")
        made["invert with a prior", n_iter] = _ours(n_iter=n_iter, prior=prior)
        made["fast Griffin-Lim", n_iter] = _ours(n_iter=n_iter, method="griffin_lim", momentum=0.99, start="random")
    made["librosa", 32] = _librosa
    # What users get: the prior is checked first. Each is named by its iterations.
    for quality in _QUALITIES:
        made["invert, its three qualities", Auto(quality=quality).resolved(None, guided=True)[1]] = _ours(
            quality=quality
        )
    if importlib.util.find_spec("torchaudio") is not None:
        made["torchaudio", 32] = _torchaudio()
    return made


def _ours(**options: object) -> Invert:
    return lambda M, n_samples: melmill.invert(M, SPEC, length=n_samples, **options)  # type: ignore[arg-type]


def _librosa(M: Array, n_samples: int) -> Array:
    import librosa

    y = librosa.feature.inverse.mel_to_audio(
        M, sr=SR, power=1, n_fft=SPEC.n_fft, hop_length=SPEC.hop_length, length=n_samples
    )
    return np.asarray(y, dtype=np.float32)


def _torchaudio() -> Invert:
    from torchaudio.transforms import GriffinLim, InverseMelScale

    undo = InverseMelScale(SPEC.stft.n_bins, SPEC.n_mels, SR, norm="slaney", mel_scale="slaney")
    phase = GriffinLim(SPEC.n_fft, hop_length=SPEC.hop_length, power=1.0)

    def run(M: Array, n_samples: int) -> Array:
        y = phase(undo(torch.from_numpy(np.ascontiguousarray(M)))).numpy()
        return np.asarray(np.pad(y[:n_samples], (0, max(0, n_samples - y.size))), dtype=np.float32)

    return run


def measured(files: Sequence[Path], ways: Mapping[tuple[str, int], Invert]) -> list[Point]:
    """Invert every utterance in every way, in turns; the first utterance once more, which compiles."""
    cpu_s: dict[tuple[str, int], float] = dict.fromkeys(ways, 0.0)
    scores: dict[tuple[str, int], list[list[float]]] = {way: [] for way in ways}
    duration_s = 0.0
    for warm, file in enumerate([files[0], *files]):
        y = soundfile.read(file, dtype="float32")[0]
        M = melmill.mel(y, SPEC)
        duration_s += y.size / SR if warm else 0.0
        for way, invert in ways.items():
            began = time.process_time()
            estimate = invert(M, y.size)
            if warm:
                cpu_s[way] += time.process_time() - began
                values = [metric(name).measure(pair(y, estimate)).value for name in METRICS]
                scores[way].append([math.nan if value is None else value for value in values])
    return [
        Point(
            curve=curve,
            n_iter=n_iter,
            cpu_s=cpu_s[curve, n_iter] / duration_s,
            means=dict(zip(METRICS, np.mean(scores[curve, n_iter], axis=0).tolist(), strict=True)),
        )
        for curve, n_iter in ways
    ]


def plotted(points: Sequence[Point], unit_s: float) -> Figure:
    """Return a panel for each metric: its mean over time, a line for each curve."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, title) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for curve in dict.fromkeys(point.curve for point in points):
            own = [point for point in points if point.curve == curve]
            axes.plot([p.cpu_s / unit_s for p in own], [p.means[name] for p in own], "o-", ms=3, lw=1, label=curve)
        axes.set_xscale("log")
        axes.set_xlabel("time, of `invert` at 50 iterations")
        axes.set_title(title)
        axes.grid(visible=True, alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    return figure


@click.command()
@click.option("--prior", "which", default="paper", show_default=True, help="Name or file of a prior.")
@click.option("--utterances", default=20, show_default=True, type=click.IntRange(1, 20))
@click.option("--plot", metavar="FILE", help="Write the plot here: .svg or .png.")
def main(which: str, utterances: int, plot: str | None) -> None:
    """Print a Markdown table with a row for each contender, sorted by time."""
    files = sorted((librispeech() / "test-other").rglob("*-000[34].flac"))[:utterances]
    if not files:
        sys.exit(f"{librispeech()} holds no test-other: MELMILL_REAL_DATA names the folder of corpora/LibriSpeech")
    torch.set_num_threads(1)
    with threadpool_limits(1):
        points = measured(files, contenders(melmill.load_prior(which)))
    unit_s = next(p.cpu_s for p in points if (p.curve, p.n_iter) == UNIT)
    print(
        f"{len(files)} utterances, prior {which}. `invert`, 50 iterations: {1e3 * unit_s:.2f} ms a second of speech\n"
    )
    print("| method | iterations | time | " + " | ".join(METRICS.values()) + " |")
    print("|---" * (3 + len(METRICS)) + "|")
    for point in sorted(points, key=lambda point: point.cpu_s):
        means = " | ".join(f"{point.means[name]:.3f}" for name in METRICS)
        print(f"| {point.curve} | {point.n_iter} | {point.cpu_s / unit_s:.2f} x | {means} |")
    if plot is not None:
        plotted(points, unit_s).savefig(plot, metadata={"Date": None} if plot.endswith(".svg") else None)


if __name__ == "__main__":
    main()
