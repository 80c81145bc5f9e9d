"""From the store to files, as other programs find them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmill
from melmill.flows.exchange.export import export
from melmill.flows.exchange.metadata import METADATA
from melmill.flows.execution.errors import RunFailed
from melmill.flows.pipeline.errors import PipelineError
from melmill.storage.errors import StoreError
from melmill.storage.files.ledger import LEDGER
from melmill.storage.store import Store
from tests.flows.conftest import Project, add_chapter, enlarge, flac, small_disk, voice
from tests.flows.exchange.test_metadata import rows_of

MANY = """\
name: test
store: {store}
shard_duration_s: 4
stages:
  speech: {{uses: librispeech, root: {root}}}
"""
N_MANY = 240


def files(folder: Path) -> dict[str, str]:
    """Return the hash of every file of an export, its ledger and its table left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and LEDGER not in path.parts and path.name != METADATA
    }


@pytest.fixture
def store(finished: Project) -> Store:
    return melmill.open(str(finished.store))


@pytest.mark.parametrize(("format_", "bits"), [("flac", 16), ("wav", 16), ("flac", 24), ("wav", 24)])
def test_waveforms_keep_names_lengths_and_samples(store: Store, tmp_path: Path, format_: str, bits: int) -> None:
    summary = export(store, "gla", str(tmp_path), format_=format_, bits=bits)
    assert (summary.written, summary.kept, summary.missing, summary.quarantined) == (16, 0, 0, 0)
    table = store.utterances()
    paths = dict(zip(table["utterance_id"], table["path"], strict=True))
    lengths = dict(zip(table["utterance_id"], table["n_samples"], strict=True))
    assert set(files(tmp_path)) == {f"{path.removesuffix('.flac')}.{format_}" for path in paths.values()}
    for name, y in store["gla"].items():
        read, sr = soundfile.read((tmp_path / paths[name]).with_suffix(f".{format_}"), dtype="float64")
        assert (sr, len(read)) == (16000, lengths[name])
        np.testing.assert_allclose(read, np.clip(y, -1, 1), atol=0.51 * 2.0 ** (1 - bits))


def test_recordings_come_back_bit_for_bit(store: Store, tmp_path: Path) -> None:
    export(store, "speech", str(tmp_path))
    for path, name in zip(store.utterances()["path"], store.utterances()["utterance_id"], strict=True):
        y, _ = soundfile.read(tmp_path / path, dtype="int16")
        np.testing.assert_array_equal(y, store["speech"][name])


def test_mels_become_arrays_that_a_pipeline_takes_again(store: Store, finished: Project, tmp_path: Path) -> None:
    export(store, "mel", str(tmp_path / "mels"))
    path = store.utterances()["path"][0]
    name = store.utterances()["utterance_id"][0]
    M = np.load((tmp_path / "mels" / path).with_suffix(".npy"), allow_pickle=False)
    np.testing.assert_array_equal(M, store["mel"][name])
    pipeline = tmp_path / "again.yaml"
    pipeline.write_text(
        f"name: again\nstore: {tmp_path / 'again'}\nstages:\n"
        f"  mel: {{uses: mel_folder, root: {tmp_path / 'mels'}, preset: paper}}\n"
        "  gla: {uses: griffin_lim, from: mel, n_iter: 1}\n"
    )
    done = finished.called("run", str(pipeline), "--executor", "serial")
    assert done.returncode == 0, done.stderr
    again = melmill.open(str(tmp_path / "again"))
    same = f"dev-clean--{path.split('/', 1)[1].removesuffix('.flac').replace('/', '--')}"
    np.testing.assert_array_equal(again["mel"][same], M)
    # The shortest waveform of those frames lacks the end of the recording, which is in no frame.
    assert again["gla"][same].size == (M.shape[1] - 1) * 256
    assert len(again.utterances()) == 16
    assert set(again.utterances()["n_frames"]) == {M.shape[1] for M in again["mel"].values()}


def test_what_is_whole_is_not_written_again(store: Store, tmp_path: Path) -> None:
    export(store, "gla", str(tmp_path))
    before, times = files(tmp_path), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    again = export(store, "gla", str(tmp_path))
    assert (again.written, again.kept) == (0, 16)
    damaged, gone, flipped = sorted(times)[:3]
    os.truncate(damaged, 100)
    gone.unlink()
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"\xff")
    mended = export(store, "gla", str(tmp_path))
    assert (mended.written, mended.kept) == (3, 13)
    assert files(tmp_path) == before
    assert {path for path, then in times.items() if path.stat().st_mtime_ns != then} == {damaged, gone, flipped}


