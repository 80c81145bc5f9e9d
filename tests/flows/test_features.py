"""Features in a pipeline: aligned to their mels, summed up, normalised, exported, resumed."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

import melmill
from melmill.flows.tasks.training import TrainingFolder
from melmill.stages.contract import CorpusArrays, TrainingPlace
from melmill.stages.extract.features import stats
from melmill.stages.formats.statistics import read_statistics
from tests.flows.conftest import Project

SR = 16000
PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
max_quarantined: 0.5
stages:
  speech: {{uses: audio_folder, root: {root}, sr: 16000, folders: [speaker]}}
  mel: {{uses: extract, from: speech, preset: [paper, hifigan, speecht5]}}
  half: {{uses: extract, from: speech, preset: paper, dtype: float16}}
  f0: {{uses: f0, from: speech, mel: mel}}
  energy: {{uses: energy, from: speech, mel: half, log: ln}}
  melstats: {{uses: stats, from: half}}
  pitches: {{uses: f0, from: speech, mel: half}}
  f0stats: {{uses: stats, from: pitches}}
  normal: {{uses: normalise, from: half, stats: melstats}}
  pitch: {{uses: normalise, from: pitches, stats: f0stats, by: speaker}}
  durations: {{uses: durations, from: speech, mel: half, alignments: {root}/align}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""
N = 6


def _sound(i: int) -> NDArray[np.float32]:
    """Return a tone of 200 Hz with partials between two pauses."""
    t = np.arange(int((1.0 + 0.1 * i) * SR)) / SR
    y = sum(np.sin(2 * np.pi * (150 + 50 * (i % 2)) * k * t) / k for k in range(1, 6)) * 0.1
    return np.asarray(np.where((t > 0.2) & (t < 0.8), y, 1e-4 * np.sin(5e3 * t)), dtype=np.float32)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return six recordings of two speakers with alignments, run through all stages of features."""
    made = Project(tmp_path_factory.mktemp("features"))
    align = made.root / "align"
    align.mkdir(parents=True)
    for i in range(N):
        speaker = f"s{i % 2}"
        (made.root / speaker).mkdir(exist_ok=True)
        y = _sound(i)
        soundfile.write(made.root / speaker / f"u{i}.wav", y, SR, subtype="PCM_16")
        (align / speaker).mkdir(exist_ok=True)
        ticks = [0, 2_000_000, 8_000_000, round(y.size / SR * 1e7)]
        lines = [f"{a} {b} {name}" for a, b, name in zip(ticks, ticks[1:], ("sil", "a", "sil"), strict=False)]
        (align / speaker / f"u{i}.lab").write_text("\n".join(lines) + "\n")
    made.write(PIPELINE)
    answer = made.run("--executor", "serial")
    assert (answer["quarantined"], answer["tasks"]["failed"]) == (0, 0)
    return made


@pytest.fixture(scope="module")
def store(project: Project) -> Any:
    return melmill.open(str(project.store))


@pytest.mark.parametrize("preset", ["paper", "hifigan", "speecht5"])
def test_pitch_follows_the_frames_of_each_mel(store: Any, preset: str) -> None:
    f0, mel = store[f"f0[mel=mel[preset={preset}]]"], store[f"mel[preset={preset}]"]
    assert len(f0) == N
    for name in mel:
        assert f0[name].shape == (2, mel[name].shape[1])
    pitch, voiced = f0["s1--u1"]
    np.testing.assert_allclose(pitch[voiced > 0], 200.0, rtol=0.01)
    assert 0.5 < voiced.mean() < 0.65


def test_statistics_are_those_of_numpy(store: Any) -> None:
    table = store.statistics("melstats")
    mels = {name: store["half"][name].astype(np.float64) for name in store["half"]}
    for speaker, ids in ((None, list(mels)), ("s1", ["s1--u1", "s1--u3", "s1--u5"])):
        x = np.concatenate([mels[name] for name in ids], axis=1)
        rows = table[table["speaker_id"].isna()] if speaker is None else table[table["speaker_id"] == speaker]
        assert rows["row"].tolist() == [f"band_{band}" for band in range(80)]
        assert set(rows["count"]) == {x.shape[1]}
        for column, expected in (
            ("mean", x.mean(1)),
            ("std", x.std(1)),
            ("minimum", x.min(1)),
            ("maximum", x.max(1)),
        ):
            np.testing.assert_allclose(rows[column], expected, rtol=1e-6, atol=1e-12)


def test_pitch_counts_where_it_is_voiced(store: Any) -> None:
    table = store.statistics("f0stats").set_index(["speaker_id", "row"])
    np.testing.assert_allclose(table.loc[("s0", "f0"), "mean"], 150.0, rtol=0.01)
    np.testing.assert_allclose(table.loc[("s1", "f0"), "mean"], 200.0, rtol=0.01)
    assert 0.5 < table.loc[("s0", "voiced"), "mean"] < 0.65


def test_mels_are_normalised_by_band_and_pitch_by_speaker(store: Any) -> None:
    whole = np.concatenate([store["normal"][name] for name in store["normal"]], axis=1)
    assert whole.shape[0] == 80
    np.testing.assert_allclose(whole.mean(axis=1), 0.0, atol=1e-4)
    np.testing.assert_allclose(whole.std(axis=1), 1.0, atol=1e-4)
    f0 = store["pitch"]["s0--u2"]
    before = store["pitches"]["s0--u2"]
    np.testing.assert_array_equal(f0[1], before[1])
    assert (f0[0][before[1] == 0] == 0).all()


