"""PESQ, computed in a child process.

The C code of the `pesq` package writes past its arrays on some inputs. A crash must not end the
worker, so a child process computes it, and a pair that kills the child gets a status.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import IO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score import pesq_server
from melmill.stages.score.metric import Metric
from melmill.stages.score.status import Measured, Status

Floats = NDArray[np.float32 | np.float64]

_FRAME_S = 0.004
# P.862 drops bursts under 50 frames, and joins bursts less than 50 frames apart. Its filters
# blur both a little.
_SHORTEST, _GAP = 40, 40
_STEP_DB, _RANGE_DB = 2.0, 80.0


def most_bursts(y: Floats, sr: int) -> int:
    """Return an upper estimate of how many bursts of speech PESQ finds in a signal.

    It is the most that a detector of any threshold finds. A burst lasts at least 160 ms, starts and
    ends above the threshold, and has no gap of 160 ms below it. P.862 asks for 200 ms of each, in a
    filtered signal and with its own threshold, so its count is hardly ever higher.

    Parameters
    ----------
    y : ndarray of float, shape (n_samples,)
    sr : int
        Hz.

    Examples
    --------
    >>> burst, pause = np.ones(4000), np.zeros(8000)
    >>> most_bursts(np.concatenate([burst, pause, burst, pause, burst]), 16000)
    3
    """
    n = round(sr * _FRAME_S)
    frames = y[: y.size // n * n].reshape(-1, n)
    level_db = 10.0 * np.log10(np.mean(np.square(frames), axis=1, dtype=np.float64) + 1e-20)
    top = np.max(level_db, initial=-200.0)
    return max(_bursts(level_db > top - below) for below in np.arange(_STEP_DB, _RANGE_DB, _STEP_DB))


def _bursts(loud: NDArray[np.bool_]) -> int:
    at = np.flatnonzero(loud)
    if not at.size:
        return 0
    breaks = np.flatnonzero(np.diff(at) > _GAP)
    first, last = at[np.concatenate([[0], breaks + 1])], at[np.concatenate([breaks, [at.size - 1]])]
    return int(np.count_nonzero(last - first + 1 >= _SHORTEST))


Mode = Literal["wb", "nb"]

RATES: Mapping[Mode, int] = MappingProxyType({"wb": 16000, "nb": 8000})
"""Rate in Hz at which each mode is computed: P.862.2 at 16 kHz, P.862 at 8 kHz."""

MAX_BURSTS = 50
"""Bursts of speech that P.862's reference code has room for."""

_START_LIMIT_S = 120.0  # a slow network file system delays the child's imports

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_STATUSES = {
    pesq_server.NO_UTTERANCES: Status.NO_UTTERANCES,
    pesq_server.TOO_SHORT: Status.TOO_SHORT,
    pesq_server.FAILED: Status.ERROR,
}


_local = threading.local()  # a thread's child


def pesq(reference: Floats, estimate: Floats, mode: Mode, limit_s: float = 60.0) -> Measured:
    """Return the PESQ of an estimate as MOS-LQO, or the status that says why it has none.

    Parameters
    ----------
    reference, estimate : ndarray of float in [-1, 1], shape (n_samples,)
        At the mode's rate (`RATES`), neither all zero. The lengths may differ. The library divides
        both by the larger of their peaks.
    mode : {"wb", "nb"}
        Wide band (P.862.2) or narrow band (P.862 mapped by P.862.1).
    limit_s : float
        Longest time to wait for an answer, s.

    Returns
    -------
    Measured
        Statuses without a value: `no_utterances` (the reference has no 200 ms of speech),
        `too_short` (under 0.25 s), `too_long`, `crashed`, `timeout`, `not_installed`, `error`.
        `too_long` means that the reference may hold more than 50 bursts of speech. For those the
        library writes past its arrays, and answers wrongly where it survives.

    Raises
    ------
    ChildProcessError
        The process that computes it does not start. No pair is to blame.
    """
    if most_bursts(reference, RATES[mode]) > MAX_BURSTS:
        return Measured.failed(Status.TOO_LONG)
    child: Child | None = getattr(_local, "child", None)
    if child is None or child.inherited:
        child = _local.child = Child()
    return child.score(reference, estimate, mode, limit_s)


