"""Training sets: what is in them, splits, resuming, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import melmill
from melmill.errors import Error
from melmill.flows.exchange.sets import export as sets
from melmill.flows.exchange.sets.export import SetRequest, export_set
from melmill.flows.exchange.sets.layout import LAYOUTS, Item, SetInfo
from melmill.flows.exchange.sets.splits import by_list, by_shares, check_apart, shares_of
from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.ingest.reader import READERS
from melmill.storage.errors import StoreError
from melmill.storage.files.ledger import LEDGER, ExportFolder
from melmill.storage.files.sources import SourceTree
from melmill.storage.store import Store
from tests.flows.conftest import add_chapter, flac, voice

# The reader of ours that reads each layout back.
READ_BY = {
    "ljspeech": "audio_folder",
    "kaldi": "kaldi",
    "espnet": "kaldi",
    "nemo": "nemo",
    "parquet": "parquet",
    "webdataset": "webdataset",
    "shar": "shar",
}


def request(to: str, nodes: str = "speech", **more: Any) -> SetRequest:
    return SetRequest(nodes=tuple(nodes.split(",")), to=to, **more)


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file of a set, without its ledger."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and LEDGER not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.parametrize("to", [*LAYOUTS, "hf"])
def test_a_set_is_counted_and_checksummed(store: Store, tmp_path: Path, to: str) -> None:
    summary = export_set(store, request(to, split="dev=0.2"), str(tmp_path))
    assert (summary.utterances, summary.with_text, summary.speakers, summary.missing) == (16, 12, 4, 0)
    assert sum(summary.splits.values()) == 16
    assert summary.splits.keys() == {"train", "dev"}
    sums = [line.split("  ", 1) for line in (tmp_path / "SHA256SUMS").read_text().splitlines()]
    said = {name: sha256 for sha256, name in sums}
    there = contents(tmp_path)
    assert said == {name: sha256 for name, sha256 in there.items() if name != "SHA256SUMS"}
    assert summary.written == len(there)
    again = export_set(store, request(to, split="dev=0.2"), str(tmp_path))
    assert (again.written, again.kept, contents(tmp_path)) == (0, len(there), there)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\npretty_name: store\nlicense: cc-by-4.0\n")
    assert "- Texts: 12 of 16 utterances have one." in card


@pytest.mark.parametrize("to", READ_BY)
def test_our_reader_reads_the_samples_and_texts_back(store: Store, tmp_path: Path, to: str) -> None:
    export_set(store, request(to, split="dev=0.2"), str(tmp_path))
    reader: Any = READERS[READ_BY[to]]
    stage = reader(root=str(tmp_path), **({"folders": ()} if to == "ljspeech" else {}))
    tree = SourceTree(str(tmp_path))
    found = stage.discover(tree, {}).utterances
    assert len(found) == 16
    texts = dict(zip(store.utterances()["utterance_id"], store.utterances()["text"], strict=True))
    for one in found:
        name = one.utterance_id.removeprefix("wavs--")
        outcome = stage.ingest(one, tree.read(one.path))
        np.testing.assert_array_equal(outcome.array, np.asarray(store["speech"][name]))
        assert one.text == texts[name]


def test_lists_of_hifigan_name_its_files_and_mels(store: Store, tmp_path: Path) -> None:
    export_set(store, request("hifigan", "speech,mel", split="dev=0.2"), str(tmp_path))
    rows = [line.split("|") for name in ("training", "validation") for line in (tmp_path / f"{name}.txt").open()]
    assert len(rows) == 16
    for name, _ in rows:
        y, sr = soundfile.read(tmp_path / "wavs" / f"{name}.wav", dtype="int16")
        M = np.load(tmp_path / "ft_dataset" / f"{name}.npy")
        np.testing.assert_array_equal(y, np.asarray(store["speech"][name]))
        np.testing.assert_array_equal(M, np.asarray(store["mel"][name]))
        assert (sr, M.shape, M.dtype) == (16000, (80, len(y) // 256), np.float32)


def test_lists_of_vits_and_styletts_number_speakers(store: Store, tmp_path: Path) -> None:
    export_set(store, request("vits"), str(tmp_path / "vits"))
    export_set(store, request("styletts"), str(tmp_path / "styletts"))
    numbers = json.loads((tmp_path / "vits/filelists/speakers.json").read_text())
    assert sorted(numbers.values()) == [0, 1, 2, 3]
    vits = [line.rstrip("\n").split("|") for line in (tmp_path / "vits/filelists/train.txt").open()]
    style = [line.rstrip("\n").split("|") for line in (tmp_path / "styletts/Data/train_list.txt").open()]
    for path, number, text in vits:
        assert (tmp_path / "vits" / path).is_file()
        speaker = Path(path).name.partition("-")[0]
        assert int(number) == numbers[speaker]
        assert [Path(path).name, text, number] in style


def test_kaldis_tables_are_sorted_and_consistent(store: Store, tmp_path: Path) -> None:
    export_set(store, request("kaldi"), str(tmp_path))
    data = tmp_path / "data/train"
    for name in ("wav.scp", "text", "utt2spk", "spk2utt", "utt2dur"):
        keys = [line.split()[0].encode() for line in (data / name).open()]
        assert keys == sorted(keys)
    speakers = dict(line.split() for line in (data / "utt2spk").open())
    assert [speakers[name] for name in sorted(speakers)] == sorted(speakers.values(), key=str.encode)
    assert len((data / "text").read_text().splitlines()) == 12


def test_ids_of_kaldi_sort_as_their_speakers_do() -> None:
    """As `validate_data_dir.sh` wants it: ``84_1`` and ``841_1`` alone would sort the other way round."""
    some = tuple(Item(f"{speaker}_1", "train", 100, speaker=speaker) for speaker in ("84", "841", "a", "a_b"))
    tables = LAYOUTS["kaldi"].lists(SetInfo(name="x", url="/x", sr=16000, bits=16, items=some))
    rows = [line.split() for line in tables["data/train/utt2spk"].decode().splitlines()]
    assert rows == [["84-84_1", "84"], ["841-841_1", "841"], ["a-a_1", "a"], ["a_b-a_b_1", "a_b"]]
    assert rows == sorted(rows, key=lambda row: (row[1].encode(), row[0].encode()))


@pytest.mark.parametrize(
    ("to", "ids", "name"),
    [("webdataset", ("a.b", "a_b"), "a_b"), ("kaldi", ("s-x", "x"), "s-x"), ("espnet", ("s-x", "x"), "s-x")],
)
def test_utterances_that_would_have_one_name_are_refused(to: str, ids: tuple[str, str], name: str) -> None:
    some = tuple(Item(one, "train", 100, speaker="s") for one in ids)
    with pytest.raises(
        PipelineError, match=f"--to {to} would name utterances '{ids[0]}' and '{ids[1]}' alike, '{name}'"
    ):
        LAYOUTS[to].check(SetInfo(name="x", url="/x", sr=16000, bits=16, items=some))


# Splits


def items(n_speakers: int, each: int = 4) -> list[Item]:
    return [
        Item(f"s{speaker}-{i}", "train", 100 + speaker, speaker=f"s{speaker}", subset="all")
        for speaker in range(n_speakers)
        for i in range(each)
    ]


def test_shares_keep_speakers_apart() -> None:
    made = by_shares(items(200), {"dev": 0.1, "test": 0.05})
    check_apart(made)
    total = sum(one.n_samples for one in made)
    for name, share in (("train", 0.85), ("dev", 0.1), ("test", 0.05)):
        assert sum(one.n_samples for one in made if one.split == name) / total == pytest.approx(share, abs=0.01)
    # Names alone decide: the order does not matter.
    assert set(by_shares(items(200)[::-1], {"dev": 0.1, "test": 0.05})) == set(made)


def test_few_speakers_can_still_be_split() -> None:
    made = by_shares(items(3), {"dev": 0.05, "test": 0.05})
    assert {one.split for one in made} == {"train", "dev", "test"}
    with pytest.raises(
        PipelineError, match="needs at least 3 speakers to keep them apart, got 2: add --share-speakers"
    ):
        by_shares(items(2), {"dev": 0.05, "test": 0.05})
    shared = by_shares(items(2, 50), {"dev": 0.1, "test": 0.1}, together=False)
    assert {one.split for one in shared} == {"train", "dev", "test"}


# Two shares of one split, and shares that do not sum up to 1.
ODD = ("dev=0.1,dev=0.2", "train=0.5,dev=0.2", "train=0.9,dev=0.5")


@pytest.mark.parametrize("text", ["dev", "dev=", "dev=2", "dev=0", "dev=x", "a b=0.1", "dev=0.5,test=0.5", *ODD])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(PipelineError, match=r"--split must|a split must have a name"):
        shares_of(text)


def test_the_share_of_train_may_be_named() -> None:
    assert shares_of("train=0.9,dev=0.05,test=0.05") == shares_of("dev=0.05,test=0.05") == {"dev": 0.05, "test": 0.05}


def test_a_list_names_ids_or_speakers() -> None:
    made = by_list(items(3), "s0\ttrain\ns1-0\tdev\ns1-1 dev\n", "list.tsv")
    assert {(one.id, one.split) for one in made if one.split == "dev"} == {("s1-0", "dev"), ("s1-1", "dev")}
    assert len(made) == 6
    for text, line in (
        ("s0 train x\n", "list.tsv:1 must be an id or a speaker, a tab, and a split"),
        ("s0\ttrain\ns0\tdev\n", "list.tsv:2 puts 's0' in 'dev', and an earlier line in 'train'"),
        ("zz\ttrain\n", "list.tsv names no utterance and no speaker of the node; ids read like 's0-0'"),
        ("s0\t../x\n", "a split must have a name"),
    ):
        with pytest.raises(PipelineError, match=line):
            by_list(items(3), text, "list.tsv")


def test_splits_that_leak_speakers_are_refused(store: Store, tmp_path: Path) -> None:
    said = ("84-1-0000\tdev\n84-1-0001\ttrain\n61\ttrain\n", "list.tsv")
    with pytest.raises(
        PipelineError, match=r"splits share 1 of 2 speakers, as '84' in dev and train: move .* add --share"
    ):
        export_set(store, request("nemo", split_list=said), str(tmp_path))
    assert not list(tmp_path.iterdir())
    summary = export_set(store, request("nemo", split_list=said, share_speakers=True), str(tmp_path))
    assert (summary.splits, summary.left_out) == ({"train": 5, "dev": 1}, 10)


def test_subsets_of_the_corpus_are_splits(store: Store, tmp_path: Path) -> None:
    summary = export_set(store, request("nemo", split="subset"), str(tmp_path))
    assert summary.splits == {"dev-clean": 12, "test-clean": 4}


# Resuming


@pytest.mark.parametrize(("to", "n_per_chunk"), [("hifigan", 6), ("parquet", 1), ("shar", 2)])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_an_export_that_failed_anywhere_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, n_per_chunk: int, at: int
) -> None:
    """The bytes are those of an undisturbed export, and what was whole is not written again."""
    monkeypatch.setattr(sets, "SHARD_S", 2.0)
    monkeypatch.setattr(sets, "_FILES", 3)
    nodes = "speech" if to == "shar" else "speech,mel"
    export_set(store, request(to, nodes), str(tmp_path / "whole"))
    write, n = ExportFolder.write, 0

    def failing(self: ExportFolder, name: str, data: bytes, *, ours: bool) -> bool:
        nonlocal n
        n += 1
        if n > at:
            raise KeyboardInterrupt
        return write(self, name, data, ours=ours)

    monkeypatch.setattr(ExportFolder, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        export_set(store, request(to, nodes), str(tmp_path / "killed"))
    assert not (tmp_path / "killed/SHA256SUMS").exists()
    monkeypatch.setattr(ExportFolder, "write", write)
    summary = export_set(store, request(to, nodes), str(tmp_path / "killed"))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert summary.kept == at - at % n_per_chunk


def test_an_export_that_was_killed_goes_on(made: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "melmill", "export", str(made), "speech,mel"]
    rest = ["--to", "hifigan"]
    subprocess.run([*command, str(tmp_path / "whole"), *rest], check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, str(killed), *rest], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(killed.glob("*/*"))) < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "SHA256SUMS").exists()
    subprocess.run([*command, str(killed), *rest], check=True, capture_output=True)
    assert contents(killed) == contents(tmp_path / "whole")


def test_a_file_that_is_damaged_is_written_again(store: Store, tmp_path: Path) -> None:
    export_set(store, request("ljspeech"), str(tmp_path))
    before = contents(tmp_path)
    (tmp_path / "wavs/84-1-0000.wav").write_bytes(b"x")
    (tmp_path / "metadata.csv").unlink()
    export_set(store, request("ljspeech"), str(tmp_path))
    assert contents(tmp_path) == before


def test_a_recording_that_changed_is_written_again(tmp_path: Path) -> None:
    """Its length, its texts and the key of its node are as they were."""
    add_chapter(tmp_path / "corpus", "dev-clean", "84", [flac(voice(0.5, 120.0, seed=i)) for i in range(3)])
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(
        f"{{name: sets, store: {tmp_path}/store, stages: {{speech: {{uses: librispeech, root: {tmp_path}/corpus}}}}}}\n"
    )
    melmill.run(str(pipeline), executor="serial")
    out = tmp_path / "out"
    export_set(melmill.open(str(tmp_path / "store")), request("nemo"), str(out))
    (tmp_path / "corpus/dev-clean/84/1/84-1-0001.flac").write_bytes(flac(voice(0.5, 180.0, seed=9)))
    melmill.run(str(pipeline), executor="serial", follow=True)
    store = melmill.open(str(tmp_path / "store"))
    export_set(store, request("nemo"), str(out))
    for name in ("84-1-0000", "84-1-0001", "84-1-0002"):
        y, _ = soundfile.read(out / "wavs" / f"{name}.wav", dtype="int16")
        np.testing.assert_array_equal(y, np.asarray(store["speech"][name]))


def test_hf_is_another_name_of_parquet(store: Store, tmp_path: Path) -> None:
    export_set(store, request("hf"), str(tmp_path))
    assert export_set(store, request("parquet"), str(tmp_path)).written == 0


# What is refused


def refusal(store: Store, folder: Path, to: str, nodes: str = "speech", **more: Any) -> str:
    with pytest.raises(Error) as caught:
        export_set(store, request(to, nodes, **more), str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_requests_are_refused_in_a_line(store: Store, tmp_path: Path, made: Path) -> None:
    assert "no layout 'hifgan'; did you mean 'hifigan'?" in refusal(store, tmp_path, "hifgan")
    assert "takes one node of waveforms, and perhaps one of mels, got 0 and 1" in refusal(
        store, tmp_path, "vits", "mel"
    )
    assert "--to vits holds no mels, got node 'mel': use" in refusal(store, tmp_path, "vits", "speech,mel")
    assert "(center: same or true), got center: False" in refusal(store, tmp_path, "hifigan", "speech,other")
    assert "'speach'" in refusal(store, tmp_path, "vits", "speach")
    assert "is in the store" in refusal(store, made / "out", "vits")
    assert not list(tmp_path.iterdir())


def test_another_export_is_left_alone(store: Store, tmp_path: Path) -> None:
    export_set(store, request("vits"), str(tmp_path))
    before = contents(tmp_path)
    assert "holds another export (format 'vits', not 'nemo')" in refusal(store, tmp_path, "nemo")
    assert "holds another export" in refusal(store, tmp_path, "vits", split="dev=0.2")
    assert contents(tmp_path) == before


def test_files_of_others_are_left_alone(store: Store, tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs/84-1-0000.wav").write_bytes(b"mine")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"84-1-0000.wav exists and is not of this export, so it is left alone"):
            export_set(store, request("ljspeech"), str(tmp_path))
        assert (tmp_path / "wavs/84-1-0000.wav").read_bytes() == b"mine"


def test_a_set_of_another_rule_removes_nothing_of_others(store: Store, tmp_path: Path) -> None:
    export_set(store, request("nemo"), str(tmp_path))
    (tmp_path / "mine.txt").write_text("mine")
    export_set(store, request("nemo"), str(tmp_path))
    assert (tmp_path / "mine.txt").read_text() == "mine"
