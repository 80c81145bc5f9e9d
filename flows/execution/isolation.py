"""Process utterances in a child process, so that one that kills or hangs it spares the worker."""

from __future__ import annotations

import faulthandler
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, cast

from melmill.flows.execution.time_limit import time_limit
from melmill.flows.tasks.work import ItemT, Work, outcome_of
from melmill.stages.contract import OfUtterance, Outcome, Rejected
from melmill.stages.task_context import enter_utterance

# Longest time until a child is ready: imports over a slow network file system, and a large model.
_START_S = 600.0
# Longest time that an aborted child takes to write its stacks.
_ABORT_S = 5.0
# Length of the stacks that are kept.
_DETAIL_BYTES = 20_000


def process_apart(work: Work[ItemT], items: Sequence[ItemT], limit_s: float | None) -> list[Outcome]:
    """Return the outcome of each item, computed one by one in a child process.

    If an item kills or hangs the child, it is rejected.

    One child serves all items, and a new one replaces each that ended. An item is blamed for a
    death only if it kills a child that has seen no other item. Otherwise it is tried again, as an
    earlier item may have caused the death.

    Parameters
    ----------
    work : Work
        What is done with each item. The child opens it.
    items : sequence
    limit_s : float or None
        Longest time that one item may take, s.
    """
    with _Children(pickle.dumps(work), limit_s) as children:
        outcomes = []
        for item in items:
            enter_utterance(item.utterance.utterance_id)
            outcomes.append(children.outcome(item))
        return outcomes


class _Ended(Exception):
    """A child ended before it answered."""

    def __init__(self, reason: str, detail: str, *, in_time: bool) -> None:
        super().__init__(reason)
        self.rejected = Rejected(reason=reason, detail=detail)
        self.in_time = in_time


class _Children:
    """Keep one child process, and replace it when it ends."""

    def __init__(self, work: bytes, limit_s: float | None) -> None:
        self.work = work
        self.limit_s = limit_s
        self.child: _Child | None = None

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child is not None:
            self.child.end()

    def outcome(self, item: OfUtterance) -> Outcome:
        """Return the outcome of an item."""
        if self.child is None:
            self.child = _Child(self.work, self.limit_s)
        try:
            return self.child.outcome(item)
        except _Ended as ended:
            alone, self.child = self.child.n_answered == 0, None
            if alone or not ended.in_time:
                return Outcome(rejected=ended.rejected)
        return self.outcome(item)


class _Child:
    """One child process that answers one item after the other."""

    def __init__(self, work: bytes, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self.n_answered = 0
        self.fault: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "melmill.flows.execution.isolation", str(os.getpid()), str(self.fault.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self.fault.fileno()],
        )
        # No utterance is to blame for what goes wrong while the child opens its work.
        self._send(work)
        try:
            error = cast("Exception | None", self._answer(_START_S))
        except _Ended as ended:
            error = RuntimeError(f"a process for single utterances {ended} before it began")
        if error is not None:
            self.end()
            raise error

    def outcome(self, item: OfUtterance) -> Outcome:
        """Return the outcome of an item; raise _Ended if the child ends first."""
        self._send(pickle.dumps((item, self.limit_s)))
        outcome = cast("Outcome", self._answer(self.limit_s))
        self.n_answered += 1
        return outcome

    def end(self) -> None:
        """Kill the child, which holds nothing that could be lost."""
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.fault):
            with suppress(BrokenPipeError):
                cast("IO[bytes]", file).close()

    def _send(self, data: bytes) -> None:
        # If the child is gone, the missing answer will tell.
        stdin = cast("IO[bytes]", self.process.stdin)
        with suppress(BrokenPipeError):
            stdin.write(data)
            stdin.flush()

    def _answer(self, limit_s: float | None) -> object:
        """Return the child's answer; raise _Ended if it ends first or exceeds `limit_s`."""
        stdout = cast("IO[bytes]", self.process.stdout)
        # An answer that is there counts, however late it is read: this process may have been
        # stopped meanwhile.
        if not select.select([stdout], [], [], limit_s)[0]:
            raise self._ended(f"took longer than the limit of {limit_s:g} s", in_time=False)
        try:
            answer: object = pickle.load(stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._ended("crashed the process that worked on it ({})", in_time=True) from None
        return answer

    def _ended(self, reason: str, *, in_time: bool) -> _Ended:
        if not in_time:
            self.process.send_signal(signal.SIGABRT)
        try:
            returncode = self.process.wait(_ABORT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            returncode = self.process.wait()
        death = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
        self.fault.seek(0)
        detail = self.fault.read(_DETAIL_BYTES).decode(errors="replace")
        self.end()
        return _Ended(reason.format(death), detail, in_time=in_time)


def _serve() -> None:
    """Answer the items on standard input; what libraries print goes to standard error."""
    parent, fault = map(int, sys.argv[1:])
    faulthandler.enable(file=fault)
    # The parent handles ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Crashes are expected, so they leave no core files.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    try:
        process = pickle.load(questions).opened()
    except Exception as error:
        _put(answers, error)
        return
    _put(answers, None)
    with suppress(EOFError):
        while True:
            item, limit_s = pickle.load(questions)
            # The parent kills this process sooner, unless it is gone or stopped.
            with time_limit(None if limit_s is None else 2 * limit_s):
                outcome = outcome_of(process, item)
            _put(answers, outcome)


def _put(answers: IO[bytes], answer: object) -> None:
    answers.write(pickle.dumps(answer))
    answers.flush()


def _end_with(parent: int) -> None:
    """End this process soon after its parent ended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    _serve()
