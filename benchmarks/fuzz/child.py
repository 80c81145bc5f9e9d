"""The process that makes and judges inputs, within limits.

It prints a line of JSON for each finding. The number of the input at work and the counts are in a
file that is mapped into memory, so that they outlive the process.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from benchmarks.fuzz.contract import Kind
from benchmarks.fuzz.findings import Finding, read_case
from benchmarks.fuzz.kinds import kind_class

MAX_MEM_BYTES = 2 << 30
# Exit code of a child that could not make an input: a fault of the search itself.
NO_INPUT = 70
_STATE = struct.Struct("<qdqq")


class Progress:
    """What a child is at, in a file that parent and child share.

    Parameters
    ----------
    path : Path
        A file of `Progress.SIZE` bytes.
    """

    SIZE = _STATE.size

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self.SIZE)

    def write(self, index: int, accepted: int, refused: int) -> None:
        """Say that the child begins with an input, and how many it accepted and refused."""
        self._map[:] = _STATE.pack(index, time.monotonic(), accepted, refused)

    def read(self) -> State:
        """Return what the child said last."""
        return State(*_STATE.unpack(self._map[:]))


@dataclass(frozen=True)
class State:
    """The input at work, when it began (of `time.monotonic`, s), and the counts; index -1 before."""

    index: int
    began_s: float
    accepted: int
    refused: int


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a child is to do: inputs `first`, `first + step`, ... below `stop`, of a kind and seed.

    Parameters
    ----------
    duration_s : float or None
        Begin no input later than this after the kind is ready.
    save : str or None
        Save the first input as this fault, without judging it: a JSON object of `signature` and `detail`.
    folder : str
        For findings.
    """

    kind: str
    seed: int
    first: int
    stop: int
    step: int
    duration_s: float | None
    folder: str
    progress: str
    save: str | None = None


def main() -> None:
    """Carry out the order that is the first argument."""
    order = Order(**json.loads(sys.argv[1]))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="melmill-fuzz-") as folder, _quiet() as say, contextlib.chdir(folder):
        kind = make(order.kind, Path(folder))
        if order.save is not None:
            about = json.loads(order.save)
            Finding(kind=order.kind, index=order.first, **about).save(
                Path(order.folder), kind.case(generator(order.seed, order.kind, order.first)), order.seed
            )
            return
        _limit()
        _search(order, kind, say)


def generator(seed: int, kind: str, index: int) -> Random:
    """Return the generator that an input is made from."""
    return Random(f"{seed} {kind} {index}")


def make(name: str, folder: Path) -> Kind:
    """Return a kind that is ready in a folder."""
    return kind_class(name)(folder)


def replay(path: Path) -> bool:
    """Judge a saved input in this process; return whether it is accepted."""
    path = path.absolute()
    name, case = read_case(path)
    with tempfile.TemporaryDirectory(prefix="melmill-fuzz-") as folder, contextlib.chdir(folder):
        kind = make(name, Path(folder))
        with _printed_tracebacks():
            return kind.judge(case)


def _search(order: Order, kind: Kind, say: int) -> None:
    progress, accepted, refused = Progress(Path(order.progress)), 0, 0
    until_s = float("inf") if order.duration_s is None else time.monotonic() + order.duration_s
    for index in range(order.first, order.stop, order.step):
        if time.monotonic() >= until_s:
            break
        progress.write(index, accepted, refused)
        try:
            case = kind.case(generator(order.seed, order.kind, index))
        except Exception:
            traceback.print_exc()
            os._exit(NO_INPUT)
        try:
            with _printed_tracebacks():
                was_accepted = kind.judge(case)
            accepted += was_accepted
            refused += not was_accepted
        except (Exception, SystemExit) as error:
            finding = Finding.of(order.kind, index, error)
            finding.save(Path(order.folder), case, order.seed)
            os.write(say, (json.dumps(asdict(finding)) + "\n").encode())
    progress.write(-1, accepted, refused)


@contextlib.contextmanager
def _printed_tracebacks() -> Iterator[None]:
    """Raise the first exception that a callback can't raise: Python prints its traceback and goes on."""
    printed: list[BaseException] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda about: printed.append(about.exc_value) if about.exc_value else None
    try:
        yield
    finally:
        sys.unraisablehook = before
    if printed:
        raise printed[0]


def _limit() -> None:
    """Let this process take `MAX_MEM_BYTES` more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    limit = pages * resource.getpagesize() + MAX_MEM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def _quiet() -> Iterator[int]:
    """Yield the standard output, and send all that libraries print elsewhere to nowhere."""
    say = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    yield say
    os.close(null)


if __name__ == "__main__":
    main()
