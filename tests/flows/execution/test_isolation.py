"""Utterances in a child process: the bad ones are found by name, at the cost of few processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from melmill.flows.execution.isolation import process_apart
from melmill.flows.tasks.work import Ingesting, Processing, SourceItem
from melmill.stages.blame import Blame
from melmill.stages.contract import CorpusTree, Discovery, Input, Item, Outcome, Product, Waveform
from melmill.storage.utterance import Utterance

ROOT = Path(__file__).parents[3]
PRODUCT = Waveform(sr=16000)
N = 40


@dataclass(frozen=True, kw_only=True)
class Fussy:
    """Does to its process what each utterance's name says, and answers with the process's id."""

    uses: ClassVar[str] = "fussy"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {}

    def identity(self) -> Mapping[str, Any]:
        return {}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        return PRODUCT

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        (item,) = items
        how, _, _ = item.utterance.utterance_id.partition("-")
        if how == "prints":
            os.write(1, b"as C libraries do")
        if how == "fails":
            raise ValueError("too loud")
        if how == "kills":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "hangs":
            threading.Lock().acquire() and threading.Event().wait()
        if how == "compiles":
            _compile(COMPILING.get(item.utterance.utterance_id, 1))
        if how == "second" and _seen:
            os.abort()
        _seen.append(how)
        return [Outcome(row={"pid": os.getpid()})]


_seen: list[str] = []

# Children that must compile for an utterance before one has all it needs.
COMPILING = {"compiles-2": 2, "compiles-for-ever": 99}


def _compile(n: int) -> None:
    """Take long in the compiler, unless `n` processes have done so before."""
    marks = Path(os.environ["FUSSY_MARKS"])
    if len(list(marks.iterdir())) < n:
        (marks / str(os.getpid())).touch()
        exec(compile("import time\ntime.sleep(100)", "/site-packages/numba/core/compiler.py", "exec"))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def item(name: str) -> Item:
    utterance = Utterance(
        utterance_id=name, subset="", speaker_id="", chapter_id="", text="", path=name, size_bytes=1, mtime_ns=1,
        source_sr=16000, source_n_samples=1, sr=16000, n_samples=1,
    )  # fmt: skip
    return Item(utterance=utterance, inputs={"from": np.zeros(1)}, seed=0)


def outcomes(names: Sequence[str], limit_s: float = 60.0) -> dict[str, Outcome]:
    work = Processing(stage=Fussy(), inputs={}, product=PRODUCT)
    results = process_apart(work, [item(name) for name in names], limit_s)
    return dict(zip(names, results, strict=True))


def processes(by_name: Mapping[str, Outcome]) -> list[Any]:
    return list(dict.fromkeys(outcome.row["pid"] for outcome in by_name.values() if outcome.row))


def test_a_killer_among_many_costs_three_processes() -> None:
    names = [f"good-{i}" for i in range(N)]
    names.insert(17, "kills-1")
    by_name = outcomes(names)
    assert [name for name in names if by_name[name].rejected] == ["kills-1"]
    rejected = by_name["kills-1"].rejected
    assert rejected is not None
    assert rejected.reason == "crashed the process that worked on it (SIGSEGV)"
    assert "Segmentation fault" in rejected.detail
    assert "in process" in rejected.detail
    # One before it, one that only it saw, one after it.
    assert len(processes(by_name)) == 2


def test_who_dies_of_what_others_left_behind_is_not_blamed() -> None:
    by_name = outcomes(["good-1", "second-1", "good-2"])
    assert not any(outcome.rejected for outcome in by_name.values())
    assert len(processes(by_name)) == 2


def test_a_hang_ends_with_its_limit_and_says_where() -> None:
    started = time.monotonic()
    by_name = outcomes(["good-1", "hangs-1", "good-2"], limit_s=5.0)
    assert time.monotonic() - started < 60
    rejected = by_name["hangs-1"].rejected
    assert rejected is not None
    assert rejected.reason == "took longer than the limit of 5 s"
    assert "in wait" in rejected.detail
    assert not by_name["good-1"].rejected
    assert not by_name["good-2"].rejected


def test_time_to_compile_is_not_an_utterances_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSSY_MARKS", str(tmp_path))
    by_name = outcomes(["compiles-2", "good-1"], limit_s=2.0)
    assert not any(outcome.rejected for outcome in by_name.values())


@pytest.mark.slow
def test_a_machine_that_compiles_for_ever_is_to_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSSY_MARKS", str(tmp_path))
    rejected = outcomes(["compiles-for-ever"], limit_s=2.0)["compiles-for-ever"].rejected
    assert rejected is not None
    assert rejected.verdict.blame is Blame.MACHINE
    assert "raise it, or set NUMBA_CACHE_DIR" in rejected.verdict.remedy


def test_what_fails_or_prints_harms_nobody() -> None:
    by_name = outcomes(["prints-1", "fails-1", "good-1"])
    rejected = by_name["fails-1"].rejected
    assert rejected is not None
    assert rejected.reason == "ValueError: too loud"
    assert len(processes(by_name)) == 1


@dataclass(frozen=True, kw_only=True)
class FussyCorpus:
    """Does to its process what each file says."""

    uses: ClassVar[str] = "fussy_corpus"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {}

    root: str = "."

    def identity(self) -> Mapping[str, Any]:
        return {}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        return PRODUCT

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> Discovery:
        return Discovery(utterances=[])

    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        if data == b"kills":
            os.kill(os.getpid(), signal.SIGSEGV)
        if data == b"fails":
            raise ValueError("too loud")
        return Outcome(row={"path": utterance.path})


def test_a_file_that_kills_its_reader_is_found_too() -> None:
    files = {"a": b"good", "b": b"kills", "c": b"fails"}
    items = [SourceItem(utterance=item(name).utterance, data=data) for name, data in files.items()]
    good, kills, fails = process_apart(Ingesting(stage=FussyCorpus()), items, 60.0)
    assert good.row == {"path": "a"}
    assert kills.rejected is not None
    assert kills.rejected.reason == "crashed the process that worked on it (SIGSEGV)"
    assert fails.rejected is not None
    assert fails.rejected.reason == "ValueError: too loud"
