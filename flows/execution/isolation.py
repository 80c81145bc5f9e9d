"""Process utterances in a child process that may die or hang, so that they can't take the worker with them."""

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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, cast

from melmill.flows.execution.time_limit import ended_after
from melmill.flows.pipeline.stage_files import ready
from melmill.flows.tasks.trained import Trained
from melmill.stages.contract import Item, Outcome, Processor, Product, Rejected, Stage, rejection
from melmill.stages.task_context import take_up

# Imports over a slow network file system, and a large model.
_BEGIN_S = 600.0
# What a child that is told to end takes to write down where it was.
_LAST_WORDS_S = 5.0
_DETAIL_BYTES = 20_000


def process_apart(
    stage: Stage,
    items: Sequence[Item],
    inputs: Mapping[str, Product],
    product: Product,
    limit_s: float | None,
    trained: Trained | None = None,
) -> list[Outcome]:
    """Return the outcomes of items, computed one by one in a child process; a death or a hang makes a rejection.

    One child serves all; a new one is started after each that ended. An item is blamed for a death only where it kills
    a child that has seen no other: one that died of what it had seen before is given another chance.

    Parameters
    ----------
    stage, items, inputs, product
        As of `melmill.stages.contract.Processor.process`.
    limit_s : float or None
        Longest that one item may take, s.
    trained : Trained or None
        As of `melmill.flows.pipeline.stage_files.ready`.
    """
    with _Children(pickle.dumps((stage, inputs, product, trained)), limit_s) as children:
        outcomes = []
        for item in items:
            take_up(item.utterance.utterance_id)
            outcomes.append(children.outcome(item))
        return outcomes


class _Ended(Exception):
    """A child ended before it answered."""

    def __init__(self, reason: str, detail: str, *, in_time: bool) -> None:
        super().__init__(reason)
        self.rejected = Rejected(reason=reason, detail=detail)
        self.in_time = in_time


class _Children:
    """Has a child at hand for whoever needs one."""

    def __init__(self, work: bytes, limit_s: float | None) -> None:
        self.work = work
        self.limit_s = limit_s
        self.child: _Child | None = None

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child is not None:
            self.child.end()

    def outcome(self, item: Item) -> Outcome:
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
    """One child process that answers item after item."""

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
        self._begin(work)

    def _begin(self, work: bytes) -> None:
        """Have the child open its stage; what goes wrong in this is no utterance's fault."""
        self._send(work)
        try:
            error: Exception | None = self._answer(_BEGIN_S)
        except _Ended as ended:
            error = RuntimeError(f"a process for single utterances {ended} before it began")
        if error is not None:
            self.end()
            raise error

    def outcome(self, item: Item) -> Outcome:
        """Return the outcome of an item; raise _Ended."""
        self._send(pickle.dumps((item, self.limit_s)))
        outcome: Outcome = self._answer(self.limit_s)
        self.n_answered += 1
        return outcome

    def end(self) -> None:
        """End the child; nothing is lost, as it only answers."""
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.fault):
            with suppress(BrokenPipeError):
                cast("IO[bytes]", file).close()

    def _send(self, data: bytes) -> None:
        # A child that is gone is noticed where its answer is missing.
        stdin = cast("IO[bytes]", self.process.stdin)
        with suppress(BrokenPipeError):
            stdin.write(data)
            stdin.flush()

    def _answer(self, limit_s: float | None) -> Any:  # noqa: ANN401 - whatever was sent
        stdout = cast("IO[bytes]", self.process.stdout)
        # An answer that is there counts, however late this process looks: it may have been the one that was stopped.
        if not select.select([stdout], [], [], limit_s)[0]:
            raise self._ended(f"took longer than the limit of {limit_s:g} s", in_time=False)
        try:
            return pickle.load(stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._ended("crashed the process that worked on it ({})", in_time=True) from None

    def _ended(self, reason: str, *, in_time: bool) -> _Ended:
        if not in_time:
            self.process.send_signal(signal.SIGABRT)
        try:
            returncode = self.process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            returncode = self.process.wait()
        reason = reason.format(_death(returncode))
        self.fault.seek(0)
        detail = self.fault.read(_DETAIL_BYTES).decode(errors="replace")
        self.end()
        return _Ended(reason, detail, in_time=in_time)


def _death(returncode: int) -> str:
    if returncode < 0:
        return signal.Signals(-returncode).name
    return f"exit code {returncode}"


def _serve() -> None:
    """Answer the items on standard input; anything that a library prints goes to standard error."""
    parent, fault = map(int, sys.argv[1:])
    faulthandler.enable(file=fault)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is no utterance's fault
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its crashes are expected: none leaves a core file
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions = sys.stdin.buffer
    stage, inputs, product, trained = pickle.load(questions)
    try:
        processor = ready(stage, trained)
    except Exception as error:
        _put(answers, error)
        return
    _put(answers, None)
    with suppress(EOFError):
        while True:
            item, limit_s = pickle.load(questions)
            # Its parent ends it sooner; without one, nobody else does.
            with ended_after(None if limit_s is None else 2 * limit_s):
                outcome = _outcome(processor, item, inputs, product)
            _put(answers, outcome)


def _put(answers: IO[bytes], answer: object) -> None:
    answers.write(pickle.dumps(answer))
    answers.flush()


def _outcome(processor: Processor, item: Item, inputs: Mapping[str, Product], product: Product) -> Outcome:
    try:
        (outcome,) = processor.process([item], inputs, product)
    except Exception as error:
        return Outcome(rejected=rejection(error))
    return outcome


def _end_with(parent: int) -> None:
    """End this process soon after its parent has: nobody waits for the answer."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    _serve()
