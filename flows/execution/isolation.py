"""Process utterances in a child process, so that one that kills or hangs it spares the worker."""

from __future__ import annotations

import faulthandler
import os
import pickle
import re
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

from melmill.flows.execution.errors import MachineFailed
from melmill.flows.execution.time_limit import time_limit
from melmill.flows.tasks.work import ItemT, Work, outcome_of
from melmill.stages.blame import Blame, Verdict, headline
from melmill.stages.blame import blame as verdict_of
from melmill.stages.contract import OfUtterance, Outcome, Rejected
from melmill.stages.task_context import enter_utterance

# Longest time until a child is ready: imports over a slow network file system, and a large model.
_START_S = 600.0
# Longest time that an aborted child takes to write its stacks.
_ABORT_S = 5.0
# Items that fail of the machine, and none works, after which the others are not tried.
MAX_FAILED = 3
# Children that one item may use up for compiling.
MAX_COMPILED = 4
# Frames of a process that compiles, for whatever utterance comes first.
_COMPILER = re.compile(r"/numba/core/compiler|/torch/_(?:dynamo|inductor)/")
_SLOW = Verdict(
    blame=Blame.MACHINE,
    remedy="compiling takes longer than time_limit_s there: raise it, or set NUMBA_CACHE_DIR to a folder that lasts",
)
# Length of the stacks that are kept.
_DETAIL_BYTES = 20_000


def process_apart(work: Work[ItemT], items: Sequence[ItemT], limit_s: float | None) -> list[Outcome]:
    """Return the outcome of each item, computed one by one in a child process.

    If an item kills or hangs the child, it is rejected.

    One child serves all items, and a new one replaces each that ended. An item is blamed for a
    death only if it kills a child that has seen no other item. Otherwise it is tried again, as an
    earlier item may have caused the death. So it is with errors that machines usually cause, such
    as a lack of memory.

    Parameters
    ----------
    work : Work
        What is done with each item. The child opens it.
    items : sequence
    limit_s : float or None
        Longest time that one item may take, s.

    Returns
    -------
    list of Outcome
        If the first `MAX_FAILED` items fail of the machine, the rest have the last one's outcome.
    """
    outcomes: list[Outcome] = []
    with _Children(pickle.dumps(work), limit_s) as children:
        for item in items:
            enter_utterance(item.utterance.utterance_id)
            if len(outcomes) >= MAX_FAILED and all(map(_is_machines, outcomes)):
                outcomes.append(outcomes[-1])
            else:
                outcomes.append(children.outcome(item))
    enter_utterance("")
    return outcomes


def _is_machines(outcome: Outcome) -> bool:
    return outcome.rejected is not None and outcome.rejected.verdict.blame >= Blame.LIKELY_MACHINE


class _Ended(Exception):
    """A child ended before it answered."""

    def __init__(self, reason: str, detail: str, *, in_time: bool) -> None:
        super().__init__(reason)
        self.in_time = in_time
        self.was_compiling = not in_time and _COMPILER.search(detail) is not None
        # Should all items end their child so, the machine does it, say by a library that it lacks.
        verdict = _SLOW if self.was_compiling else Verdict(blame=Blame.LIKELY_UTTERANCE)
        self.rejected = Rejected(reason=reason, detail=detail, verdict=verdict)


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

    def outcome(self, item: OfUtterance, n_compiled: int = 0) -> Outcome:
        """Return the outcome of an item, after so many children whose time went into compiling."""
        if self.child is None:
            self.child = _Child(self.work, self.limit_s)
        alone = self.child.n_answered == 0
        try:
            outcome = self.child.outcome(item)
            if not _is_machines(outcome):
                return outcome
            self.child.end()
        except _Ended as ended:
            outcome = Outcome(rejected=ended.rejected)
            if ended.was_compiling and n_compiled < MAX_COMPILED:
                # What it compiled before is kept. The next child begins with the rest.
                self.child = None
                return self.outcome(item, n_compiled + 1)
            alone = alone or not ended.in_time
        self.child = None
        return outcome if alone else self.outcome(item)


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
            error = ChildProcessError(f"a process for single utterances {ended} before it began")
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
        _put(answers, _portable(error))
        return
    _put(answers, None)
    with suppress(EOFError):
        while True:
            item, limit_s = pickle.load(questions)
            # The parent kills this process sooner, unless it is gone or stopped.
            with time_limit(None if limit_s is None else 2 * limit_s):
                outcome = outcome_of(process, item)
            _put(answers, outcome)


def _portable(error: Exception) -> Exception:
    """Return an error that any process can unpickle: the error itself, or one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        found = verdict_of(error)
        text = headline(error)
        return MachineFailed(text, found) if found.blame >= Blame.LIKELY_MACHINE else RuntimeError(text)
    return error


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
