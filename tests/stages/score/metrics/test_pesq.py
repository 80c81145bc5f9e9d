"""PESQ in its child process: right values, and every way for the child to die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.score import pesq_server
from melmill.stages.score.metrics.pesq import RATES, Child, Mode, pesq
from melmill.stages.score.status import Measured, Status

LIMIT_S = 30.0
ROOT = Path(__file__).parents[4]


needs_library = pytest.mark.skipif(find_spec("pesq") is None, reason="needs the extra: pip install melmill[pesq]")


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


def voice(duration_s: float, sr: int = 16000) -> NDArray[np.float32]:
    t = np.arange(round(duration_s * sr)) / sr
    tone = sum(np.sin(2 * np.pi * 140 * k * t + k * k) / k for k in range(1, 25))
    return np.asarray(0.1 * tone * (np.sin(2 * np.pi * 1.5 * t) > -0.5), dtype=np.float32)


def bursts(n: int, sr: int = 16000) -> NDArray[np.float32]:
    """Half a second each: half noise, half nothing."""
    rng = np.random.default_rng(0)
    quarter = sr // 4
    parts = [np.concatenate([0.1 * rng.standard_normal(quarter), np.zeros(quarter)]) for _ in range(n)]
    return np.concatenate(parts).astype(np.float32)


def degraded(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x + (0.003 * np.random.default_rng(1).standard_normal(x.size)).astype(np.float32)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


@needs_library
@pytest.mark.parametrize("mode", ["wb", "nb"])
def test_equal_to_the_library_called_directly(mode: Mode) -> None:
    from pesq import pesq as library

    x = voice(2.0, RATES[mode])
    y = degraded(x)
    assert pesq(x, y, mode, LIMIT_S) == Measured(library(RATES[mode], x, y, mode), Status.OK)


@needs_library
@pytest.mark.parametrize(("mode", "best"), [("wb", 4.64), ("nb", 4.55)])
def test_identical_signals_score_the_best(mode: Mode, best: float) -> None:
    x = voice(2.0, RATES[mode])
    assert pesq(x, x, mode, LIMIT_S).value == pytest.approx(best, abs=0.01)


@needs_library
def test_one_child_serves_all_calls_with_the_same_answers(child: Child) -> None:
    x, z = voice(1.5), voice(0.6)
    first = child.score(x, degraded(x), "wb", LIMIT_S)
    pid = child.pid
    child.score(z, degraded(z), "wb", LIMIT_S)
    assert child.score(x, degraded(x), "wb", LIMIT_S) == first
    assert child.pid == pid


@needs_library
@pytest.mark.parametrize(
    ("reference", "estimate", "status"),
    [
        (voice(0.1), voice(0.1), Status.TOO_SHORT),
        (np.zeros(16000, np.float32), voice(1.0), Status.NO_UTTERANCES),
        (bursts(51), bursts(51), Status.TOO_LONG),  # the library would overrun its arrays, and perhaps answer
    ],
)
def test_a_pair_that_it_cant_judge_has_a_status(
    reference: NDArray[np.float32], estimate: NDArray[np.float32], status: Status
) -> None:
    assert pesq(reference, estimate, "wb", LIMIT_S).status is status


@needs_library
def test_a_real_crash_costs_one_pair(child: Child) -> None:
    # more bursts than the library has room for: it writes past its arrays
    x, fatal = voice(1.0), bursts(70)
    before = child.score(x, degraded(x), "wb", LIMIT_S)
    assert child.score(fatal, degraded(fatal), "wb", LIMIT_S).status is Status.CRASHED
    assert child.pid is None
    assert child.score(x, degraded(x), "wb", LIMIT_S) == before


@needs_library
def test_a_child_killed_in_a_call_is_replaced(child: Child) -> None:
    x = voice(1.0)
    before = child.score(x, x, "wb", LIMIT_S)
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # so that the kill falls into the call
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    assert child.score(x, x, "wb", LIMIT_S).status is Status.CRASHED
    assert child.score(x, x, "wb", LIMIT_S) == before


@needs_library
def test_a_child_killed_between_calls_costs_nothing(child: Child) -> None:
    x = voice(1.0)
    before = child.score(x, x, "wb", LIMIT_S)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert gone_within(child.pid, 5.0)
    assert child.score(x, x, "wb", LIMIT_S) == before


@needs_library
def test_an_interrupted_call_leaves_no_answer_behind(child: Child) -> None:
    # what a user does in a notebook: stop a cell, run the next
    x, z = voice(10.0), voice(1.0)
    expected = child.score(z, degraded(z), "wb", LIMIT_S)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        child.score(x, x, "wb", LIMIT_S)
    assert child.score(z, degraded(z), "wb", LIMIT_S) == expected


@needs_library
def test_a_child_that_hangs_is_a_timeout(child: Child) -> None:
    # 10 s of audio fill the pipe: the request, too, must not wait for ever
    x = voice(10.0)
    child.score(x[:16000], x[:16000], "wb", LIMIT_S)
    pid = child.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    assert child.score(x, x, "wb", 0.3).status is Status.TIMEOUT
    assert time.monotonic() - started < 5.0
    assert gone_within(pid, 5.0)
    assert child.score(x[:16000], x[:16000], "wb", LIMIT_S).status is Status.OK


@pytest.mark.parametrize("failure", ["raise ImportError('none')", "raise ValueError('numpy.dtype size changed')"])
def test_a_library_that_is_missing_or_broken_is_not_installed(tmp_path: Path, failure: str) -> None:
    (tmp_path / "pesq.py").write_text(failure)
    child = Child({"PYTHONPATH": str(tmp_path)})
    x = voice(1.0)
    assert [child.score(x, x, "wb", LIMIT_S).status for _ in range(2)] == [Status.NOT_INSTALLED] * 2
    assert child.pid is None


def test_no_pair_is_to_blame_for_a_child_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "pesq.py").write_text("import os; os.abort()")
    child = Child({"PYTHONPATH": str(tmp_path)})
    x = voice(1.0)
    with pytest.raises(ChildProcessError, match="the process that computes PESQ ended before it was ready"):
        child.score(x, x, "wb", LIMIT_S)


def test_an_error_that_the_library_raises_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pesq.py").write_text("def pesq(*args):\n    raise RuntimeError('Unknown')\n")
    child = Child({"PYTHONPATH": str(tmp_path)})
    x = voice(1.0)
    assert [child.score(x, x, "wb", LIMIT_S).status for _ in range(2)] == [Status.ERROR] * 2


def test_what_the_library_prints_stays_out_of_the_answers(tmp_path: Path) -> None:
    (tmp_path / "pesq.py").write_text("def pesq(*args):\n    print('noise' * 9, flush=True)\n    return 2.5\n")
    child = Child({"PYTHONPATH": str(tmp_path)})
    x = voice(1.0)
    assert [child.score(x, x, "wb", LIMIT_S).value for _ in range(2)] == [2.5, 2.5]
    child.close()


@needs_library
def test_every_thread_has_a_child_of_its_own() -> None:
    x = voice(1.0)
    y = degraded(x)
    expected = pesq(x, y, "wb", LIMIT_S)
    found: list[Measured] = []
    threads = [threading.Thread(target=lambda: found.append(pesq(x, y, "wb", LIMIT_S))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


@needs_library
def test_the_child_of_a_dropped_owner_ends() -> None:
    child = Child()
    x = voice(1.0)
    child.score(x, x, "wb", LIMIT_S)
    pid = child.pid
    assert pid is not None
    del child
    assert gone_within(pid, 5.0)


_OWNER = """
import os, sys, time
import numpy as np
from melmill.stages.score.metrics.pesq import Child
child = Child()
child.score(np.ones(100, np.float32), np.ones(100, np.float32), "wb", 30.0)
print(child.pid, flush=True)
if sys.argv[1] == "fork" and os.fork() == 0:
    assert child.inherited
    del child
    sys.exit(0)
time.sleep(0.0 if sys.argv[1] == "exit" else 60.0)
"""


def owner(how: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER, how], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@needs_library
@pytest.mark.parametrize("how", ["exit", "killed"])
def test_the_child_dies_with_its_parent(how: str) -> None:
    process, pid = owner(how)
    if how == "killed":
        process.kill()
    process.communicate()
    assert gone_within(pid, 5.0)


@needs_library
def test_a_fork_leaves_its_parents_child_alone() -> None:
    process, pid = owner("fork")
    time.sleep(0.5)
    assert is_alive(pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone_within(pid, 5.0)


def test_an_orphan_in_a_long_call_ends_by_its_alarm(tmp_path: Path) -> None:
    (tmp_path / "pesq.py").write_text("import time\ndef pesq(*args):\n    time.sleep(60)\n")
    server = subprocess.Popen(
        [sys.executable, "-P", pesq_server.__file__],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    server.communicate(pesq_server.REQUEST.pack(b"wb", 16000, 0, 0, 0.1), timeout=20)
    assert server.returncode == -signal.SIGALRM
