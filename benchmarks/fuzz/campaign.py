"""Search for faults: start children, watch them, and count what they find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.child import ONE_THREAD
from benchmarks.fuzz.child import NO_INPUT, Order, Progress

ROOT = Path(__file__).parents[2]
MAX_S = 10.0
_LOOK_S = 0.25
_ENDLESS = 1 << 62
# A child that is new has imports, a corpus or a store to make first.
_START_S = 300.0


@dataclass
class Tally:
    """What was tried of one kind.

    Parameters
    ----------
    accepted, refused : int
        Inputs.
    findings : Counter of str
        Inputs by the signature of the fault that they show.
    """

    accepted: int = 0
    refused: int = 0
    findings: Counter[str] = field(default_factory=Counter)

    @property
    def inputs(self) -> int:
        """Inputs tried."""
        return self.accepted + self.refused + self.findings.total()


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search of one seed.

    Parameters
    ----------
    seed : int
    folder : Path
        For findings.
    jobs : int
        Processes at a time.
    say : callable
        Gets each new fault in a line.
    max_s : float
        An input that takes longer hangs.
    """

    seed: int
    folder: Path
    jobs: int
    say: Callable[[str], None]
    max_s: float = MAX_S

    def run(self, kind: str, n_inputs: int | None, duration_s: float | None) -> Tally:
        """Return what came of a kind after so many inputs or so long."""
        tally = Tally()
        stop = _ENDLESS if n_inputs is None else n_inputs
        with tempfile.TemporaryDirectory(prefix="melmill-fuzz-") as folder:
            lanes = [
                _Lane(self, kind, first, stop, duration_s, Path(folder) / str(first), tally)
                for first in range(min(self.jobs, stop))
            ]
            try:
                while any([lane.advance() for lane in lanes]):  # noqa: C419 - all of them advance
                    time.sleep(_LOOK_S if stop > 1000 else 0.02)
            finally:
                for lane in lanes:
                    lane.kill()
        return tally


class _Lane:
    """One child after the other, each going on after the input that ended the one before."""

    def __init__(
        self, search: Search, kind: str, first: int, stop: int, duration_s: float | None, path: Path, tally: Tally
    ) -> None:
        self.search, self.kind, self.tally = search, kind, tally
        self.stop, self.left_s = stop, duration_s
        self.path = path
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s: float | None = None
        self._start(first)

    def advance(self) -> bool:
        """Take note of what the child did; return whether there is more to do."""
        if self.process is None:
            return False
        state, code = self.progress.read(), self.process.poll()
        if self.ready_s is None and state.index >= 0:
            self.ready_s = time.monotonic()
        if code is None:
            limit_s = self.search.max_s if state.index >= 0 else _START_S
            began_s = state.began_s if state.index >= 0 else self.began_s
            if time.monotonic() - began_s <= limit_s:
                return True
            self.process.kill()
            self.process.wait()
            state = self.progress.read()
        self._collect()
        self.tally.accepted += state.accepted
        self.tally.refused += state.refused
        if state.index < 0 or code == NO_INPUT:
            if code != 0:
                raise RuntimeError(f"the child for {self.kind} could not go on:\n{self.errors.read_text()[-4000:]}")
            self.process = None
            return False
        self._lost(
            state.index, f"hang: more than {self.search.max_s:g} s" if code is None else f"died: exit code {code}"
        )
        if self.left_s is not None:
            self.left_s -= time.monotonic() - (self.ready_s or self.began_s)
            if self.left_s <= 0:
                self.process = None
                return False
        self._start(state.index + self.search.jobs)
        return True

    def kill(self) -> None:
        """End the child."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _start(self, first: int) -> None:
        self.path.write_bytes(Progress.SIZE * b"\0")
        self.progress = Progress(self.path)
        self.progress.write(-1, 0, 0)
        self.output, self.errors = self.path.with_suffix(".out"), self.path.with_suffix(".err")
        self.began_s = time.monotonic()
        self.ready_s = None
        self.process = self._child(self._order(first))

    def _order(self, first: int, save: str | None = None) -> Order:
        return Order(
            kind=self.kind,
            seed=self.search.seed,
            first=first,
            stop=self.stop,
            step=self.search.jobs,
            duration_s=self.left_s,
            folder=str(self.search.folder),
            progress=str(self.path),
            save=save,
        )

    def _child(self, order: Order) -> subprocess.Popen[bytes]:
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "benchmarks.fuzz.child", json.dumps(asdict(order))],
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=errors,
            )

    def _collect(self) -> None:
        for line in self.output.read_text().splitlines():
            self._count(json.loads(line)["signature"])

    def _count(self, signature: str) -> None:
        if signature not in self.tally.findings:
            self.search.say(f"{self.kind}: {signature}")
        self.tally.findings[signature] += 1

    def _lost(self, index: int, signature: str) -> None:
        """Save the input that a child did not survive."""
        detail = f"{signature}\n{self.errors.read_text()[-8000:]}"
        saving = self._child(self._order(index, json.dumps({"signature": signature, "detail": detail})))
        saving.wait(_START_S)
        self._count(signature)
