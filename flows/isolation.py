"""Process one utterance in a child process that may die, so that it can't take the worker with it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

from melmill.flows.stage_files import ready
from melmill.flows.trained import Trained
from melmill.stages.stage import Item, Outcome, Product, Rejected, Stage, rejection


def process_alone(
    stage: Stage, item: Item, inputs: Mapping[str, Product], product: Product, trained: Trained | None = None
) -> Outcome:
    """Return the outcome of one item, computed in a child process; a child that dies makes a rejection."""
    work = pickle.dumps((stage, item, inputs, product, trained))
    child = subprocess.run(
        [sys.executable, "-m", "melmill.flows.isolation"], input=work, stdout=subprocess.PIPE, check=False
    )
    if child.returncode == 0:
        outcome: Outcome = pickle.loads(child.stdout)
        return outcome
    return Outcome(rejected=Rejected(reason=f"crashed the process that worked on it ({_death(child.returncode)})"))


def _death(returncode: int) -> str:
    if returncode < 0:
        return signal.Signals(-returncode).name
    return f"exit code {returncode}"


def _serve() -> None:
    """Answer the one item on standard input; anything that a library prints goes to standard error."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr
    stage, item, inputs, product, trained = pickle.load(sys.stdin.buffer)
    try:
        (outcome,) = ready(stage, trained).process([item], inputs, product)
    except Exception as error:
        outcome = Outcome(rejected=rejection(error))
    answers.write(pickle.dumps(outcome))
    answers.flush()


def _end_with(parent: int) -> None:
    """End this process soon after its parent has: nobody waits for the answer."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    _serve()
