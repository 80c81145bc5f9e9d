"""What `melmill init` sees in a folder, and the pipelines that it writes."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.layouts import Contents, Layout, bands, contents_of, recognised
from melmill.flows.pipeline.spec import read
from melmill.flows.pipeline.starter import PURPOSES, Answers, Purpose, purposes, starter, usual_preset
from melmill.flows.planning.plan import make_plan
from melmill.stages.formats.containers import ffmpeg
from melmill.stages.numeric.presets import preset
from melmill.storage.errors import SourceError
from melmill.storage.files.sources import SourceTree

AUDIO = Contents(
    layout=Layout(name="a folder", uses="audio_folder", fields={"root": "data/speech", "folders": ("speaker",)}),
    n_files=10,
    duration_s=100.0,
    rates={22050: 10},
    n_speakers=2,
)
MELS = Contents(
    layout=Layout(name="mels", uses="mel_folder", fields={"root": "mels", "layout": "bands_first"}),
    n_files=3, n_mels=80,
)  # fmt: skip


@pytest.mark.parametrize(
    ("paths", "name", "fields"),
    [
        (["dev-clean/84/121123/84-121123-0000.flac"], "LibriSpeech", {}),
        (["x/LibriSpeech/dev-clean/84/121123/84-121123-0000.flac"], "LibriSpeech", {}),
        # the published archives, and extracts without their folders
        (["LibriTTS/dev-clean/84/121123/84_121123_000008_000001.wav"], "LibriTTS", {}),
        (["84/84_121123_000008_000001.wav"], "LibriTTS", {}),
        (["84_121123_000008_000001.wav"], "LibriTTS", {}),
        (["wav48/p225/p225_001.wav"], "VCTK", {}),
        (["a/p225/p225_001_mic1.flac", "a/p225/p225_001_mic2.flac", "a/s5/s5_001_mic1.flac"], "VCTK", {}),
        (["wavs/LJ001-0001.wav", "wavs/LJ001-0002.wav", "wavs/other.wav"], "LJSpeech", {}),
        (["LJ001-0001.wav"], "LJSpeech", {}),
        (["TIMIT/TRAIN/DR1/FCJF0/SA1.WAV"], "TIMIT", {}),
        (["timit/test/dr1/faks0/sa1.wav"], "TIMIT", {}),
        (["cv-corpus-17.0/de/clips/common_voice_de_17298952.mp3"], "Common Voice", {}),
        (["mls_german/train/audio/10087/9507/10087_9507_000000.flac"], "MLS", {}),
        (["train/wav/SSB0005/SSB00050001.wav"], "AISHELL-3", {}),
        (["jsut_ver1.1/basic5000/wav/BASIC5000_0001.wav"], "JSUT", {}),
        (["jsut_ver1.1/loanword128/wav/LOANWORD128_001.wav"], "JSUT", {}),
        (["kss/1/1_0000.wav"], "KSS", {}),
        (["cmu_us_bdl_arctic/wav/arctic_a0001.wav"], "CMU Arctic", {}),
        (["dev/DogBark/001.wav"], "DCASE 2023 Task 7", {}),
        # what most files say
        (["a.wav", "LJ001-0001.wav", "b.wav"], "a folder of audio", {"folders": ()}),
        (["a/b/c/d/e.wav"], "a folder of audio", {"folders": ("subset", "speaker", "chapter")}),
    ],
)
def test_layouts_are_told_by_names(paths: Sequence[str], name: str, fields: dict[str, Any]) -> None:
    layout = recognised("x", paths)
    assert (layout.name, layout.fields) == (name, {"root": "x", **fields})
    assert (layout.uses == "audio_folder") == (name == "a folder of audio")


@pytest.mark.parametrize(
    ("shapes", "n_mels", "axes"),
    [
        ([(80, 312), (80, 97)], 80, "bands_first"),
        ([(312, 80), (97, 80)], 80, "frames_first"),
        ([(1, 312, 100), (1, 97, 100)], 100, "frames_first"),
        # one file, or files of one length: the axis that a preset has
        ([(80, 63)], 80, "bands_first"),
        ([(63, 128)], 128, "frames_first"),
        # bands that no preset has
        ([(37, 5), (37, 9)], 37, "bands_first"),
    ],
)
def test_bands_are_the_axis_that_does_not_vary(shapes: list[tuple[int, ...]], n_mels: int, axes: str) -> None:
    assert bands(shapes) == (n_mels, axes)


@pytest.mark.parametrize("shapes", [[(80, 3), (70, 4)], [(5,)], []])
def test_arrays_without_common_bands_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(PipelineError, match="are no mels of one kind: expected one number of bands"):
        bands(shapes)


def recorded(path: Path, duration_s: float = 0.5, sr: int = 22050) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(duration_s * sr)) / sr
    soundfile.write(path, 0.1 * np.sin(2 * np.pi * 440 * t), sr)


def test_a_folder_is_counted_by_its_headers(tmp_path: Path) -> None:
    for name in ("wavs/LJ001-0001.wav", "wavs/LJ001-0002.wav"):
        recorded(tmp_path / name)
    recorded(tmp_path / "wavs/LJ001-0003.wav", sr=16000)
    (tmp_path / "wavs/LJ001-0004.wav").write_bytes(b"no audio")
    (tmp_path / "wavs/._LJ001-0001.wav").write_bytes(b"left behind")
    (tmp_path / "metadata.csv").write_text("LJ001-0001|Printing.|Printing.\n")
    contents = contents_of(str(tmp_path))
    assert contents.layout.name == "LJSpeech"
    assert (contents.n_files, contents.n_unreadable, contents.n_texts, contents.n_speakers) == (4, 1, 1, 1)
    assert contents.rates == {22050: 2, 16000: 1}
    assert contents.duration_s == pytest.approx(1.5, abs=1e-3)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (b"a|Printing.|225\n", "columns must say what is in 'metadata.csv': line 1 is"),
        (b"a|Caf\xe9.\n", "encoding must be said for 'metadata.csv'"),
    ],
)
def test_texts_of_uncertain_columns_stop_no_first_pipeline(tmp_path: Path, table: bytes, why: str) -> None:
    recorded(tmp_path / "wavs/a.wav")
    (tmp_path / "metadata.csv").write_bytes(table)
    contents = contents_of(str(tmp_path))
    assert (contents.n_files, contents.n_texts) == (1, 0)
    assert contents.notes[0].startswith(f"no texts are read yet: {why}")


def test_files_that_take_the_extra_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    (tmp_path / "a.m4a").write_bytes(b"?")
    with pytest.raises(PipelineError, match=r"neither audio .* nor mels .*; 1 file is audio .*: 1 .m4a; pip install"):
        contents_of(str(tmp_path))
    recorded(tmp_path / "b.wav")
    contents = contents_of(str(tmp_path))
    assert contents.n_files == 1
    assert contents.notes == ("1 file is audio by its name but not read: 1 .m4a; pip install 'melmill[av]' to read it",)
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: True)
    assert contents_of(str(tmp_path)).n_files == 2


def test_one_subset_of_librispeech_is_read_from_the_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path / "LibriSpeech/dev-clean/84/1/84-1-0000.flac", sr=16000)
    recorded(tmp_path / "LibriSpeech/test-clean/85/1/85-1-0000.flac", sr=16000)
    monkeypatch.chdir(tmp_path / "LibriSpeech")
    assert contents_of(".").layout.fields == {"root": "."}
    assert contents_of("dev-clean").layout.fields["root"] == str(tmp_path / "LibriSpeech")
    contents = contents_of(str(tmp_path / "LibriSpeech" / "dev-clean"))
    assert contents.layout.fields == {"root": str(tmp_path / "LibriSpeech"), "subsets": ("dev-clean",)}
    assert contents.n_files == 1


def test_several_corpora_or_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"holds neither audio .* nor mels .* among 0 files"):
        contents_of(str(tmp_path))
    for corpus in ("a", "b"):
        recorded(tmp_path / corpus / "dev-clean/84/1/84-1-0000.flac", sr=16000)
    with pytest.raises(PipelineError, match=r"must hold one corpus, .* choose one of a, b"):
        contents_of(str(tmp_path))
    with pytest.raises(SourceError, match=r"no corpus at .*nowhere: it does not exist"):
        contents_of(str(tmp_path / "nowhere"))


def test_mels_are_told_by_their_shapes(tmp_path: Path) -> None:
    for name, n_frames in (("a", 50), ("b", 70)):
        np.save(tmp_path / f"{name}.npy", np.zeros((1, n_frames, 100), dtype=np.float32))
    (tmp_path / "c.npy").write_bytes(b"no array")
    contents = contents_of(str(tmp_path))
    assert (contents.n_files, contents.n_unreadable, contents.n_mels) == (3, 1, 100)
    assert contents.layout.fields == {"root": str(tmp_path), "layout": "frames_first"}


def answers(purpose: Purpose, **changed: Any) -> Answers:
    return replace(Answers(purpose=purpose, preset="hifigan", sr=22050, store="runs/x", name="x"), **changed)


@pytest.mark.parametrize(
    ("rate", "trained", "inverted"),
    [
        (48000, "bigvgan_v2_44khz_128band_512x", "bigvgan_v2_44khz_128band_512x"),
        (24000, "vocos_24khz", "vocos_24khz"),
        (22050, "hifigan", "hifigan"),
        (16000, "speecht5", "paper"),
        (8000, "speecht5", "paper"),
    ],
)
def test_the_usual_mel_keeps_the_rate(rate: int, trained: str, inverted: str) -> None:
    contents = replace(AUDIO, rates={rate: 3, 96000: 1})
    assert usual_preset(contents, "training") == trained
    assert usual_preset(contents, "resynthesis") == usual_preset(contents, "evaluation") == inverted
    assert preset(trained).log is not None, "vocoders learn from log mels"


@pytest.mark.parametrize(("n_mels", "name"), [(80, "hifigan"), (100, "vocos_24khz"), (37, "hifigan")])
def test_the_usual_preset_of_mels_has_their_bands(n_mels: int, name: str) -> None:
    assert usual_preset(replace(MELS, n_mels=n_mels), "resynthesis") == name


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("root", ["data/speech", "a b, c", "s3://bucket/speech", "x: 'y' #z"])
def test_what_is_written_is_a_sound_pipeline(purpose: Purpose, root: str) -> None:
    layout = replace(AUDIO.layout, fields={**AUDIO.layout.fields, "root": root})
    text = starter(replace(AUDIO, layout=layout), answers(purpose, store=root, name="1.5"), "pipeline.yaml")
    plain = yaml.safe_load(text)
    assert (plain["name"], plain["store"], plain["stages"]["speech"]["root"]) == ("1.5", root, root)
    nodes = build_graph(read(text, "pipeline.yaml"))
    wanted = {"training": "mel", "resynthesis": "resynthesis", "evaluation": "report"}
    assert list(nodes)[-1] == wanted[purpose]
    assert max(len(line) for line in text.splitlines()) <= 130


def test_groups_are_those_that_the_folder_has() -> None:
    def by(**changed: Any) -> list[str]:
        text = starter(replace(AUDIO, **changed), answers("evaluation"), "p.yaml")
        found: list[str] = yaml.safe_load(text)["stages"]["report"]["by"]
        return found

    assert by() == ["speaker"]
    assert by(n_speakers=0) == []
    assert by(has_subsets=True) == ["subset", "speaker"]


def test_training_sets_take_half_the_room_unless_the_mel_is_linear() -> None:
    log = yaml.safe_load(starter(AUDIO, answers("training"), "p.yaml"))
    linear = yaml.safe_load(starter(AUDIO, answers("training", preset="paper"), "p.yaml"))
    assert log["stages"]["mel"]["dtype"] == "float16"
    assert "dtype" not in linear["stages"]["mel"]


def test_shards_are_longer_for_large_corpora() -> None:
    small = yaml.safe_load(starter(AUDIO, answers("training"), "p.yaml"))
    large = yaml.safe_load(starter(replace(AUDIO, duration_s=1e6), answers("training"), "p.yaml"))
    assert (small["shard_duration_s"], large["shard_duration_s"]) == (60, 300)


def test_mels_are_inverted_and_nothing_else() -> None:
    assert purposes(MELS) == ("resynthesis",)
    nodes = build_graph(read(starter(MELS, answers("resynthesis"), "p.yaml"), "p.yaml"))
    assert list(nodes) == ["mel", "resynthesis"]
    with pytest.raises(PipelineError, match="--for training needs recordings, but 'mels' holds mels alone"):
        starter(MELS, answers("training"), "p.yaml")
    with pytest.raises(PipelineError, match="vocos_24khz has 100 bands, but the mels in 'mels' have 80: choose among"):
        starter(MELS, answers("resynthesis", preset="vocos_24khz"), "p.yaml")
    odd = starter(replace(MELS, n_mels=37), answers("resynthesis"), "p.yaml")
    assert yaml.safe_load(odd)["stages"]["mel"]["n_mels"] == 37
    assert build_graph(read(odd, "p.yaml"))


# Name of the folder, name of the layout, files, and rate of most of them.
CORPORA = [
    ("LibriSpeech", "LibriSpeech", 204, 16000),
    # Files of other names than the corpus has are counted as passed over.
    ("VCTK", "VCTK", 12, 48000),
    ("LJSpeech", "LJSpeech", 10, 22050),
    ("LibriTTS", "LibriTTS", 12, 24000),
    ("ESC-10", "a folder of audio", 48, 44100),
]


@pytest.mark.parametrize(("folder", "name", "n_files", "rate"), CORPORA)
def test_real_corpora_are_recognised_and_plan(
    real_data: Path, tmp_path: Path, folder: str, name: str, n_files: int, rate: int
) -> None:
    contents = contents_of(str(real_data / "corpora" / folder))
    assert (contents.layout.name, contents.n_files, contents.n_unreadable) == (name, n_files, 0)
    assert next(iter(contents.rates)) == rate
    assert contents.n_texts == (n_files if name == "LibriSpeech" else 0)
    for purpose in PURPOSES:
        chosen = answers(purpose, preset=usual_preset(contents, purpose), sr=rate, store=str(tmp_path / purpose))
        plan = make_plan(read(starter(contents, chosen, "p.yaml"), "p.yaml"))
        assert plan.n_pending == plan.n_tasks > 0
        assert plan.n_utterances == n_files


def test_a_machine_that_can_not_read_mels_blames_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", np.zeros((80, 5), np.float32))

    def failing(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(SourceTree, "head", failing)
    with pytest.raises(PipelineError, match=r"^can't read 'a.npy' of .* here: Too many open files; raise the limit"):
        contents_of(str(tmp_path))


def test_a_folder_of_archives_is_told_how_to_read_one(tmp_path: Path) -> None:
    (tmp_path / "train-clean-100.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(PipelineError, match=f"say root: {tmp_path}/train-clean-100.tar.gz to read that"):
        contents_of(str(tmp_path))
