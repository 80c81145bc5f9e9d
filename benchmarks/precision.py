"""Measure how lower precision and compilation change the output of a vocoder on real speech.

python -m benchmarks.precision CHECKPOINT [--device cuda]

Recordings of LibriSpeech, or of the demo corpus, go through the vocoder's mel and its stage. Each
row shows mean scores and, in brackets, how far they lie above those of single precision. It also
shows how far the samples are from those of single precision, and the speed as a multiple of real
time. A variant that the device can't compute has a row with the reason.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

import melmill
from benchmarks.corpora import speech
from melmill.flows.pipeline.keys import utterance_seed
from melmill.flows.pipeline.stage_files import prepared, ready
from melmill.stages.contract import Item, Mel
from melmill.stages.invert.inversion import Device
from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.resample import resample
from melmill.stages.score.metric import metric
from melmill.stages.score.pair import Pair
from melmill.stages.vocode.stage import Precision, Vocode
from melmill.storage.utterance import Utterance

METRICS = {"pesq_wb": "PESQ-wb", "estoi": "ESTOI", "mel_mae": "mel error [Np]"}

WAYS: Mapping[str, tuple[Precision, bool]] = {
    "float32": ("float32", False),
    "bfloat16": ("bfloat16", False),
    "float16": ("float16", False),
    "float32, compiled": ("float32", True),
    "bfloat16, compiled": ("bfloat16", True),
    "float16, compiled": ("float16", True),
}

Waves = Sequence[NDArray[np.float32]]
# The stage of a way.
MakeStage = Callable[[Precision, bool], Vocode]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Waveforms of one variant, their mean scores by metric, and its speed."""

    waves: Waves
    scores: Mapping[str, float]
    times_real_time: float


@click.command()
@click.argument("checkpoint")
@click.option("--config", help="Its configuration, if that does not lie in the same folder.")
@click.option("--mel", help="Preset of the mel that it needs, if its configuration is wrong or lacks it.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--corpus", type=click.Path(path_type=Path, exists=True, file_okay=False), help="A folder of FLAC files.")
@click.option("--n-utterances", default=20, show_default=True)
@click.option("--compile/--no-compile", "compiling", default=True, help="Measure compiled ways too.")
def main(
    checkpoint: str,
    config: str | None,
    mel: str | None,
    device: str,
    corpus: Path | None,
    n_utterances: int,
    compiling: bool,
) -> None:
    """Print a Markdown table of the ways in which the vocoder of CHECKPOINT can compute."""
    if device == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device: nothing was measured")
        sys.exit(1)
    torch.set_num_threads(1)

    def make(precision: Precision, compiled: bool) -> Vocode:
        on: Device = "cuda" if device == "cuda" else "cpu"
        stage = prepared(
            Vocode(checkpoint=checkpoint, config=config, mel=mel, precision=precision, device=on, compile=compiled)
        )
        if not isinstance(stage, Vocode):
            raise TypeError(f"a vocoder was prepared as {stage!r}")
        return stage

    known = make("float32", False).known
    recordings = recorded(corpus, n_utterances, known.spec.sr)
    where = torch.cuda.get_device_name() if device == "cuda" else "one CPU thread"
    print(f"{checkpoint}, family {known.family}: {len(recordings)} utterances on {where}, torch {torch.__version__}\n")
    compare(make, recordings, [way for way, (_, compiled) in WAYS.items() if compiling or not compiled])


def recorded(corpus: Path | None, n_utterances: int, sr: int) -> Waves:
    """Return recordings at a rate.

    They are the fourth and fifth of each chapter of test-other, if the corpus has it.
    """
    root = corpus or speech(Path(tempfile.mkdtemp(prefix="melmill-benchmark-")))[0]
    files = sorted(root.glob("test-other/*/*/*-000[34].flac")) or sorted(root.rglob("*.flac"))
    decoded = [soundfile.read(file, dtype="float32") for file in files[:n_utterances]]
    return [resample(y, found, sr) for y, found in decoded]


def compare(make: MakeStage, recordings: Waves, ways: Sequence[str]) -> None:
    """Print a row for each variant. The first is single precision."""
    columns = ["way", *METRICS.values(), "largest difference", "SNR to float32 [dB]", "x real time"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    single: Result | None = None
    for way in ways:
        try:
            result = resynthesised(make(*WAYS[way]), recordings)
        except (StageError, RuntimeError) as error:  # torch says so of types that a device can't compute with
            print(f"| {way} | can't be done here: {str(error).strip().splitlines()[0]} |", flush=True)
            continue
        single = single or result
        print(f"| {way} | {' | '.join(cells(result, single))} |", flush=True)


def resynthesised(stage: Vocode, recordings: Waves) -> Result:
    """Send recordings through the stage twice, and score the second output.

    The first pass compiles and allocates.
    """
    spec = stage.known.spec
    given = Mel(spec=spec)
    product = stage.produces({"from": [given]})
    items = [item(place, melmill.mel(y, spec), y.size, spec.sr) for place, y in enumerate(recordings)]
    processor = ready(stage)
    processor.process(items, {"from": given}, product)
    started = time.perf_counter()
    outcomes = processor.process(items, {"from": given}, product)
    taken = time.perf_counter() - started
    rejected = [outcome.rejected.reason for outcome in outcomes if outcome.rejected]
    if rejected:
        raise RuntimeError(f"{len(rejected)} of {len(items)} utterances failed: {rejected[0]}")
    waves = [outcome.array for outcome in outcomes if outcome.array is not None]
    pairs = [
        Pair(reference=y, reference_sr=spec.sr, estimate=y_hat, estimate_sr=spec.sr, spec=spec)
        for y, y_hat in zip(recordings, waves, strict=True)
    ]
    return Result(
        waves=waves,
        scores={name: float(np.mean([score(name, pair) for pair in pairs])) for name in METRICS},
        times_real_time=sum(y.size for y in recordings) / spec.sr / taken,
    )


def item(place: int, M: NDArray[np.float32], n_samples: int, sr: int) -> Item:
    """Return a mel as the stage receives it."""
    name = f"utterance-{place}"
    utterance = Utterance(
        utterance_id=name, subset="", speaker_id="", chapter_id="", text="", path="", size_bytes=0, mtime_ns=0,
        source_sr=sr, source_n_samples=n_samples, sr=sr, n_samples=n_samples,
    )  # fmt: skip
    return Item(utterance=utterance, inputs={"from": M}, seed=utterance_seed(name))


def score(name: str, pair: Pair) -> float:
    """Return a score. It is NaN if the rate is too low or the package of PESQ is missing."""
    value = metric(name).measure(pair).value
    return float("nan") if value is None else value


def cells(result: Result, single: Result) -> list[str]:
    """Return the cells of a row: scores, and differences from single precision."""
    found = [
        "none" if np.isnan(value) else f"{value:.4f} ({value - single.scores[name]:+.4f})"
        for name, value in result.scores.items()
    ]
    apart = [y - expected for y, expected in zip(result.waves, single.waves, strict=True)]
    noise = sum(float(np.sum(np.square(part, dtype=np.float64))) for part in apart)
    signal = sum(float(np.sum(np.square(y, dtype=np.float64))) for y in single.waves)
    snr = f"{10 * np.log10(signal / noise):.1f}" if noise else "the same"
    return [*found, f"{max(float(np.abs(part).max()) for part in apart):.2e}", snr, f"{result.times_real_time:.1f}"]


if __name__ == "__main__":
    main()
