"""Measure what FAD and KAD depend on: how many recordings there are, and how long they take.

    python -m benchmarks.sets [--recordings 204]

The recordings are LibriSpeech's under ``$MELMILL_REAL_DATA``, without it the demo corpus. What they are
compared with are the same recordings with white noise at 50 dB. Each distance is the mean over draws
of so many recordings without replacement. Beside it stands its standard deviation over the draws.
Times are the processor's, of one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.corpora import speech
from benchmarks.figure import Figure, table
from melmill.stages.score.sets.distances import (
    Distance,
    Embedded,
    frechet_at_infinity,
    frechet_distance,
    kernel_distance,
)
from melmill.stages.score.sets.embeddings import EMBEDDINGS, thinned

SR = 16000
SIZES = (16, 32, 64, 128, 204)
DRAWS = 8
SNR_DB = 50.0
DISTANCES = {"FAD": frechet_distance, "FAD∞": frechet_at_infinity, "KAD": kernel_distance}

Signal = NDArray[np.float32]


def set_of(signals: Sequence[Signal], embedding: str) -> tuple[Embedded, float]:
    """Return the embeddings of signals, and the multiple of real time that they took."""
    started = time.process_time()
    parts = [thinned(EMBEDDINGS[embedding].compute(y)) for y in signals]
    took = time.process_time() - started
    recording = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    audio_s = sum(y.size for y in signals) / SR
    return Embedded(parts=np.concatenate(parts).astype(np.float64), recording=recording), audio_s / took


def noisy(y: Signal, seed: int) -> Signal:
    """Return a recording with white noise."""
    noise = np.random.default_rng(seed).standard_normal(y.size)
    return np.asarray(y + np.std(y) * 10.0 ** (-SNR_DB / 20.0) * noise, dtype=np.float32)


def drawn(x: Embedded, y: Embedded, size: int, seed: int) -> dict[str, Distance]:
    """Return each distance of so many recordings at random."""
    chosen = np.random.default_rng(seed).permutation(x.n_recordings)[:size]
    return {name: of(x.of(chosen), y.of(chosen), seed) for name, of in DISTANCES.items()}


def main() -> None:
    """Print the distances by the number of recordings, and how long they take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=SIZES[-1])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, corpus = speech(Path(folder))
        files = sorted(root.rglob("*.flac"))[: given.recordings]
        recordings = [soundfile.read(file, dtype="float32")[0] for file in files]
    made = [noisy(y, seed) for seed, y in enumerate(recordings)]
    print(f"{len(recordings)} recordings of {corpus}, with white noise at {SNR_DB:g} dB")
    figures = []
    for name, embedding in EMBEDDINGS.items():
        if not embedding.is_installed:
            continue
        set_of(recordings[:2], name)  # compiled and loaded before the clock runs
        (x, speed), (y, _) = set_of(recordings, name), set_of(made, name)
        figures.append(Figure(name=f"{name}, of real time", measured=speed, unit="x"))
        print(f"\n| {name}: recordings | {' | '.join(DISTANCES)} |\n|---|{'---:|' * len(DISTANCES)}")
        for size in (one for one in SIZES if one <= len(recordings)):
            draws = [drawn(x, y, size, seed) for seed in range(1 if size == len(recordings) else DRAWS)]
            cells = []
            for of in DISTANCES:
                values = np.array([draw[of].value for draw in draws])
                cells.append(f"{values.mean():.3f} ± {values.std():.3f}" if len(values) > 1 else f"{values[0]:.3f}")
            print(f"| {size} | {' | '.join(cells)} |")
        for of, distance in DISTANCES.items():
            started = time.process_time()
            distance(x, y, 0)
            took = time.process_time() - started
            figures.append(Figure(name=f"{of} by {name}, {x.n_recordings} recordings", measured=took, unit="s"))
    print()
    print(table(figures))


if __name__ == "__main__":
    main()
