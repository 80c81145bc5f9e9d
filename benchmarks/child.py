"""Measure a function in its own process: time, CPU time and peak memory."""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
# Standard output may hold more than the answer.
MARK = "measured: "
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a call took.

    Parameters
    ----------
    result : mapping
        What the function returned, as plain values.
    process_s : float
        Wall time of the whole process, starting Python and importing included, s.
    wall_s, cpu_s : float
        Of the call alone; CPU time includes that of child processes that ended, s.
    peak_bytes, children_peak_bytes : int
        Largest resident size of the process, and of the largest of its child processes.
    """

    result: Mapping[str, Any]
    process_s: float
    wall_s: float
    cpu_s: float
    peak_bytes: int
    children_peak_bytes: int


def measure(function: str, **arguments: Any) -> Measured:  # noqa: ANN401 - any plain values
    """Call ``module:function`` in a new process of one compute thread, and return what it took.

    Call this from a small process. Linux counts the memory of the parent towards the child's peak.

    Raises
    ------
    RuntimeError
        The call failed. The message holds what the process wrote.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)],
        cwd=_ROOT,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
    )
    process_s = time.perf_counter() - started
    answers = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not answers:
        raise RuntimeError(f"{function} failed with exit code {done.returncode}:\n{done.stderr}")
    return Measured(**{**json.loads(answers[-1]), "process_s": process_s})


def main() -> None:
    """Call the function that the command line names, and print what it took."""
    name, arguments = sys.argv[1:]
    module, function = name.split(":")
    call = getattr(importlib.import_module(module), function)
    wall, cpu = time.perf_counter(), _cpu_s()
    result = call(**json.loads(arguments))
    measured = Measured(
        result=result or {},
        process_s=0.0,
        wall_s=time.perf_counter() - wall,
        cpu_s=_cpu_s() - cpu,
        peak_bytes=_peak_bytes(resource.RUSAGE_SELF),
        children_peak_bytes=_peak_bytes(resource.RUSAGE_CHILDREN),
    )
    sys.stdout.write(f"{MARK}{json.dumps(asdict(measured))}\n")


def _cpu_s() -> float:
    return sum(os.times()[:4])


def _peak_bytes(who: int) -> int:
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
