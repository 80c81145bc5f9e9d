"""The fault campaign in short: every kind of fault that this machine can give, and a schedule that can be had again."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from benchmarks.faults.campaign import MAX_MISSES, tried_again
from benchmarks.faults.comparing import differing_bytes, differing_contents, fingerprint
from benchmarks.faults.corpus import ChangedCorpus
from benchmarks.faults.schedule import Fault, Kind, schedule
from benchmarks.faults.strikes import Strike
from tests.flows.conftest import Project, add_chapter, flac, voice

ROOT = Path(__file__).parents[1]
# Of a schedule that has the faults that take longest in one round. Another kind of fault needs another.
SEED = 460


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


def test_the_faults_that_take_longest_go_at_once() -> None:
    longest = {
        Kind.WORKER_FROZEN,
        Kind.CLIENT_FROZEN,
        Kind.SCHEDULER_FROZEN,
        Kind.THOUGHT_DEAD,
        Kind.CUT_OFF,
        Kind.POISON_HANGS,
    }
    rounds = schedule(SEED, 4, list(Kind))
    assert any(longest <= {fault.kind for fault in faults} for faults in rounds)


def test_a_strike_that_missed_is_tried_again_a_few_times() -> None:
    def struck(kind: Kind, *, missed: bool) -> Strike:
        return Strike(Fault(kind=kind, after=9, pick=0.5), "", missed=missed)

    first = [struck(Kind.NO_CACHE, missed=True), struck(Kind.DISK_FULL, missed=False)]
    assert tried_again(first, 0) == [Fault(kind=Kind.NO_CACHE, after=1, pick=0.5)]
    # Only those of the last scene are tried again, or each would be so twice.
    assert tried_again([*first, struck(Kind.DISK_FULL, missed=False)], 2) == []
    assert tried_again([*first, struck(Kind.NO_CACHE, missed=True)], 2) == [tried_again(first, 0)[0]]
    assert tried_again([first[0]] * MAX_MISSES, MAX_MISSES - 1) == []


@pytest.fixture
def followed(tmp_path: Path) -> Project:
    """Return a project without inverters, and a corpus of three files."""
    project = Project(tmp_path)
    project.write(
        "name: x\nstore: {store}\nstages:\n"
        "  speech: {{uses: librispeech, root: {root}}}\n  mel: {{uses: extract, from: speech}}\n"
    )
    add_chapter(project.root, "dev-clean", "11", [flac(voice(0.8 + 0.1 * i, 120.0, seed=i)) for i in range(3)])
    return project


def test_a_corpus_is_changed_and_restored(followed: Project) -> None:
    files = sorted(followed.root.rglob("*.flac"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    changed = ChangedCorpus(files)
    assert files[0].read_bytes() == before[files[2]][0]
    assert len(soundfile.read(files[1])[0]) == len(soundfile.read(io.BytesIO(before[files[1]][0]))[0])
    assert [path.name for path in sorted(followed.root.rglob("*.flac"))] == [
        "11-1-0000.flac",
        "11-1-0001.flac",
        "11-1-9999.flac",
    ]
    changed.restore()
    found = sorted(path for path in followed.root.rglob("*") if path.is_file())
    assert {path: path.read_bytes() for path in found} == {path: data for path, (data, _) in before.items()}
    assert all(path.stat().st_mtime_ns != time for path, (_, time) in before.items())
    changed.restore_times()
    assert all(path.stat().st_mtime_ns == time for path, (_, time) in before.items())


def test_a_followed_store_is_compared_by_what_it_holds(followed: Project) -> None:
    followed.run("--executor", "serial")
    undisturbed = followed.folder / "undisturbed"
    shutil.copytree(followed.store, undisturbed)
    changed = ChangedCorpus(sorted(followed.root.rglob("*.flac")))
    followed.run("--executor", "serial", "--follow")
    differing = differing_contents(str(followed.store), undisturbed)
    assert set(differing) == {
        f"{node} of 11-1-{n}" for node in ("speech", "mel") for n in ("0000", "0001", "0002", "9999")
    }
    changed.restore()
    followed.run("--executor", "serial", "--follow")
    assert differing_bytes(followed.store, undisturbed, fingerprint(undisturbed))
    assert differing_contents(str(followed.store), undisturbed) == {}


# Strikes that were missed are tried again, up to three times.
@pytest.mark.timeout(1500)
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
