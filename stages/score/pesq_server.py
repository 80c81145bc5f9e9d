"""A child process that computes PESQ and may die of it, spoken to over its pipes.

It is run by its path, and imports nothing of melmill, so that it starts fast wherever its parent runs.
The protocol is binary: on start the child says one byte, `READY` or `NOT_INSTALLED`; then for each `REQUEST` header and
the samples of both signals (little-endian float32) it answers one `REPLY`. It ends when its input does.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

REQUEST = struct.Struct("<2sIIId")
"""Mode (``b"wb"`` or ``b"nb"``), rate in Hz, number of samples of reference and estimate, time limit in s."""

REPLY = struct.Struct("<Bd")
"""One of the outcomes below, and the score where it is `DONE`."""

READY, NOT_INSTALLED = b"R", b"N"
DONE, NO_UTTERANCES, TOO_SHORT, FAILED = range(4)

_OUTCOMES = {"NoUtterancesError": NO_UTTERANCES, "BufferTooShortError": TOO_SHORT}


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its crashes are expected: none leaves a core file
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the library prints must not reach the protocol
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
    # The parent keeps the time; the alarm ends a call that nobody waits for any more, even inside C.
    signal.setitimer(signal.ITIMER_REAL, limit_s + 1.0)
    outcome = _outcome(lambda: pesq(sr, reference, estimate, mode.decode()))
    signal.setitimer(signal.ITIMER_REAL, 0)
    return outcome


def _outcome(call: Callable[[], Any]) -> tuple[int, float]:
    try:
        return DONE, float(call())
    except Exception as error:
        return _OUTCOMES.get(type(error).__name__, FAILED), float("nan")


if __name__ == "__main__":
    main()
