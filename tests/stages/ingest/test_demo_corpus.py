"""The demo corpus and the library that speaks it."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from numpy.typing import NDArray

from melmill.flows.cli.group import cli
from melmill.stages.contract import Outcome
from melmill.stages.ingest.demo.corpus import SR, make_demo_corpus, record, with_claimed_length
from melmill.stages.ingest.demo.espeak import Line, SynthesisError, speak
from melmill.stages.ingest.demo.script import SPEAKERS
from melmill.stages.ingest.readers.librispeech import LibriSpeech
from melmill.storage.files.sources import SourceTree
from melmill.storage.utterance import Utterance
from tests.stages.ingest.corpora import outcome_of

needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="eSpeak NG is missing: pip install melmill[demo]"
)


@pytest.fixture(scope="module")
def bad_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_corpus(tmp_path_factory.mktemp("demo"), with_bad_files=True)


def contents(corpus: Path) -> dict[str, bytes]:
    paths = (path for path in corpus.rglob("*") if path.is_file())
    return {path.relative_to(corpus).as_posix(): path.read_bytes() for path in paths}


def ingest(corpus: Path) -> dict[str, tuple[Utterance, Outcome]]:
    stage = LibriSpeech(root=str(corpus))
    tree = SourceTree(str(corpus))
    found = stage.discover(tree, {}).utterances
    return {u.utterance_id: (u, outcome_of(stage, u, tree.read(u.path))) for u in found}


@needs_espeak
def test_two_makings_give_the_same_bytes(tmp_path: Path) -> None:
    first = make_demo_corpus(tmp_path / "a", with_bad_files=True)
    time.sleep(
        1.1
    )  # the voices' breath would follow the clock, in seconds, were it not seeded; so would libsndfile's float WAV
    second = make_demo_corpus(tmp_path / "b", with_bad_files=True)
    assert contents(first) == contents(second)
    assert list(first.parent.iterdir()) == [first]  # nothing is left of the making


@needs_espeak
def test_corpus_is_speech_with_true_transcripts(bad_corpus: Path) -> None:
    good = {key: value for key, value in ingest(bad_corpus).items() if not key.startswith("bad-")}
    assert len(good) == 32
    assert len({u.speaker_id for u, _ in good.values()}) == 8
    assert {u.subset for u, _ in good.values()} == {"dev-clean", "test-clean"}
    assert 120 <= sum(u.duration_s for u, _ in good.values()) <= 150
    for utterance, outcome in good.values():
        assert outcome.array is not None
        assert outcome.row is not None
        spoken_s = utterance.duration_s - 0.6
        assert 1.5 <= len(utterance.text.split()) / spoken_s <= 5.0  # words a second of someone reading
        assert -30 < float(outcome.row["rms_db"] or 0) < -18
        assert float(outcome.row["peak_db"] or 0) < -0.5  # never clipped
        assert np.ptp(syllables(outcome.array)) > 30  # dB between vowel and pause: noise has no such range
    assert good["9002-500102-0001"][0].text == "THREE DRY SUMMERS TAUGHT THE VILLAGE TO SHARE ITS WELLS"


def syllables(y: NDArray[Any]) -> NDArray[Any]:
    """Return the level of each 25 ms in dB."""
    frames = y[: y.size // 400 * 400].reshape(-1, 400) / 32768
    return np.asarray(10 * np.log10(np.mean(frames**2, axis=1)))


@needs_espeak
def test_speakers_sound_different(bad_corpus: Path) -> None:
    tree = contents(bad_corpus)
    spectra = []
    for speaker in SPEAKERS:
        paths = [path for path in tree if f"/{speaker.speaker_id}/" in path and path.endswith(".flac")]
        y = np.concatenate([soundfile.read(io.BytesIO(tree[path]))[0] for path in sorted(paths)])
        frames = np.abs(np.fft.rfft(y[: y.size // 512 * 512].reshape(-1, 512)))[:, :128]
        spectra.append(20 * np.log10(np.mean(frames, axis=0)))
    distances = [np.std(a - b) for i, a in enumerate(spectra) for b in spectra[:i]]
    assert min(distances) > 2.5  # dB; two halves of one speaker differ by 1 to 2.4


@needs_espeak
def test_speakers_table_has_librispeechs_columns(bad_corpus: Path) -> None:
    lines = (bad_corpus / "SPEAKERS.TXT").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if not line.startswith(";")]
    assert [row[:3] for row in rows] == [[s.speaker_id, s.sex, s.subset] for s in SPEAKERS]
    assert sum(float(row[3]) for row in rows) == pytest.approx(2.25, abs=0.25)


@needs_espeak
def test_every_bad_file_is_refused_for_its_own_reason(bad_corpus: Path) -> None:
    bad = {u.chapter_id: outcome for u, outcome in ingest(bad_corpus).values() if u.speaker_id == "bad"}
    reasons = {kind: outcome.rejected.reason for kind, outcome in bad.items() if outcome.rejected is not None}
    starts = {
        "empty": "file is empty (0 bytes)",
        "endless": "header is not believable: it claims 2,147,483,647 samples in",
        "nan": "not finite:",
        "short": "the ",
        "silent": "silent: peak -inf dBFS",
        "text": "not decodable as audio: Format not recognised.",
        "truncated": "file is truncated or damaged: header says",
    }
    assert reasons.keys() == starts.keys()
    assert all(reason.startswith(starts[kind]) for kind, reason in reasons.items())
    assert "differ from the checksum in the FLAC header" in reasons["short"]


@needs_espeak
def test_complete_corpus_is_kept(tmp_path: Path) -> None:
    corpus = make_demo_corpus(tmp_path)
    inode = corpus.stat().st_ino
    assert make_demo_corpus(tmp_path) == corpus
    assert corpus.stat().st_ino == inode


@needs_espeak
def test_corpus_of_another_version_or_kind_is_made_again(tmp_path: Path) -> None:
    corpus = make_demo_corpus(tmp_path)
    whole = contents(corpus)
    (corpus / "DEMO.json").write_text('{"version": 0, "with_bad_files": false}')
    (corpus / "README.TXT").unlink()
    assert contents(make_demo_corpus(tmp_path)) == whole
    assert (make_demo_corpus(tmp_path, with_bad_files=True) / "dev-clean" / "bad").is_dir()
    assert contents(make_demo_corpus(tmp_path)) == whole
    assert list(tmp_path.iterdir()) == [corpus]


@needs_espeak
@pytest.mark.parametrize("after_s", [0.4, 0.6, 0.8])  # while importing, speaking or writing
def test_interrupted_making_is_made_again(tmp_path: Path, bad_corpus: Path, after_s: float) -> None:
    command = [sys.executable, "-m", "melmill", "fetch", "demo", str(tmp_path), "--with-bad-files"]
    maker = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.DEVNULL)
    time.sleep(after_s)
    maker.kill()
    maker.wait()
    corpus = tmp_path / "LibriSpeech"
    assert not corpus.exists() or contents(corpus) == contents(bad_corpus)
    assert contents(make_demo_corpus(tmp_path, with_bad_files=True)) == contents(bad_corpus)


def test_real_corpus_is_never_touched(tmp_path: Path) -> None:
    precious = tmp_path / "LibriSpeech" / "dev-clean" / "a.flac"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"x")
    with pytest.raises(FileExistsError, match="exists and is not a demo corpus: name another folder"):
        make_demo_corpus(tmp_path)
    assert precious.read_bytes() == b"x"


@needs_espeak
def test_command_prints_where_it_is(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["fetch", "demo", str(tmp_path)])
    assert (result.exit_code, result.output) == (0, f"{tmp_path / 'LibriSpeech'}\n")


def test_missing_espeak_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SynthesisError, match=r'not installed: pip install "melmill\[demo\]"'):
        make_demo_corpus(tmp_path)
    assert not (tmp_path / "LibriSpeech").exists()
    result = CliRunner().invoke(cli, ["fetch", "demo", str(tmp_path)])
    assert result.exit_code == 1
    assert 'pip install "melmill[demo]"' in result.output


@needs_espeak
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_come_whole_through_a_pipe(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    line = Line(text="Hello.", voice="en-us", rate_wpm=150, pitch=50)
    assert [wave.size > 2000 for wave in speak([line, line])] == [True, True]


@needs_espeak
def test_voice_that_is_not_there_is_named() -> None:
    line = Line(text="Hello.", voice="xx-nowhere", rate_wpm=150, pitch=50)
    with pytest.raises(SynthesisError, match=r"voice 'xx-nowhere' did not speak 'Hello\.'"):
        speak([line])


def test_recording_has_its_level_and_room_tone() -> None:
    t = np.arange(22050) / 22050
    y = record((8000 * np.sin(2 * np.pi * 300 * t)).astype(np.int16), level_db=-20.0, seed=3) / 32768
    assert y.size == SR + 2 * 4800
    assert 10 * np.log10(np.mean(y[4800:-4800] ** 2)) == pytest.approx(-20.0, abs=0.05)
    assert 10 * np.log10(np.mean(y[:4800] ** 2)) == pytest.approx(-60.0, abs=1.0)


def test_claimed_length_alone_is_edited() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1000, dtype=np.int16), 22050, format="FLAC")
    edited = with_claimed_length(file.getvalue(), 12345)
    info = soundfile.info(io.BytesIO(edited))
    assert (info.frames, info.samplerate, info.channels, info.subtype) == (12345, 22050, 1, "PCM_16")
