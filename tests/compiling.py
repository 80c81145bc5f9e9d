"""Compile what most tests need before they begin. Else each of their processes compiles it at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np

import melmill
from melmill import flac_frames
from melmill.storage.codecs.flac import encode_flac

SR = 16000


def codecs_and_scores() -> None:
    """Compile the codecs of stores, mels, PESQ and STOI."""
    rng = np.random.default_rng(0)
    flac_frames.decoded(encode_flac((1000 * rng.standard_normal(10_000)).astype(np.int16), SR))
    y = (0.1 * rng.standard_normal(SR)).astype(np.float32)
    melmill.mel(y, preset="paper")
    melmill.score(y, y + 0.01 * rng.standard_normal(SR).astype(np.float32), SR, metrics=["pesq_wb", "pesq_nb", "estoi"])


def inverters() -> None:
    """Compile the inverters."""
    M = melmill.mel((0.1 * np.random.default_rng(0).standard_normal(SR // 2)).astype(np.float32), preset="paper")
    for method in ("admm", "griffin_lim", "ipalm", "raar", "admm_gla", "pghi", "auto"):
        melmill.invert(M, preset="paper", method=method, n_iter=2)


PARTS: dict[str, Callable[[], None]] = {"codecs_and_scores": codecs_and_scores, "inverters": inverters}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        PARTS[sys.argv[1]]()
    else:
        running = [subprocess.Popen([sys.executable, "-m", "tests.compiling", name]) for name in PARTS]
        codes = [process.wait() for process in running]
        sys.exit(any(codes))