class Child:
    """Hold the server process of one thread.

    The process starts with the first question, and starts again after it died.

    Parameters
    ----------
    environment : mapping of str
        Variables added to this process's environment.
    """

    def __init__(self, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., Child] | None = None
        self._installed = True
        self._owner = os.getpid()

    @property
    def pid(self) -> int | None:
        """Process id; None while no process runs."""
        return None if self._process is None else self._process.pid

    @property
    def inherited(self) -> bool:
        """Whether a fork copied this object, so that its pipes belong to another process."""
        return self._owner != os.getpid()

    def score(self, reference: Floats, estimate: Floats, mode: Mode, limit_s: float) -> Measured:
        """Return what the process answers within `limit_s` seconds; see `pesq`."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died between calls, so this pair is not to blame
        ready = Status.OK if self._installed else Status.NOT_INSTALLED
        if self._installed and self._process is None:
            ready = self._start()
        if ready is not Status.OK:
            return Measured.failed(ready)
        header = pesq_server.REQUEST.pack(mode.encode(), RATES[mode], reference.size, estimate.size, limit_s)
        request = header + reference.astype("<f4").tobytes() + estimate.astype("<f4").tobytes()
        answer = self._exchange(request, pesq_server.REPLY.size, limit_s)
        if isinstance(answer, Status):
            return Measured.failed(answer)
        outcome, value = pesq_server.REPLY.unpack(answer)
        return Measured.of(value) if outcome == pesq_server.DONE else Measured.failed(_STATUSES[outcome])

    def close(self) -> None:
        """End the process if it runs."""
        if self._end is not None:
            self._end()
        self._process = self._end = None

    def _start(self) -> Status:
        process = subprocess.Popen(
            # -P keeps the script's folder off the path, where a module could hide the library.
            [sys.executable, "-P", pesq_server.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ONE_THREAD, **self._environment},
        )
        self._process, self._end = process, weakref.finalize(self, _end, process, self._owner)
        greeting = self._exchange(b"", len(pesq_server.READY), _START_LIMIT_S)
        if isinstance(greeting, Status):
            what = "ended" if greeting is Status.CRASHED else f"said nothing within {_START_LIMIT_S:g} s"
            raise ChildProcessError(f"the process that computes PESQ {what} before it was ready")
        if greeting == pesq_server.READY:
            return Status.OK
        self.close()
        self._installed = False
        return Status.NOT_INSTALLED

    def _exchange(self, request: bytes, size: int, limit_s: float) -> bytes | Status:
        """Send a request and return its answer of `size` bytes.

        Without an answer, end the process and return why.
        """
        process = cast("subprocess.Popen[bytes]", self._process)
        requests, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        with _alarm(limit_s, process.kill) as late:
            try:
                requests.write(request)
                requests.flush()
                answer = answers.read(size)
            except BrokenPipeError:
                answer = b""
            except BaseException:
                # Interrupted: the answer that is still to come must not reach the next pair.
                self.close()
                raise
        if late.is_set() or len(answer) < size:
            self.close()
            return Status.TIMEOUT if late.is_set() else Status.CRASHED
        return answer


@contextmanager
def _alarm(limit_s: float, act: Callable[[], None]) -> Iterator[threading.Event]:
    """Call `act` after `limit_s` seconds in the block, and then set the event that is yielded."""
    late = threading.Event()

    def ring() -> None:
        late.set()
        act()

    timer = threading.Timer(limit_s, ring)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()  # so that the caller sees an alarm that rings at this moment


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork copied the object, but the process is its parent's
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # the dead process left some bytes unread
                pipe.close()


PESQ_WB = Metric(
    name="pesq_wb",
    title="PESQ wide band",
    unit="MOS-LQO",
    better="higher",
    needs="signals",
    lowest_sr=RATES["wb"],
    package="pesq",
    compute=lambda pair: pesq(*pair.at(RATES["wb"]), "wb", pair.time_limit_s),
    order=10,
    says="Perceived quality of speech at 16 kHz by a model of listeners, from about 1 (bad) to 4.64 (identical).",
    formula="P.862.2 as the `pesq` package implements it (the ITU's reference code), at 16 kHz.",
    limits="It was made for telephone codecs and never validated on generated speech. It punishes shifts in time that "
    "no listener hears. Both signals are scaled together. Recordings under 0.25 s, without 200 ms of speech, or with "
    "more than 50 bursts of speech have no value.",
    reference="ITU-T P.862.2 (2007)",
)

PESQ_NB = Metric(
    name="pesq_nb",
    title="PESQ narrow band",
    unit="MOS-LQO",
    better="higher",
    needs="signals",
    lowest_sr=RATES["nb"],
    package="pesq",
    compute=lambda pair: pesq(*pair.at(RATES["nb"]), "nb", pair.time_limit_s),
    order=20,
    says="Perceived quality of the telephone band at 8 kHz, from about 1 (bad) to 4.55 (identical).",
    formula="P.862 with the mapping of P.862.1, by the same code, at 8 kHz.",
    limits="It has the limits of wide-band PESQ, and ignores everything above 4 kHz.",
    reference="ITU-T P.862 (2001), mapped by P.862.1 (2003)",
)