def test_a_shard_that_was_made_anew_is_written_anew(finished: Project, tmp_path: Path) -> None:
    shutil.copytree(finished.store, tmp_path / "store")
    opened = melmill.open(str(tmp_path / "store"))
    export(opened, "gla", str(tmp_path / "out"))
    (page,) = (tmp_path / "out" / LEDGER).glob("000001.json")
    ledger = json.loads(page.read_text())
    page.write_text(json.dumps({**ledger, "source": "what another GPU made"}))
    again = export(opened, "gla", str(tmp_path / "out"))
    assert (again.written, again.kept) == (len(ledger["files"]), 16 - len(ledger["files"]))
    assert json.loads(page.read_text()) == ledger


def test_patterns_choose_and_add_up(store: Store, tmp_path: Path) -> None:
    assert export(store, "gla", str(tmp_path), utterances=["11-*-0000", "22-1-000[12]"]).written == 3
    assert sorted(Path(name).stem for name in files(tmp_path)) == ["11-1-0000", "22-1-0001", "22-1-0002"]
    rest = export(store, "gla", str(tmp_path))
    assert (rest.written, rest.kept) == (13, 3)
    assert export(store, "gla", str(tmp_path)).kept == 16


def test_a_recording_is_never_overwritten(finished: Project, store: Store, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(finished.root, corpus)
    before = files(corpus)
    with pytest.raises(StoreError, match=r"\.flac exists and is not of this export, so it is left alone"):
        export(store, "gla", str(corpus))
    assert files(corpus) == before


LOUD = """\
name: loud
store: {store}
stages:
  mel:  {{uses: mel_folder, root: mels, preset: paper}}
  loud: {{uses: griffin_lim, from: mel, n_iter: 1}}
"""


def test_what_passes_full_scale_is_clipped_counted_and_told(store: Store, tmp_path: Path) -> None:
    loud = Project(tmp_path)
    loud.write(LOUD)
    (tmp_path / "mels").mkdir()
    for i, (name, M) in enumerate(list(store["mel"].items())[:6]):
        np.save(tmp_path / "mels" / f"{name}.npy", M * (1.0 if i < 2 else 4.0))
    loud.run("--executor", "serial")
    done = loud.called("export", str(loud.store), "loud", "out")
    assert done.returncode == 0, done.stderr
    made = dict(melmill.open(str(loud.store))["loud"].items())
    whole = {name: np.rint(y.astype(np.float64) * 32768) for name, y in made.items()}
    expected = {f"{name}.flac": int(np.sum((n > 32767) | (n < -32768))) for name, n in whole.items()}
    clipped = {file: count for file, count in expected.items() if count}
    assert len(clipped) == 4
    assert f"clipped at full scale: {sum(clipped.values()):,} samples in 4 files: " in done.stdout
    for name, n in whole.items():
        y, _ = soundfile.read(tmp_path / "out" / f"{name}.flac", dtype="int16")
        np.testing.assert_array_equal(y, np.clip(n, -32768, 32767))
    # Told again by an export that finds all files there.
    told = json.loads(loud.called("export", str(loud.store), "loud", "out", "--json").stdout)
    assert (told["clipped"], told["written"], told["kept"]) == (clipped, 0, 6)


def test_what_is_quarantined_or_not_done_is_left_out(project: Project) -> None:
    (project.root / "dev-clean" / "11" / "1" / "11-1-0099.flac").write_bytes(b"no audio")
    project.run("--executor", "serial", "--until", "gla", "--set", "max_quarantined=1.0")
    opened = melmill.open(str(project.store))
    summary = export(opened, "gla", str(project.folder / "out"))
    assert (summary.written, summary.quarantined, summary.missing) == (16, 1, 0)
    (record,) = project.store.glob("gla/*/records/000001.json")
    n = json.loads(record.read_text())["n_utterances"]
    record.unlink()
    done = project.called("export", str(project.store), "gla", "other")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {n} utterances of 'gla' are not done yet: run the pipeline, then export again"
    )
    assert f"{16 - n} files written" in done.stdout


def test_damage_ends_it_and_names_the_place(finished: Project, tmp_path: Path) -> None:
    shutil.copytree(finished.store, tmp_path / "store")
    (path,) = (tmp_path / "store").glob("gla/*/data/c/1")
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(RunFailed, match=r"node 'gla', record '000001'.*Run `melmill repair`"):
        export(melmill.open(str(tmp_path / "store")), "gla", str(tmp_path / "out"))
    assert files(tmp_path / "out"), "the shard before it is written"


