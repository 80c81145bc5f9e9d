"""Trust from end to end: in a pipeline, by the command, and from Python, on folders and on stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import melmill
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.keys import is_drawn
from melmill.stages.numeric.errors import ParameterError

PIPELINE = """\
name: trust
store: {store}
shard_duration_s: 4
stages:
  speech: {{uses: audio_folder, root: {root}, sr: 16000}}
  mel: {{uses: extract, from: speech}}
  pghi: {{uses: pghi, from: mel}}
  scores: {{uses: score, from: pghi, against: speech, metrics: [sc, si_sdr], trust: true}}
  report: {{uses: aggregate, from: scores}}
"""
N, SHORT = 9, "short"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine recordings of 0.7 s, and one that is too short to damage."""
    folder = tmp_path_factory.mktemp("trust") / "recordings"
    folder.mkdir()
    for i in range(N):
        t = np.arange(11200) / 16000
        tones = sum(np.sin(2 * np.pi * (120 + 10 * i) * k * t) / k for k in range(1, 20))
        soundfile.write(folder / f"u{i}.wav", 0.05 * tones * np.sin(np.pi * t / t[-1]), 16000)
    soundfile.write(folder / f"{SHORT}.wav", 0.1 * np.sin(np.arange(4000) / 5), 16000)
    return folder


@pytest.fixture(scope="module")
def store(recordings: Path) -> Path:
    """A store whose last run measured damaged recordings."""
    path = recordings.parent / "store"
    file = recordings.parent / "p.yaml"
    file.write_text(PIPELINE.format(store=path, root=recordings))
    summary = melmill.run(file, executor="serial", set={"scores.metrics": ["sc", "si_sdr"]})
    assert summary.tasks.failed == 0
    return path


def test_the_report_shows_it_beside_the_scores(store: Path) -> None:
    (page,) = store.glob("report/*/report/*/index.html")
    text = page.read_text()
    assert "Which metric to trust here" in text
    assert "Damaged recordings of speech, 9 of them" in text
    assert (page.parent / "trust.csv").read_text().startswith("node,metric,damage,expected,n,verdict")


def test_the_store_has_the_rows_and_no_trace_of_a_solver(store: Path) -> None:
    opened = melmill.open(store)
    rows = opened.trust()
    assert rows.columns[:4].tolist() == ["utterance_id", "node", "damage", "step"]
    assert set(rows["node"]) == {"speech"}
    assert len(set(rows["utterance_id"])) == N
    assert SHORT not in set(rows["utterance_id"])
    assert opened.traces().empty
    assert set(opened.scores()["node"]) == {"pghi"}
    with pytest.raises(melmill.StoreError, match="makes trust: it has no arrays"):
        opened["scores-trust"]


def test_a_folder_and_a_store_give_the_same(recordings: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from melmill.flows.cli.group import cli

    def printed(*arguments: str) -> dict[str, Any]:
        cli.main(["trust", *arguments, "--json"], standalone_mode=False)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    options = ("-m", "sc,si_sdr", "-d", "noise", "-d", "gain", "-j", "1")
    of_folder, of_store, stored = printed(str(recordings), *options), printed(str(store), *options), printed(str(store))
    assert of_folder["damages"] == of_store["damages"]
    by_name = {(row["metric"], row["damage"]): row for row in stored["damages"]}
    for row in of_store["damages"]:
        assert by_name[row["metric"], row["damage"]] == row
    noise = by_name["si_sdr_db", "noise"]
    assert (noise["verdict"], noise["n"]) == ("right", N)
    # SI-SDR takes no notice of the level, up to the rounding of samples.
    gain = by_name["si_sdr_db", "gain"]
    assert gain["verdict"] == "same"
    assert by_name["sc_db", "gain"]["verdict"] == "moves"


def test_from_python(recordings: Path) -> None:
    table = melmill.trust(recordings, ["sc"], damages=["polarity", "noise"], utterances=8)
    assert table["damage"].tolist() == ["noise", "polarity"]
    assert table.attrs["metrics"][0]["metric"] == "sc_db"
    # About so many, by a hash of the ids.
    drawn = [f"u{i}" for i in range(N) if is_drawn(f"u{i}", 8 / (N + 1))]
    assert table["n"].tolist() == [len(drawn)] * 2


def test_what_is_wrong_is_one_line(recordings: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="did you mean 'sc'"):
        melmill.trust(recordings, ["scc"])
    with pytest.raises(ParameterError, match="damages must be one of 'phase'"):
        melmill.trust(recordings, damages=["nois"])
    with pytest.raises(ParameterError, match="utterances must be at least 6, got 3"):
        melmill.trust(recordings, utterances=3)
    few = tmp_path / "few"
    few.mkdir()
    for name in ("u0", "u1"):
        (few / f"{name}.wav").write_bytes((recordings / f"{name}.wav").read_bytes())
    with pytest.raises(PipelineError, match=r"has 2 recordings of at least 0\.5 s to damage, and paired tests need 6"):
        melmill.trust(few, ["sc"], damages=["gain"])