def test_energy_lies_within_the_word(store: Any) -> None:
    energy, mel = store["energy"]["s0--u0"], store["half"]["s0--u0"]
    assert energy.shape == (1, mel.shape[1])
    assert energy[0, 31] - energy[0, 2] > 5


def test_durations_add_up_to_the_frames(store: Any) -> None:
    table = store.durations("durations")
    for name in store["half"]:
        rows = table[table["utterance_id"] == name]
        assert rows["label"].tolist() == ["sil", "a", "sil"]
        frames = store["durations"][name][0]
        assert rows["n_frames"].sum() == frames.size == store["half"][name].shape[1]
        np.testing.assert_array_equal(np.bincount(frames.astype(int)), rows["n_frames"])
        # 0.6 s in hops of 10 ms or more, a frame up or down.
        hop_s = 256 / SR
        assert abs(rows["n_frames"].iloc[1] - 0.6 / hop_s) <= 1


def test_a_second_run_has_nothing_to_do(project: Project) -> None:
    assert project.run("--executor", "serial")["tasks"]["run"] == 0


def test_statistics_are_exported_and_read_as_those_of_a_recipe(project: Project, store: Any, tmp_path: Path) -> None:
    done = project.called("export", str(project.store), "melstats", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    mean, std = read_statistics("statistics.npz", (tmp_path / "out" / "statistics.npz").read_bytes())
    assert mean is not None
    assert std is not None
    table = store.statistics("melstats").query("speaker_id.isna()")
    np.testing.assert_allclose(mean, table["mean"])
    np.testing.assert_allclose(std, table["std"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "statistics.csv").read_text())))
    assert (rows[0]["speaker_id"], rows[0]["row"], rows[-1]["speaker_id"]) == ("", "band_0", "s1")
    spec = melmill.preset("paper", stats=str(tmp_path / "out" / "statistics.npz"))
    assert spec.band_mean == tuple(mean)


def test_training_sets_hold_features(project: Project, store: Any, tmp_path: Path) -> None:
    nodes = "speech,pitches,energy"
    done = project.called("export", str(project.store), nodes, str(tmp_path / "set"), "--to", "vits")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "set" / "energy" / "s0--u0.npy"), store["energy"]["s0--u0"])
    refused = project.called("export", str(project.store), nodes, str(tmp_path / "other"), "--to", "shar")
    assert refused.returncode == 2
    assert "--to shar holds no features, got node 'pitches'" in refused.stderr
    single = project.called("export", str(project.store), "energy", str(tmp_path / "npy"))
    assert single.returncode == 0, single.stderr
    assert np.load(tmp_path / "npy" / "s1" / "u1.npy").shape == store["energy"]["s1--u1"].shape


def test_statistics_that_are_stopped_go_on(
    project: Project, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop after each shard and begin again: the bytes are those of an undisturbed run."""
    from melmill.storage.files.location import Location
    from melmill.storage.reading.corpus_arrays import StoredCorpusArrays

    monkeypatch.setattr(stats, "_SAVE_EVERY_S", 0.0)
    view = store["half"]
    data: CorpusArrays = StoredCorpusArrays(view, list(view))
    assert data.n_shards > 2

    class Stopped(Exception):
        pass

    class Stopping(TrainingFolder):
        def note(self, line: str) -> None:
            raise Stopped(line)

    place: TrainingPlace = Stopping(Location(str(tmp_path)), "melstats")
    inputs = {"from": melmill.stages.contract.Mel(spec=melmill.preset("paper"))}
    for _ in range(data.n_shards - 1):
        with pytest.raises(Stopped):
            stats.Stats().reduce(data, place, inputs)
    files = stats.Stats().reduce(data, place, inputs)
    entry = store.nodes["melstats"]
    stored = Path(project.store, entry.folder, entry.key, "trained", "statistics.npz")
    assert files["statistics.npz"] == stored.read_bytes()


# A field, and the line that it gives.
@pytest.mark.parametrize(
    ("set_", "problem"),
    [
        ("normal.stats=f0stats", "the statistics of 'f0stats' are not of what 'half' makes"),
        ("normal.stats=half", "takes statistics, but 'half' makes mel"),
        ("durations.alignments=nowhere", "nowhere"),
        ("f0.mel=speech", "takes mel, but 'speech' makes utterances"),
        ("f0.fmin=5", "fmin must be at least 20"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(project: Project, set_: str, problem: str) -> None:
    done = project.called("plan", str(project.pipeline), "--set", set_)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_vocoders_take_no_normalised_mels(project: Project, tmp_path: Path) -> None:
    text = PIPELINE.format(store=project.store, root=project.root).replace(
        "cluster:", "  gla: {uses: griffin_lim, from: normal}\ncluster:"
    )
    other = tmp_path / "other.yaml"
    other.write_text(text)
    done = project.called("plan", str(other))
    assert done.returncode == 2
    assert "takes mel, but 'normal' makes features" in done.stderr