@pytest.mark.parametrize(
    ("node", "fields", "message"),
    [
        ("glaa", {}, r"the last run has no node 'glaa'; did you mean 'gla'\?"),
        ("scores[gla]", {}, "makes scores: it has no arrays"),
        ("mel", {"bits": 16}, "node 'mel': format 'npy' has no choice of bits: leave --bits out"),
        ("mel", {"format_": "wav"}, "node 'mel' makes mels, which format 'wav' can't hold: use --format npy"),
        ("gla", {"format_": "npy"}, "node 'gla' makes waveforms, .* use --format flac or wav"),
        ("gla", {"format_": "flacc"}, r"there is no format 'flacc'; did you mean 'flac'\? \(formats: flac, wav, npy\)"),
        ("gla", {"bits": 8}, "--bits of flac must be 16 or 24, got 8"),
        ("speech", {"bits": 24}, "node 'speech' is stored as int16"),
        ("gla", {"utterances": ["33-*"]}, r"got '33-\*', which match none of 16, e\.g\. '"),
    ],
)
def test_what_cannot_be_is_one_error(
    store: Store, tmp_path: Path, node: str, fields: dict[str, object], message: str
) -> None:
    with pytest.raises((PipelineError, StoreError), match=message):
        export(store, node, str(tmp_path / "out"), **fields)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_store_holds_no_exports(store: Store, finished: Project) -> None:
    with pytest.raises(PipelineError, match=r"is in the store .*: export to a folder of its own"):
        export(store, "gla", str(finished.store / "out"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project with more recordings than can be written in a moment."""
    made = Project(tmp_path_factory.mktemp("many"))
    add_chapter(made.root, "dev-clean", "11", [flac(voice(1.0, 110.0, seed=i)) for i in range(N_MANY)])
    made.write(MANY)
    made.run("--executor", "serial")
    return made


@pytest.fixture(scope="module")
def peaceful(many: Project) -> dict[str, str]:
    folder = many.folder / "peaceful"
    assert export(melmill.open(str(many.store)), "speech", str(folder), format_="wav").written == N_MANY
    return files(folder)


def test_a_killed_export_goes_on_where_it_stopped(many: Project, peaceful: dict[str, str]) -> None:
    out = many.folder / "killed"
    arguments = ["export", str(many.store), "speech", str(out), "--format", "wav"]
    process = subprocess.Popen(many.command(*arguments), cwd=many.folder, env=many.environment())
    deadline = time.monotonic() + 60
    while len(list(out.rglob("*.wav"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = files(out)
    whole = {name: digest for name, digest in there.items() if not Path(name).name.startswith(".")}
    assert 20 <= len(whole) < N_MANY
    assert whole.items() <= peaceful.items(), "no file is torn"
    assert not (out / METADATA).exists(), "it would list files that are not there"
    times = {name: (out / name).stat().st_mtime_ns for name in whole}
    again = json.loads(many.called(*arguments, "--json").stdout)
    assert (again["kept"], again["written"]) == (len(whole), N_MANY - len(whole))
    assert files(out) == peaceful, "and nothing is left behind"
    assert [row["file_name"] for row in rows_of(out)] == sorted(peaceful)
    assert {name: (out / name).stat().st_mtime_ns for name in whole} == times


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of its own with room for a part of an export."""
    with small_disk(tmp_path / "disk", "2m") as folder:
        yield folder


def test_a_full_disk_ends_an_export_that_goes_on_with_more_room(
    many: Project, peaceful: dict[str, str], disk: Path
) -> None:
    out = disk / "out"
    arguments = ["export", str(many.store), "speech", str(out), "--format", "wav"]
    full = many.called(*arguments)
    assert full.returncode == 1, full.stderr
    (error,) = [line for line in full.stderr.splitlines() if line.startswith("error:")]
    assert error.startswith(f"error: can't write {out}/")
    assert error.endswith("No space left on device. Free some room, then run again: what is stored is kept.")
    there = files(out)
    assert there
    assert there.items() <= peaceful.items()
    assert not (out / METADATA).exists()
    enlarge(disk)
    again = json.loads(many.called(*arguments, "--json").stdout)
    assert again["written"] == N_MANY - len(there)
    assert files(out) == peaceful


def test_only_the_suffix_of_a_name_changes(project: Project, corpus_files: dict[str, list[bytes]]) -> None:
    (project.root / "v1.0 take.2.wav").write_bytes(corpus_files["11"][0])
    project.write(MANY.replace("librispeech", "audio_folder"))
    project.run("--executor", "serial")
    export(melmill.open(str(project.store)), "speech", str(project.folder / "out"))
    assert "v1.0 take.2.flac" in files(project.folder / "out")
