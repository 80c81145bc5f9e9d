"""The fault campaign in short: every kind of fault that this machine can give, and a schedule that can be had again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.schedule import Kind, schedule

ROOT = Path(__file__).parents[1]
# Of a schedule that has the faults that take longest in one round.
SEED = 65507


def test_a_seed_gives_its_schedule_again() -> None:
    assert schedule(7, 50, list(Kind)) == schedule(7, 50, list(Kind))
    assert schedule(7, 50, list(Kind)) != schedule(8, 50, list(Kind))


@pytest.mark.parametrize("n_rounds", [1, 4, 10, 50])
def test_every_kind_has_its_turn(n_rounds: int) -> None:
    rounds = schedule(0, n_rounds, list(Kind))
    assert len(rounds) == n_rounds
    kinds = [fault.kind for faults in rounds for fault in faults]
    assert set(kinds) == set(Kind)
    assert max(map(kinds.count, Kind)) - min(map(kinds.count, Kind)) <= 1


@pytest.mark.slow
def test_a_short_campaign_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--rounds", "4", "--seed", str(SEED)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()
    for kind in Kind:
        assert any(line.startswith(f"{kind} ") for line in summary), done.stdout
    assert "utterances lost             0" in summary
    assert "differing bytes             0" in summary
