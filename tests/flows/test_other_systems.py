"""Files that another system made, scored against the recordings of a corpus."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import soundfile

import melmill
from melmill.flows.execution.window import ShardWindow
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.estimate import sample
from melmill.flows.planning.pairing import Paired
from melmill.flows.planning.phases import phases
from melmill.flows.planning.plan import make_plan
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.partners import Partner
from tests.flows.conftest import ROOT, SR, Project, voice
from tests.flows.planning.test_phases import all_of, drained, short

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 2
max_quarantined: 100 %
stages:
  speech: {{uses: audio_folder, root: {root}, sr: 16000}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
  gen:    {{uses: audio_folder, root: gen, sr: 16000}}
  scores: {{uses: score, from: [gla, gen], against: speech, metrics: [sc, si_sdr]}}
  report: {{uses: aggregate, from: scores, baseline: gla, by: [], examples: 1}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
LENGTHS_S = (0.5, 0.9, 0.6, 1.1, 0.7, 0.55, 0.8, 0.95)
NAMES = [f"u{i}" for i in range(len(LENGTHS_S))]
Samples = np.ndarray[Any, np.dtype[np.int16]]


def recording(i: int) -> Samples:
    return voice(LENGTHS_S[i], 110 + 10 * i, seed=i)


def generated(i: int) -> Samples:
    """Return what another system made of a recording: quieter, and a few samples shorter or longer."""
    y = np.asarray(recording(i) * 0.9, dtype=np.int16)
    return y[:-40] if i % 2 else np.concatenate([y, y[:40]])


def write(path: Path, y: Samples, sr: int = SR) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, y, sr, subtype="PCM_16")
    os.utime(path, (1_700_000_000, 1_700_000_000))


@pytest.fixture
def other(tmp_path: Path) -> Project:
    """Return a project of recordings, and of files with the same names in other folders."""
    made = Project(tmp_path)
    for i, name in enumerate(NAMES):
        write(made.root / "clean" / f"{name}.wav", recording(i))
        write(made.folder / "gen" / "out" / "wavs" / f"{name}.wav", generated(i))
    made.write(PIPELINE)
    return made


def gen_file(project: Project, name: str) -> Path:
    return project.folder / "gen" / "out" / "wavs" / f"{name}.wav"


def scored(project: Project, node: str = "gen") -> pd.DataFrame:
    table = melmill.open(str(project.store)).scores()
    return table[table["node"] == node].set_index("utterance_id").sort_index()


def planned(project: Project, *overrides: str) -> dict[str, Any]:
    done = project.called("plan", str(project.pipeline), "--json", *(f"--set={one}" for one in overrides))
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refusal(project: Project, *arguments: str) -> str:
    done = project.called("plan", str(project.pipeline), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_they_are_scored_beside_our_own(other: Project) -> None:
    summary = other.run("--executor", "serial")
    assert (summary["tasks"]["failed"], summary["quarantined"]) == (0, 0)
    assert summary["notes"] == [
        "scores[gen]: 8 utterances of 'gen' and 'speech' are paired by file name, "
        "e.g. 'out--wavs--u0' with 'clean--u0'",
        "scores[gen]: 8 of 8 pairs differ in length by a hop at most, and are cut to the shorter",
    ]
    table = scored(other)
    assert list(table.index) == [f"clean--{name}" for name in NAMES]
    assert list(table.index) == list(scored(other, "gla").index)
    for i, name in enumerate(table.index):
        expected = melmill.score(recording(i), generated(i), SR, metrics=["sc", "si_sdr"])
        assert table.loc[name, "sc_db"] == pytest.approx(expected["sc"].value)
        assert table.loc[name, "si_sdr_db"] == pytest.approx(expected["si_sdr"].value)
    assert other.run("--executor", "serial")["tasks"]["run"] == 0
    nodes = json.loads(other.called("status", str(other.store), "--json").stdout)["nodes"]
    # The shards of the recordings count, not those of the other corpus.
    assert {(node["shards"], node["done"]) for node in nodes if node["node"].startswith("scores")} == {(4, 4)}
    assert other.called("verify", str(other.store)).returncode == 0


def test_the_report_compares_plays_and_lists_them(other: Project) -> None:
    gen_file(other, "u3").unlink()
    write(gen_file(other, "extra"), generated(0))
    summary = other.run("--executor", "serial")
    folder = Path(summary["report"]).parent
    (paired,) = [row for row in csv.DictReader((folder / "paired.csv").open()) if row["metric"] == "si_sdr_db"]
    assert (paired["node"], paired["n"]) == ("gen", "7")
    page = (folder / "index.html").read_text()
    assert page.count("<audio") == 3  # the recording, gla and gen
    assert (
        "1 of 8 utterances of &#39;speech&#39; have no file in &#39;gen&#39;, and get the status missing_estimate: "
        "clean--u3" in page
    )
    assert "1 of 8 utterances of &#39;gen&#39; have no recording in &#39;speech&#39;, and are not scored" in page
    pairs = pd.read_csv(folder / "pairs.csv")
    assert len(pairs) == 9
    assert dict(pairs.dropna().groupby("node").size()) == {"gen": 7}
    (lost,) = pairs[pairs["estimate_id"].isna()].to_dict("records")
    assert (lost["utterance_id"], lost["duration_s"]) == ("clean--u3", 1.1)
    (extra,) = pairs[pairs["utterance_id"].isna()].to_dict("records")
    assert extra["estimate_id"] == "out--wavs--extra"
    assert scored(other).loc["clean--u3", "status_sc_db"] == "missing_estimate"


def test_executors_make_the_same_bytes(other: Project) -> None:
    gen_file(other, "u5").unlink()
    other.run("--executor", "serial")
    elsewhere = other.folder / "dask"
    other.run("--store", str(elsewhere))
    assert other.bytes(elsewhere) == other.bytes()


def test_files_that_come_later_redo_their_shards_alone(other: Project) -> None:
    late = gen_file(other, "u6")
    data = late.read_bytes()
    late.unlink()
    other.run("--executor", "serial")
    before = other.bytes()
    assert scored(other).loc["clean--u6", "status_sc_db"] == "missing_estimate"
    late.write_bytes(data)
    plan = {node["node"]: node for node in planned(other)["nodes"]}
    assert plan["scores[gen]"]["shards"] > 2
    assert plan["scores[gen]"]["reasons"] == {"its pairs changed": 1}
    assert {name: node["run"] for name, node in plan.items() if node["run"]} == {
        "gen": 1,
        "scores[gen]": 1,
        "report": 1,
    }
    assert other.run("--executor", "serial")["tasks"]["run"] == 3
    assert set(scored(other)["status_sc_db"]) == {"ok"}
    changed = {name for name, digest in other.bytes().items() if before.get(name, digest) != digest}
    assert {name.partition("/")[0] for name in changed} <= {"scores", "gen", "runs"}
    assert other.run("--executor", "serial")["tasks"]["run"] == 0


def test_recordings_that_come_later_are_scored_too(other: Project) -> None:
    write(gen_file(other, "u8"), generated(0))
    assert any("1 of 9 utterances of 'gen' have no recording" in note for note in planned(other)["notes"])
    other.run("--executor", "serial")
    write(other.root / "clean" / "u8.wav", recording(0))
    plan = {node["node"]: node["run"] for node in planned(other)["nodes"] if node["run"]}
    assert plan == {"speech": 1, "mel": 1, "gla": 1, "scores[gla]": 1, "scores[gen]": 1, "report": 1}
    other.run("--executor", "serial")
    assert len(scored(other)) == 9


def test_a_file_in_quarantine_is_missing_until_it_is_mended(other: Project) -> None:
    bad = gen_file(other, "u2")
    whole = bad.read_bytes()
    bad.write_bytes(whole[:44] + b"\xff" * 10)
    other.run("--executor", "serial")
    assert scored(other)["status_sc_db"].value_counts().to_dict() == {"ok": 7, "missing_estimate": 1}
    n_records = len(list(other.store.glob("scores/*/records/*.json")))
    retried = other.called("quarantine", str(other.store), "--retry")
    assert retried.returncode == 0, retried.stderr
    # The shard of the file, the two shards of scores that read files of it, and the report.
    assert "dropped 4 records" in retried.stdout
    assert n_records - len(list(other.store.glob("scores/*/records/*.json"))) == 2
    assert other.run("--executor", "serial")["tasks"]["run"] == 4
    assert scored(other).loc["clean--u2", "status_sc_db"] == "missing_estimate"


def test_lengths_that_differ_by_more_are_an_error_or_cut(other: Project) -> None:
    write(gen_file(other, "u1"), generated(1)[:8000])
    (note,) = [note for note in other.run("--executor", "serial")["notes"] if "more than a hop" in note]
    assert note == (
        "scores[gen]: 1 of 8 pairs differ in length by more than a hop, and get the status error: "
        "clean--u1 (0.500 s for 0.900 s); lengths: cut compares what both have"
    )
    assert scored(other)["status_sc_db"].value_counts().to_dict() == {"ok": 7, "error": 1}
    assert scored(other)["sc_db"].isna()["clean--u1"]
    other.run("--executor", "serial", "--set", "scores.lengths=cut")
    assert scored(other).loc["clean--u1", "status_sc_db"] == "ok"
    cut = melmill.score(recording(1)[:8000], generated(1)[:8000], SR, metrics=["sc"])
    assert scored(other).loc["clean--u1", "sc_db"] == cut["sc"].value


def test_another_rate_is_resampled_and_said(other: Project) -> None:
    n = int(22050 * LENGTHS_S[0])
    t = np.arange(n) / 22050
    # What the recordings' rate can't hold must not count.
    y = np.interp(t, np.arange(len(recording(0))) / SR, recording(0).astype(float))
    write(gen_file(other, "u0"), np.asarray(np.rint(y), dtype=np.int16), 22050)
    text = PIPELINE.replace("root: gen, sr: 16000", "root: gen, sr: 22050")
    other.write(text)
    notes = other.run("--executor", "serial")["notes"]
    assert any(
        "'gen' has 22050 Hz and 'speech' 16000 Hz: spectral metrics resample to 16000 Hz" in one for one in notes
    )
    assert set(scored(other)["status_sc_db"]) == {"ok"}


def test_a_table_says_what_belongs_together(other: Project) -> None:
    for name in NAMES:
        gen_file(other, name).rename(gen_file(other, f"{name}_generated"))
    message = refusal(other)
    assert "pipeline.yaml:10: node 'scores[gen]': no file of 'gen' has the id or the name of an utterance" in message
    assert "they read like 'out--wavs--u0_generated' (out/wavs/u0_generated.wav) and 'clean--" in message
    table = other.folder / "map.csv"
    table.write_text("estimate,reference\n" + "".join(f"{name}_generated.wav,{name}\n" for name in NAMES))
    other.write(PIPELINE.replace("metrics:", "pairs: map.csv, metrics:"))
    other.run("--executor", "serial")
    first = scored(other)
    assert set(first["status_sc_db"]) == {"ok"}
    keys = {node["node"]: node["key"] for node in planned(other)["nodes"]}
    # Another way to write the table is the same. Other pairs are other scores, of these files alone.
    table.write_text("".join(f"{name}_generated.wav\t{name}\n" for name in reversed(NAMES)))
    assert planned(other)["tasks"]["run"] == 0
    table.write_text("estimate,reference\n" + "".join(f"{name}_generated.wav,{name}\n" for name in NAMES[:-1]))
    again = {node["node"]: node["key"] for node in planned(other)["nodes"]}
    assert {name for name in keys if keys[name] != again[name]} == {"scores[gen]", "report"}
    table.unlink()
    assert "pairs must be a file that can be read, got 'map.csv': it does not exist" in refusal(other)


def test_a_table_without_another_corpus_is_refused(other: Project) -> None:
    (other.folder / "map.csv").write_text("a,b\n")
    other.write(PIPELINE.replace("from: [gla, gen]", "from: gla, pairs: map.csv"))
    assert "pairs of 'scores' has no use: its inputs are of the corpus 'speech' alone" in refusal(other)


def test_mels_of_another_system_are_scored_as_waveforms(other: Project) -> None:
    other.run("--executor", "serial", "--until", "mel")
    for name, M in melmill.open(str(other.store))["mel"].items():
        (other.folder / "mels").mkdir(exist_ok=True)
        np.save(other.folder / "mels" / f"{name.removeprefix('clean--')}.npy", M)
    other.write(
        PIPELINE.replace(
            "{{uses: audio_folder, root: gen, sr: 16000}}", "{{uses: mel_folder, root: mels, preset: paper}}"
        )
        .replace("  scores:", "  wav:    {{uses: griffin_lim, from: gen, n_iter: 2}}\n  scores:")
        .replace("from: [gla, gen]", "from: [gla, wav]")
    )
    other.run("--executor", "serial")
    assert set(scored(other, "wav")["status_sc_db"]) == {"ok"}
    assert len(scored(other, "wav")) == 8


def test_the_example_of_the_documents_runs(other: Project) -> None:
    other.pipeline = ROOT / "flows" / "score_files.yaml"
    overrides = [f"speech.root={other.root}", "generated.root=gen", "scores.metrics=[sc]", "resynthesis.quality=draft"]
    other.run("--executor", "serial", "--store", str(other.store), *(f"--set={one}" for one in overrides))
    assert set(scored(other, "generated")["status_sc_db"]) == {"ok"}
    assert set(scored(other, "resynthesis").index) == set(scored(other, "generated").index)


def test_a_run_waits_for_the_shards_that_the_pairs_name(other: Project) -> None:
    nodes = build_graph(load(other.pipeline))
    assert [(sorted(n.name for n in phase.nodes), set(phase.waits_for)) for phase in phases(nodes, set(nodes))] == [
        (["gen", "gla", "mel", "scores[gla]", "speech"], set()),
        (["scores[gen]"], {"gen"}),
    ]
    partners: tuple[dict[str, Partner], ...] = (
        {"a": Partner("x", 1)},
        {"b": Partner("y", 0), "c": Partner("z", 1)},
        {"d": Partner("w", 2)},
        {},
    )
    paired = {"scores[gen]": Paired(source="gen", corpus="gen", partners=partners, notes=())}
    order = short(drained(ShardWindow(nodes, all_of(nodes, 4), max_open=2, paired=paired)))
    first = next(i for i, (name, _) in enumerate(order) if name == "scores[gen]")
    assert {("gen", shard) for shard in range(4)} <= set(order[:first])
    lost = ShardWindow(nodes, all_of(nodes, 4), max_open=2, paired=paired)
    assert [shard for name, shard in short(drained(lost, fails=("gen", 1))) if name == "scores[gen]"] == [2, 3]
    assert Counter(task.node for task in lost.blocked) == {"scores[gen]": 2, "report": 1}


def test_an_estimate_leaves_the_shards_out_that_read_another_corpus(
    other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(other.folder)
    part = sample(make_plan(load(other.pipeline)), per_slot=1)
    assert {name for name, node in part.nodes.items() if node.pending} == {"speech", "mel", "gla", "gen", "scores[gla]"}


def test_pairs_of_utterances_that_the_corpus_lost_redo_nothing(other: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    other.run("--executor", "serial")
    monkeypatch.chdir(other.folder)
    made = make_plan(load(other.pipeline))
    paired, node, own = made.paired["scores[gen]"], made.nodes["scores[gen]"].node, made.catalogues["speech"]
    folder = melmill.open(str(other.store)).product(node.folder, node.key)
    assert list(paired.outdated(folder, folder.records(), own)) == []
    lost = "clean--u4"
    without = replace(paired, partners=tuple({k: v for k, v in one.items() if k != lost} for one in paired.partners))
    # An utterance that is there and has no partner any more does.
    assert len(list(without.outdated(folder, folder.records(), own))) == 1
    rows = [utterance for utterance in own.utterances() if utterance.utterance_id != lost]
    shards = {utterance.utterance_id: own.shard_of(utterance.utterance_id) for utterance in rows}
    smaller = cast("Catalogue", Rows(shards))
    assert list(without.outdated(folder, folder.records(), smaller)) == []


class Rows(dict[str, int]):
    """The shards of some utterances by id, as a catalogue knows them."""

    shard_of = dict.__getitem__
