"""Corpora of mels alone: inverted and resumed like any other, and never scored."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from tests.flows.conftest import Project

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
max_quarantined: 0.5
stages:
  mel: {{uses: mel_folder, root: {root}, preset: hifigan}}
  gla: {{uses: griffin_lim, from: mel, n_iter: 2}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""


@pytest.fixture
def mels(tmp_path: Path) -> Project:
    """Return a project on eight mels of 41 to 111 frames."""
    made = Project(tmp_path)
    (made.root / "s").mkdir(parents=True)
    for i in range(8):
        save(made, f"s/{i}", np.random.default_rng(i).uniform(-11.5, 1.0, (80, 41 + 10 * i)))
    made.write(PIPELINE)
    return made


def save(project: Project, name: str, M: NDArray[Any]) -> None:
    path = project.root / f"{name}.npy"
    np.save(path, M.astype(np.float32))
    os.utime(path, (1_700_000_000, 1_700_000_000))


def test_mels_are_inverted_alike_on_one_process_and_on_many(mels: Project) -> None:
    answer = mels.run("--executor", "serial")
    assert (answer["utterances"], answer["quarantined"], answer["tasks"]["failed"]) == (8, 0, 0)
    store = melmill.open(str(mels.store))
    for i in range(8):
        M = np.load(mels.root / "s" / f"{i}.npy")
        np.testing.assert_array_equal(store["mel"][f"s--{i}"], M)
        assert store["gla"][f"s--{i}"].shape == (M.shape[1] * 256,)
    alone = mels.bytes()
    mels.store = mels.folder / "dask"
    mels.write(PIPELINE)
    assert mels.run()["tasks"]["run"] == answer["tasks"]["run"]
    assert mels.bytes() == alone


def test_new_mels_are_added_and_changed_ones_refused(mels: Project) -> None:
    first = mels.run("--executor", "serial")["tasks"]
    assert mels.run("--executor", "serial")["tasks"] == {**first, "run": 0, "reused": first["total"]}
    save(mels, "s/9", np.zeros((80, 50)))
    added = mels.run("--executor", "serial")["tasks"]
    assert (added["run"], added["reused"]) == (2, first["total"])
    save(mels, "s/0", np.ones((80, 41)))
    os.utime(mels.root / "s" / "0.npy")
    done = mels.called("run", str(mels.pipeline))
    assert done.returncode == 2
    assert "changed since it was catalogued: s/0.npy" in done.stderr


def test_one_mel_in_another_log_does_not_fail_its_shard(mels: Project) -> None:
    save(mels, "s/db", np.random.default_rng(0).uniform(-11.5, 74.0, (80, 40)))
    answer = mels.run("--executor", "serial")
    assert (answer["utterances"], answer["quarantined"], answer["tasks"]["failed"]) == (9, 1, 0)
    assert sorted(melmill.open(str(mels.store))["gla"]) == [f"s--{i}" for i in range(8)]


def test_bad_mels_are_quarantined_and_the_rest_goes_on(mels: Project) -> None:
    (mels.root / "s" / "empty.npy").write_bytes(b"")
    np.save(mels.root / "s" / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    save(mels, "s/nan", np.full((80, 40), np.nan))
    answer = mels.run("--executor", "serial")
    assert (answer["utterances"], answer["quarantined"]) == (11, 3)
    store = melmill.open(str(mels.store))
    reasons = store.quarantine().set_index("utterance_id")["reason"].to_dict()
    assert set(reasons) == {"s--empty", "s--object", "s--nan"}
    assert reasons["s--object"].startswith("holds pickled objects")
    assert len(store["gla"]) == 8


SCORES = "  scores: {{uses: score, from: gla, metrics: [sc]{against}}}\ncluster"


@pytest.mark.parametrize(
    ("against", "message"),
    [
        (
            "",
            "metrics sc compare with recordings, and no input 'against' names them: add the node of the recordings",
        ),
        (
            ", against: mel",
            "against of 'scores' takes waveform, but 'mel' makes mel; 'mel' holds mels without recordings",
        ),
    ],
)
def test_there_is_nothing_to_score_against(mels: Project, against: str, message: str) -> None:
    mels.write(PIPELINE.replace("cluster", SCORES.replace("{against}", against), 1))
    with pytest.raises(PipelineError, match=re.escape(message)):
        make_plan(load(mels.pipeline))
