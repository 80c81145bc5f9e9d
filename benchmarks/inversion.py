"""Measure inversion, mel extraction and scoring against other libraries.

python -m benchmarks.inversion

Everything runs on one thread of one process. The contenders of a comparison take turns, and the
medians count. The other libraries are librosa, and torchaudio if it is installed. The lower bound of
an iteration is a real FFT and its inverse of all frames, by the fastest library. The speech is
LibriSpeech if ``MELMILL_REAL_DATA`` names its folder, otherwise the demo corpus.
"""

from __future__ import annotations

import platform
import sys

import click
import torch
from threadpoolctl import threadpool_limits

from benchmarks.figure import Figure, table
from benchmarks.inverting import SPEED, Speech
from benchmarks.judging import JUDGEMENT

PARTS = {**SPEED, **JUDGEMENT}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(PARTS)), help="Measure this part; may be repeated.")
def main(only: tuple[str, ...]) -> None:
    """Print one table: figure, measured value, goal, met.

    The exit code is 1 if a goal is not met.
    """
    torch.set_num_threads(1)
    speech = Speech.at_hand()
    print(
        f"{platform.machine()}, Python {platform.python_version()}, one thread; {speech.duration_s:.2f} s of "
        f"{speech.name}, {speech.n_frames} frames",
        flush=True,
    )
    figures: list[Figure] = []
    with threadpool_limits(1):
        for name, part in PARTS.items():
            if not only or name in only:
                print(f"{name} ...", flush=True)
                figures += part(speech)
    print(table(figures))
    sys.exit(any(figure.met is False for figure in figures))


if __name__ == "__main__":
    main()
