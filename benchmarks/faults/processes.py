"""Start processes, watch them, wait for them and end them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

PATIENCE_S = 120.0
# Characters of what a process said last.
_TOLD = 2000


class Process:
    """A process in a session of its own, as in its own terminal.

    Parameters
    ----------
    command : sequence of str
    folder : Path
        Working directory.
    log : Path
        Gets its standard output and standard error.
    environment : mapping of str
        Its whole environment.
    """

    def __init__(self, command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, env=dict(environment), stdout=file, stderr=file, start_new_session=True
            )

    @property
    def said(self) -> str:
        """Its output so far."""
        return self.log.read_text(errors="replace")

    @property
    def returncode(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self.process.poll()

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a condition holds while it runs.

        Raises
        ------
        RuntimeError
            It ended before the condition held.
        """
        wait_for(lambda: reached() or self.returncode is not None, lambda: self.said)
        if self.returncode is not None:
            raise RuntimeError(f"it ended too soon, with exit code {self.returncode}: {self.said}")

    def exit_code(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its exit code."""
        return self.process.wait(timeout_s)

    def children(self) -> list[psutil.Process]:
        """Return all processes that it and its children started."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def workers(self) -> list[psutil.Process]:
        """Return the Dask workers among its children, which nannies start."""
        return [child for child in self.children() if "spawn_main" in " ".join(_command(child))]

    def signal(self, number: int, *, tree: bool = False) -> None:
        """Send a signal to it, or to it and all its children."""
        for process in [psutil.Process(self.process.pid), *(self.children() if tree else [])]:
            _signal(process.pid, number)

    def end(self) -> None:
        """Kill it and its children, and return when they are gone."""
        if self.returncode is None:
            children = self.children()
            _signal(self.process.pid, signal.SIGKILL)
            for child in children:
                _signal(child.pid, signal.SIGKILL)
            psutil.wait_procs(children, timeout=10)
        self.process.wait()


def wait_for(reached: Callable[[], bool], said: Callable[[], str]) -> None:
    """Wait until a condition holds.

    Raises
    ------
    TimeoutError
        It does not hold in time. The message holds the output meanwhile.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"never happened: {said()[-_TOLD:]}")
        time.sleep(0.01)


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
