"""Real servers for tests: start them in the foreground, wait for them, stop them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0


def needs(*programs: str, root: bool = False) -> None:
    """Skip the test and say why, where a program or a right is missing."""
    missing = [program for program in programs if find(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: tests/cluster/setup.sh installs it, as root")
    if root and os.geteuid() != 0:
        pytest.skip("needs root")


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def environment(**extra: str) -> dict[str, str]:
    """Return an environment in which processes import this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **extra}


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as one:
        one.bind((host, 0))
        port: int = one.getsockname()[1]
        return port


def wait_until(what: Callable[[], object], why: str, patience_s: float = PATIENCE_S) -> None:
    """Poll until something holds. Fail if it never does, and say what did not hold."""
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, f"not within {patience_s:g} s: {why}"
        time.sleep(0.05)


def answers(host: str, port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex((host, port)) == 0


@contextmanager
def server(
    command: Sequence[str | Path],
    log: Path,
    ready: Callable[[], object],
    extra: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends. It must stay up."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=output, stderr=output, env=environment(**(extra or {}))
        )
    try:
        wait_until(lambda: ready() or process.poll() is not None, f"{command[0]} is up")
        assert process.poll() is None, f"{command[0]} ended: {log.read_text()[-2000:]}"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
