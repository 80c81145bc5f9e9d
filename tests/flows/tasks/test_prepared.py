"""Prepared corpora in a run: accounts, what follows, resume, and bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import melmill
from melmill.storage.corpus.items import Span, check_spans
from melmill.storage.errors import StoreError
from melmill.storage.store import Store
from tests.flows.conftest import Project
from tests.stages.prepare.test_activity import SR, pcm, planted

PIPELINE = """\
name: prepare
store: {store}
shard_duration_s: 6
max_quarantined: 0.2
stages:
  speech: {{uses: librispeech, root: {root}}}
  trim:   {{uses: trim, from: speech, margin_s: 0.02}}
  loud:   {{uses: loudness, from: trim, lufs: -23}}
  low:    {{uses: resample, from: loud, sr: 8000}}
  long:
    uses: filter
    from: low
    rules: [{{measure: duration_s, at_least: 0.75}}, {{measure: text, not_matches: BAD}}]
  unique: {{uses: dedupe, from: long}}
  mel:    {{uses: extract, from: unique, sr: 8000}}
  parts:  {{uses: segment, from: speech, min_s: 0.3, max_s: 4, min_silence_s: 0.25}}
  mels:   {{uses: extract, from: parts}}
  softer: {{uses: loudness, from: parts, lufs: -30}}
  scores: {{uses: score, from: softer, against: parts, metrics: [snr_seg]}}
  stats:  {{uses: aggregate, from: scores, examples: 0}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""

# Seconds of silence and of sound in turn, at the beginning of each recording.
PLANTED: dict[str, list[tuple[float, float]]] = {
    "7-1-0000": [(0.4, 0.9), (0.5, 0.8), (0.6, 0.0)],
    "7-1-0001": [(0.1, 1.1), (0.3, 0.0)],
    "7-1-0002": [(0.1, 1.1), (0.3, 0.0)],  # the same samples
    "7-1-0003": [(0.5, 0.5), (0.2, 0.0)],  # too short
    "7-1-0004": [(1.5, 0.0)],  # silence: ingest does not take it
    "7-1-0005": [(0.2, 0.9), (0.7, 0.0)],
    "7-1-0006": [(0.3, 0.8), (0.1, 0.0)],  # its text is bad
}


def write_corpus(root: Path) -> None:
    folder = root / "dev-clean" / "7" / "1"
    folder.mkdir(parents=True)
    texts = []
    for i, (name, parts) in enumerate(PLANTED.items()):
        y = planted(parts, 0.0 if name.endswith("4") else 2e-4)
        y *= 0.3 + 0.1 * (0 if name.endswith("2") else i)
        if name.endswith("2"):
            y = planted(parts, 2e-4) * 0.4
        file = io.BytesIO()
        soundfile.write(file, pcm(y), SR, format="FLAC", subtype="PCM_16")
        (folder / f"{name}.flac").write_bytes(file.getvalue())
        texts.append(f"{name} {'BAD' if name.endswith('6') else 'GOOD'} WORDS\n")
    (folder / "7-1.trans.txt").write_text("".join(texts))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project after a serial run, to be read only."""
    made = Project(tmp_path_factory.mktemp("prepared"))
    write_corpus(made.root)
    made.write(PIPELINE)
    answer = made.run("--executor", "serial")
    assert answer["tasks"]["failed"] == 0
    assert answer["quarantined"] == 1
    assert any(note.startswith("trim: kept ") and "(silence before)" in note for note in answer["notes"])
    return made


def lengths() -> dict[str, int]:
    return {name: sum(round(a * SR) + round(b * SR) for a, b in parts) for name, parts in PLANTED.items()}


@pytest.mark.parametrize("node", ["speech", "trim", "loud", "low", "long", "unique", "mel", "parts", "mels", "softer"])
def test_kept_and_dropped_are_the_corpus_sample_for_sample(prepared: Project, node: str) -> None:
    account = melmill.open(prepared.store).account(node)
    pieces = account.table()
    for name, n_samples in lengths().items():
        own = pieces[pieces["utterance_id"] == name]
        assert list(own["start"]) == [0, *own["stop"][:-1]]
        assert own["stop"].iloc[-1] == n_samples
    rows = account.by_reason()
    assert rows["n_samples"].sum() == sum(lengths().values())
    assert rows["share"].sum() == pytest.approx(1.0)
    kept = pieces[pieces["reason"] == "kept"]
    assert set(kept["item_id"]) == set(melmill.open(prepared.store)[node])


def test_each_drop_has_its_reason(prepared: Project) -> None:
    rows = melmill.open(prepared.store).account("mel").by_reason()
    assert list(rows[["node", "reason", "n_pieces"]].itertuples(index=False, name=None)) == [
        ("mel", "kept", 3),
        ("speech", "quarantined", 1),
        *rows[rows["node"] == "trim"][["node", "reason", "n_pieces"]].itertuples(index=False, name=None),
        ("long", "text does not match 'BAD'", 1),
        ("long", "duration_s at least 0.75", 1),
        ("unique", "same samples", 1),
    ]
    trimmed = rows[rows["node"] == "trim"].set_index("reason")
    assert set(trimmed.index) == {"silence before", "silence after"}
    sounding = [parts for name, parts in PLANTED.items() if not name.endswith("4")]
    wanted = sum(parts[0][0] - 0.02 for parts in sounding)
    assert trimmed.loc["silence before", "duration_s"] == pytest.approx(wanted, abs=0.06)


def kept(store: Store, node: str) -> list[dict[str, Any]]:
    """Return rows of what a node kept."""
    rows = store.account(node).table().to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows if row["reason"] == "kept"]


def test_the_map_leads_back_to_the_samples(prepared: Project) -> None:
    store = melmill.open(prepared.store)
    for node in ("trim", "parts"):
        for one in kept(store, node):
            np.testing.assert_array_equal(
                store[node][one["item_id"]], store["speech"][one["utterance_id"]][one["start"] : one["stop"]]
            )
    # At half the rate, through a change of level.
    low = kept(store, "low")
    assert low
    assert all(len(store["low"][one["item_id"]]) == -(-(one["stop"] - one["start"]) // 2) for one in low)


def test_parts_have_ids_of_their_own_and_texts_only_where_whole(prepared: Project) -> None:
    view = melmill.open(prepared.store)["parts"]
    names = set(view)
    assert {"7-1-0000~001", "7-1-0000~002", "7-1-0001"} <= names
    texts = dict(zip(*(view.catalogue.table[c].to_pylist() for c in ("utterance_id", "text")), strict=True))
    assert (texts["7-1-0000~001"], texts["7-1-0001"]) == ("", "GOOD WORDS")
    assert view.catalogue.shard(view.catalogue.shard_of("7-1-0000~002")).current


def test_what_follows_reads_items(prepared: Project) -> None:
    store = melmill.open(prepared.store)
    scores = store.scores()
    assert set(scores["utterance_id"]) == set(store["mels"])
    statuses = [name for name in map(str, scores) if name.startswith("status_")]
    assert (scores[statuses] == "ok").to_numpy().all()
    assert scores["duration_s"].sum() == pytest.approx(sum(len(y) for y in store["parts"].values()) / SR)
    dataset = melmill.torch_dataset(store, mel="mels", audio="parts", segment_frames=8)
    assert len(dataset) == len(store["mels"])
    assert dataset[0][0].shape == (80, 8)
    with pytest.raises(StoreError, match="is not the audio of 'mels'"):
        melmill.torch_dataset(store, mel="mels", audio="speech")


def test_absent_utterances_say_why(prepared: Project) -> None:
    store = melmill.open(prepared.store)
    with pytest.raises(KeyError, match=r"was dropped by 'long': duration_s at least 0\.75"):
        store["mel"]["7-1-0003"]
    with pytest.raises(KeyError, match="was quarantined at 'speech'"):
        store["mel"]["7-1-0004"]


def test_a_rule_that_changed_makes_only_what_follows_anew(prepared: Project, tmp_path: Path) -> None:
    plan = prepared.called(
        "plan", str(prepared.pipeline), "--set", "long.rules=[{measure: duration_s, at_least: 0.7}]", "--json"
    )
    assert plan.returncode == 0, plan.stderr
    pending = {node["node"]: node["run"] for node in json.loads(plan.stdout)["nodes"]}
    assert {name for name, n in pending.items() if n} == {"long", "unique-prints", "unique", "mel"}


def test_a_second_run_has_nothing_to_do_and_damage_is_mended(prepared: Project, tmp_path: Path) -> None:
    before = prepared.bytes()
    assert prepared.run("--executor", "serial")["tasks"]["run"] == 0
    store = melmill.open(prepared.store)
    folder = store.product(store.nodes["trim"].folder, store.nodes["trim"].key)
    file = next(Path(folder.location.url).glob("spans/*.parquet"))
    good = file.read_bytes()
    file.write_bytes(good[:-9] + b"x" + good[-8:])
    assert prepared.called("verify", str(prepared.store)).returncode == 1
    assert prepared.called("repair", str(prepared.store)).returncode == 0
    assert prepared.run("--executor", "serial")["tasks"]["run"] == 1
    assert file.read_bytes() == good
    assert {
        name: one for name, one in prepared.bytes().items() if "/records/" not in name and not name.startswith("runs/")
    } == {name: one for name, one in before.items() if "/records/" not in name and not name.startswith("runs/")}


def test_the_account_is_printed_and_drawn(prepared: Project, tmp_path: Path) -> None:
    page, table = tmp_path / "page.html", tmp_path / "pieces.csv"
    done = prepared.called("account", f"{prepared.store}:mel", "--page", str(page), "--output", str(table))
    assert done.returncode == 0, done.stderr
    assert "duration_s at least 0.75" in done.stdout
    assert "silence before" in page.read_text()
    assert "<svg" in page.read_text()
    assert table.read_text().startswith("utterance_id,start,stop,node,reason,detail,item_id\n")
    answer = json.loads(prepared.called("account", str(prepared.store), "--json").stdout)
    assert answer["n_samples"] == sum(lengths().values())
    assert sum(row["n_samples"] for row in answer["rows"]) == answer["n_samples"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["account", "{store}:mels", "--output", "x.txt"], "--output must end in .csv, .jsonl or .parquet, got"),
        (["account", "{store}:mel5"], "has no node 'mel5'; did you mean 'mel'"),
        (["account", "{store}:stats"], "node 'stats' makes report of whole corpora: name a node before it"),
    ],
)
def test_a_wrong_account_ends_in_one_line(prepared: Project, arguments: list[str], words: str) -> None:
    done = prepared.called(*(one.format(store=prepared.store) for one in arguments))
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("mel.from=speech", None),
        (
            "scores.against=speech",
            "node 'scores' reads 'softer' (cut by 'parts') and 'speech' (whole recordings), whose",
        ),
        ("trim.threshold_db=5", "threshold_db must be in [-90, 0), got 5.0"),
        ("trim.treshold_db=-5", "trim has no field 'treshold_db'; did you mean 'threshold_db'"),
        ("long.rules=[{measure: duration}]", "nobody measures that; did you mean 'duration_s'"),
        ("long.rules=[]", "rules must have at least one rule"),
        ("loud.from=mels", "from of 'loud' takes waveform, but 'mels' makes mel"),
    ],
)
def test_bad_pipelines_are_refused_before_anything_runs(prepared: Project, field: str, words: str | None) -> None:
    done = prepared.called("plan", str(prepared.pipeline), "--set", field)
    if words is None:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_spans_must_be_all_there_is() -> None:
    spans = [Span("a", "a", 0, 5), Span("a", "", 5, 8, "silence after")]
    check_spans(spans, {"a": 8}, "here")
    with pytest.raises(StoreError, match="spans of 'a' end at sample 8 of 9"):
        check_spans(spans, {"a": 9}, "here")
    with pytest.raises(StoreError, match="goes from sample 6 to 8, and the one before it ends at 5"):
        check_spans([spans[0], spans[1]._replace(start=6)], {"a": 8}, "here")


@pytest.mark.slow
def test_dask_makes_the_bytes_of_a_serial_run(prepared: Project, tmp_path: Path) -> None:
    store = tmp_path / "store"
    answer = prepared.run("--store", str(store), "--executor", "dask")
    assert answer["tasks"]["failed"] == 0
    assert prepared.bytes(store) == prepared.bytes()
