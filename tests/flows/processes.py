"""Runs as processes of their own, to be watched and killed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.processes import Process
from tests.flows.conftest import Project


@contextmanager
def running(project: Project, *arguments: str, extra: Path | None = None) -> Iterator[Process]:
    """Run a pipeline; `extra` is a folder before all others to import from."""
    log = project.folder / f"said-{uuid.uuid4().hex}.txt"
    command = project.command("run", str(project.pipeline), *arguments)
    client = Process(command, project.folder, log, project.environment(extra))
    try:
        yield client
    finally:
        client.end()
