"""The search for inputs that break melmill: that it finds what it is to find, and a small search of each kind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.fuzz.campaign import Search
from benchmarks.fuzz.child import generator, make, replay
from benchmarks.fuzz.contract import Wrong
from benchmarks.fuzz.kinds import KINDS, SHARES
from tests.faulty_inputs import FAULTS, Faulty

ROOT = Path(__file__).parents[1]
SEED = 12
FAULTY = "tests.faulty_inputs:Faulty"


def test_every_kind_has_a_share() -> None:
    assert list(SHARES) == list(KINDS)


def test_a_search_finds_every_fault_and_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    tally = Search(seed=SEED, folder=tmp_path, jobs=2, say=told.append, max_s=1.0).run(FAULTY, 24, None)
    drawn = Counter(Faulty(tmp_path).case(generator(SEED, FAULTY, i)).data.decode() for i in range(24))
    assert set(drawn) == set(FAULTS)
    assert (tally.accepted, tally.refused, tally.inputs) == (drawn["accepted"], drawn["refused"], 24)
    found = {signature.split()[0].rstrip(":"): n for signature, n in tally.findings.items()}
    assert found == {
        "ZeroDivisionError": drawn["traceback"],
        "wrong": drawn["wrong"],
        "hang": drawn["hang"],
        "died": drawn["death"],
        "MemoryError": drawn["memory"],
    }
    assert len(told) == len(found)


def test_a_finding_can_be_judged_again(tmp_path: Path) -> None:
    Search(seed=SEED, folder=tmp_path, jobs=1, say=lambda line: None, max_s=1.0).run(FAULTY, 12, None)
    saved = [path for path in tmp_path.rglob("*.json") if "ZeroDivision" in path.read_text()]
    assert json.loads(saved[0].read_text())["reproduce"].startswith("python -m benchmarks.fuzz --replay ")
    with pytest.raises(ZeroDivisionError):
        replay(saved[0])


def drawn(kind: str, folder: Path, n_inputs: int) -> str:
    """Return the hash of the first inputs of a kind."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(None):
        made = make(kind, folder)
        cases = [made.case(generator(SEED, kind, index)) for index in range(n_inputs)]
    return hashlib.sha256(b"".join(case.name.encode() + case.data for case in cases)).hexdigest()


@pytest.mark.parametrize(
    "kind", [*(kind for kind in KINDS if kind != "stores"), pytest.param("stores", marks=pytest.mark.slow)]
)
def test_a_seed_gives_its_inputs_again(kind: str, tmp_path: Path) -> None:
    """Headers hold clocks and random numbers of streams, which must not matter, nor may hashes of text."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    code = "import sys, pathlib, tests.test_fuzz as test; print(test.drawn(sys.argv[1], pathlib.Path(sys.argv[2]), 60))"
    command = [sys.executable, "-c", code, kind, str(there)]
    other = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == drawn(kind, here, 60)


@pytest.mark.parametrize(
    ("kind", "n_inputs"),
    [("audio", 300), ("settings", 100), ("pipelines", 80), ("tables", 300), ("mels", 300), ("checkpoints", 60)],
)
@pytest.mark.filterwarnings("ignore")
def test_no_input_ends_in_a_traceback(kind: str, n_inputs: int, tmp_path: Path) -> None:
    """Whether what is accepted is right is judged by the longer search."""
    with contextlib.chdir(tmp_path):
        made = make(kind, tmp_path)
        for index in range(n_inputs):
            with contextlib.suppress(Wrong):
                made.judge(made.case(generator(SEED, kind, index)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "n_inputs"),
    [
        ("audio", 5000),
        ("settings", 2000),
        ("pipelines", 1500),
        ("tables", 20_000),
        ("mels", 5000),
        ("checkpoints", 400),
        ("stores", 60),
    ],
)
def test_a_search_of_a_minute_finds_nothing(kind: str, n_inputs: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--only", kind, "--inputs", str(n_inputs)]
    command += ["--seed", str(SEED), "--folder", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{n_inputs:,} inputs in" in done.stdout
