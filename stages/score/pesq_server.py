"""The child process that computes PESQ, and may crash while it does.

It is run by its path and imports nothing of melmill, so that it starts fast. Its parent talks to it
over pipes, in binary. On start the child writes one byte, `READY` or `NOT_INSTALLED`. The parent
then writes a `REQUEST` and the samples of both signals (little-endian float32), and the child
answers with a `REPLY`. The child ends when its input ends.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

REQUEST = struct.Struct("<2sIIId")
"""Mode (``b"wb"`` or ``b"nb"``), rate (Hz), samples of reference and estimate, time limit (s)."""

REPLY = struct.Struct("<Bd")
"""An outcome below, and the score where the outcome is `DONE`."""

READY, NOT_INSTALLED = b"R", b"N"
DONE, NO_UTTERANCES, TOO_SHORT, FAILED = range(4)

_OUTCOMES = {"NoUtterancesError": NO_UTTERANCES, "BufferTooShortError": TOO_SHORT}


def main() -> None:
    """Answer requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes are expected: write no core files
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the library prints must not mix with the answers
    try:
        from pesq import pesq
    except Exception:  # an extension built for another NumPy raises more than ImportError
        answers.write(NOT_INSTALLED)
        return
    answers.write(READY)
    while header := sys.stdin.buffer.read(REQUEST.size):
        answers.write(REPLY.pack(*_answer(pesq, header, sys.stdin.buffer)))


def _answer(pesq: Callable[..., float], header: bytes, samples: BinaryIO) -> tuple[int, float]:
    import numpy as np

    mode, sr, n_reference, n_estimate, limit_s = REQUEST.unpack(header)
    reference, estimate = (np.frombuffer(samples.read(4 * n), dtype="<f4") for n in (n_reference, n_estimate))
    # The parent keeps the time. The alarm ends a call that nobody waits for, even inside C code.
    signal.setitimer(signal.ITIMER_REAL, limit_s + 1.0)
    try:
        outcome = DONE, float(pesq(sr, reference, estimate, mode.decode()))
    except Exception as error:
        outcome = _OUTCOMES.get(type(error).__name__, FAILED), float("nan")
    signal.setitimer(signal.ITIMER_REAL, 0)
    return outcome


if __name__ == "__main__":
    main()
