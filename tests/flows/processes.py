"""Runs as processes of their own, to be watched and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.flows.conftest import Project

PATIENCE_S = 120.0


@dataclass(frozen=True)
class Client:
    """A run as a process of a session of its own, as in a terminal of its own."""

    project: Project
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for a state that is reached while the run goes on."""
        wait_for(lambda: reached() or self.process.poll() is not None, self.log)
        assert self.process.poll() is None, f"ended before the fault: {self.said}"

    def exit_code(self, timeout_s: float = PATIENCE_S) -> int:
        return self.process.wait(timeout_s)

    def children(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def workers(self) -> list[psutil.Process]:
        return [child for child in self.children() if "spawn_main" in " ".join(child.cmdline())]


@contextmanager
def running(project: Project, *arguments: str, extra: Path | None = None) -> Iterator[Client]:
    log = project.folder / f"stderr-{uuid.uuid4().hex}.txt"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            project.command("run", str(project.pipeline), *arguments),
            cwd=project.folder,
            env=project.environment(extra),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield Client(project, process, log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(reached: Callable[[], bool], log: Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, log.read_text() if log else "never happened"
        time.sleep(0.01)
