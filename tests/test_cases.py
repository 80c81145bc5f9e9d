"""Inputs as people have them, each a folder of ``cases/``: nothing is cut, mixed up, blamed or passed over in silence.

What a case has to show is asserted in full: counts, lengths, texts and messages.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

import melmill
from melmill.stages.formats.containers import ffmpeg
from melmill.stages.numeric.errors import Unusable
from tests.flows.conftest import Project

SERIAL = ("--executor", "serial")


class Case(Project):
    """A copy of a case, to be run in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store = folder / "st"
        self.pipeline = Path("p.yaml")

    def made(self, *arguments: str, quarantined: int = 0) -> dict[str, Any]:
        """Run the pipeline in this process. Return its answer, and check how many are in quarantine."""
        answer = self.run(*SERIAL, *arguments)
        assert (answer["tasks"]["failed"], answer["quarantined"]) == (0, quarantined)
        return answer

    def quarantine(self) -> Mapping[str, str]:
        """Return the reason of each utterance in quarantine."""
        found = json.loads(self.called("quarantine", str(self.store), "--json").stdout)["quarantined"]
        return {one["utterance_id"]: one["reason"] for one in found}

    def lengths(self) -> Mapping[str, int]:
        """Return the number of samples of each stored utterance."""
        view = melmill.open(str(self.store))["speech"]
        return {name: len(view[name]) for name in view}

    def texts(self, store: str = "st") -> Mapping[str, tuple[str, str]]:
        """Return text and speaker of each utterance."""
        table = melmill.open(str(self.folder / store)).utterances()
        rows = table[["utterance_id", "text", "speaker_id"]].astype(str).to_numpy().tolist()
        return {name: (text, speaker) for name, text, speaker in rows}

    def refused(self, *arguments: str) -> str:
        """Return the one line of a run that does not begin."""
        return one_line(self.called("run", "p.yaml", *SERIAL, *arguments))


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the error of a command that was refused."""
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def case(real_data: Path, tmp_path: Path) -> Callable[[str], Case]:
    """Return a function that copies a case by its number."""

    def copied(number: str) -> Case:
        found = list((real_data / "cases").glob(f"{number}-*"))
        if not found:
            pytest.skip(f"no case {number} at {real_data / 'cases'}: set MELMILL_REAL_DATA to the folder that holds it")
        folder = tmp_path / "case"
        shutil.copytree(found[0], folder, copy_function=shutil.copyfile)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        return Case(folder)

    return copied


def test_01_an_mp3_of_variable_rate_is_stored_whole(case: Callable[[str], Case]) -> None:
    made = case("01")
    made.made()
    # 3.1 s at 16 kHz, and 3 s at 44.1 kHz with the padding of the encoder.
    assert made.lengths() == {"a": 49_536, "b44": 48_484}
    assert made.quarantine() == {}


def test_03_a_header_of_a_pipe_claims_nothing(case: Callable[[str], Case]) -> None:
    made = case("03")
    subprocess.run([sys.executable, "make.py"], cwd=made.folder, check=True)
    # One minute, and no claim of hours.
    assert "3 utterances, 0.02 h of audio" in made.called("plan", "p.yaml").stdout
    made.made()
    assert made.lengths() == {"dash": 320_000, "ok": 320_000, "sox": 320_000}
    view = melmill.open(str(made.store))["speech"]
    assert np.array_equal(view["sox"], view["ok"])
    assert np.array_equal(view["dash"], view["ok"])


def test_04_a_rate_of_zero_harms_its_file_alone(case: Callable[[str], Case]) -> None:
    made = case("04")
    answer = made.made(quarantined=1)
    assert answer["utterances"] == 2
    reasons = made.quarantine()
    assert list(reasons) == ["rate0"]
    assert "header says 0 Hz" in reasons["rate0"]
    assert made.lengths() == {"ok": 8000}


def test_07_floats_past_full_scale_are_refused(case: Callable[[str], Case]) -> None:
    made = case("07")
    made.made(quarantined=2)
    reasons = made.quarantine()
    assert sorted(reasons) == ["int_as_float", "over"]
    assert "16-bit integers stored as floats: divide by 32768" in reasons["int_as_float"]
    assert "351 of 8,000 samples (4.4 %) would be clipped, 1 % may be" in reasons["over"]
    assert made.lengths() == {"ok": 8000}
    y, _ = soundfile.read(made.folder / "c" / "int_as_float.wav", dtype="float32")
    with pytest.raises(Unusable, match="divide by 32768"):
        melmill.mel(y)


def test_08_files_of_other_formats_are_read(case: Callable[[str], Case]) -> None:
    pytest.importorskip("av", reason="FFmpeg reads these: pip install 'melmill[av]'")
    made = case("08")
    answer = made.made()
    assert (answer["utterances"], answer["notes"]) == (9, [])
    assert set(made.lengths()) == {f"u{i}" for i in range(9)}


def test_08_files_of_other_formats_are_counted(case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch) -> None:
    made = case("08")
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    said = "5 files are audio by their names but not read: 4 .m4a, 1 .wma; pip install 'melmill[av]'"
    assert said in made.called("plan", "p.yaml").stdout.replace("\n", " ")
    answer = made.made()
    assert any(said in note for note in answer["notes"])
    # SPHERE needs no package.
    assert set(made.lengths()) == {"u0", "u1", "u2", "u8"}


def test_09_channels_are_mixed_aloud_or_chosen(case: Callable[[str], Case]) -> None:
    made = case("09")
    answer = made.made(quarantined=1)
    assert any("mixed 2 files of 2 channels; say channel:" in note for note in answer["notes"])
    assert any("1 file lost 6 dB or more when mixed" in note and "left" in note for note in answer["notes"])
    reason = made.quarantine()["opposed"]
    assert "channels cancel when mixed: correlation -1.00" in reason
    assert "silent" not in reason
    mixed = np.array(melmill.open(str(made.store))["speech"]["left"], dtype=float)
    # All three have a left channel, at its level.
    made.made("--set", "speech.channel=left")
    assert made.lengths() == {"call": 8000, "left": 8000, "opposed": 8000}
    left = np.array(melmill.open(str(made.store))["speech"]["left"], dtype=float)
    assert np.max(np.abs(left - 2 * mixed)) <= 2
    # By number: each speaker of the call is had alone, as is each of the opposed channels.
    wavs = {name: soundfile.read(made.folder / "c" / f"{name}.wav", dtype="int16")[0] for name in ("call", "opposed")}
    for number in (0, 1):
        # The right channel of the file that has speech on the left alone is silent.
        answer = made.made("--set", f"speech.channel={number}", quarantined=number)
        assert not any("mixed" in note for note in answer["notes"])
        view = melmill.open(str(made.store))["speech"]
        for name, samples in wavs.items():
            np.testing.assert_array_equal(view[name], samples[:, number], name)
    assert set(made.quarantine()) == {"left"}
    made.made("--set", "speech.channel=refuse", quarantined=3)
    reasons = made.quarantine()
    assert set(reasons) == {"call", "left", "opposed"}
    assert all("the file has 2 channels, and channel: refuse takes none" in reason for reason in reasons.values())


def test_11_no_column_is_taken_for_a_text(case: Callable[[str], Case]) -> None:
    made = case("11")
    assert "columns must say what is in 'metadata.csv': line 1 is 'wavs/a1.wav', 'text 1', '225'" in made.refused()
    expected = {f"wavs--a{i}": f"text {i}" for i in (1, 2, 3)}
    made.made("--set", "speech.columns=[path, text, speaker]")
    assert made.texts() == {name: (text, str(224 + int(name[-1]))) for name, text in expected.items()}
    shutil.copy(made.folder / "coqui.csv", made.folder / "c" / "metadata.csv")
    made.made("--store", "st_coqui")
    assert made.texts("st_coqui") == {name: (text, "@ann") for name, text in expected.items()}
    shutil.copy(made.folder / "everyvoice.csv", made.folder / "c" / "metadata.csv")
    assert "5 columns without a header; write columns:" in made.refused("--store", "st_everyvoice")
    manifest = ("--set", "speech.manifest=train.txt", "--store", "st_m")
    assert "columns must say what is in 'train.txt'" in made.refused(*manifest)
    made.made(*manifest, "--set", "speech.columns=[path, text, speaker]")
    assert made.texts("st_m") == {"wavs--a1": ("text 1", "225"), "wavs--a2": ("text 2", "226")}


def test_12_texts_that_change_reach_the_store(case: Callable[[str], Case]) -> None:
    made = case("12")
    table = made.folder / "c" / "metadata.csv"
    text = table.read_text()
    table.unlink()
    made.made()
    assert {text for text, _ in made.texts().values()} == {""}
    table.write_text(text)
    answer = made.made()
    assert answer["tasks"]["run"] == 0
    assert "speech: 3 texts changed (3 added); the catalogue follows" in answer["notes"]
    assert [text for text, _ in made.texts().values()] == ["one", "two", "three"]
    table.write_text(text.replace("one", "one MENDED"))
    answer = made.made()
    assert answer["tasks"]["run"] == 0
    assert "speech: 1 text changed; the catalogue follows" in answer["notes"]
    assert [text for text, _ in made.texts().values()] == ["one MENDED", "two", "three"]


def test_14_a_name_of_two_files_gives_its_text_to_neither(case: Callable[[str], Case]) -> None:
    made = case("14")
    notes = " ".join(made.made()["notes"])
    assert "0 of 2 utterances have texts" in notes
    assert "line 1 '001' fits 's1/001.wav', 's2/001.wav'; write paths" in notes
    assert {text for text, _ in made.texts().values()} == {""}


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("hf", {"wavs--a1": "one", "wavs--a2": "two, three"}),
        ("vctk", {"wav48_silence_trimmed--p225--p225_001_mic1": "Please."}),
        ("timit", {"TRAIN--DR1--FAAA0--SA1": "She had it."}),
    ],
)
def test_15_texts_are_found_where_they_lie(case: Callable[[str], Case], root: str, expected: dict[str, str]) -> None:
    made = case("15")
    n = len(expected)
    assert made.made("--set", f"speech.root={root}")["notes"] == [f"speech: {n} of {n} utterances have texts"]
    assert {name: text for name, (text, _) in made.texts().items()} == expected


@pytest.mark.parametrize("retried", [False, True])
def test_19_an_empty_file_that_is_fetched_again_is_taken(case: Callable[[str], Case], retried: bool) -> None:
    made = case("19")
    whole = (made.folder / "c" / "a.wav").read_bytes()
    (made.folder / "c" / "b.wav").write_bytes(b"")
    made.made(quarantined=1)
    assert made.quarantine() == {"b": "file is empty (0 bytes)"}
    (made.folder / "c" / "b.wav").write_bytes(whole)
    if retried:
        assert made.called("quarantine", str(made.store), "--retry").returncode == 0
    answer = made.made()
    # Its own shard, and the one that a retry dropped.
    assert answer["tasks"]["run"] == 1 + retried
    assert "speech: 1 mended, to be made for the first time: b.wav" in answer["notes"]
    assert made.lengths() == {"a": 8000, "b": 8000}
    assert made.quarantine() == {}


def test_20_a_removed_file_redoes_nothing(case: Callable[[str], Case]) -> None:
    made = case("20")
    made.made()
    before = made.bytes()
    (made.folder / "c" / "b.wav").unlink()
    error = made.refused()
    assert "gone since it was catalogued: b.wav" in error
    assert "Add --follow" in error
    answer = made.made("--follow")
    assert (answer["tasks"]["run"], answer["utterances"]) == (0, 1)
    assert any("1 removed, left out of all results: b.wav" in note for note in answer["notes"])
    assert made.lengths() == {"a": 8000}
    now = made.bytes()
    assert {name for name in before if now.get(name) != before[name]} <= {"melmill.json"}
    assert made.made()["tasks"]["run"] == 0


def test_22_one_mel_of_another_scale_harms_itself_alone(case: Callable[[str], Case]) -> None:
    made = case("22")
    made.made("--set", "max_quarantined=100 %", quarantined=1)
    reasons = made.quarantine()
    assert list(reasons) == ["u1"]
    assert "its values are -9.76054 to 73.6899" in reasons["u1"]
    assert "they look like log: db" in reasons["u1"]
    view = melmill.open(str(made.store))["v"]
    assert set(view) == {"u0", "u2"}
    assert all(np.any(view[name]) for name in view)
    with pytest.raises(Unusable, match="they look like log: db"):
        melmill.invert(np.load(made.folder / "mels" / "u1.npy"), preset="hifigan")


def test_22_a_run_with_too_many_of_them_says_so(case: Callable[[str], Case]) -> None:
    made = case("22")
    done = made.called("run", "p.yaml", *SERIAL)
    assert done.returncode == 1
    assert "error: 1 of 3 utterances are in quarantine (33.3%), more than max_quarantined = 1.0% allows" in done.stderr
    assert "Traceback" not in done.stderr


def test_23_wrapped_generators_are_unwrapped(
    case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = case("23")
    monkeypatch.chdir(made.folder)
    runpy.run_path("make.py")
    names = ("official", "module", "lightning", "everyvoice", "coqui", "orig_mod", "module_orig")
    assert capsys.readouterr().out.splitlines() == [f"{name} ok" for name in names]


@pytest.mark.slow
def test_24_computing_goes_on_without_room_for_a_cache(case: Callable[[str], Case]) -> None:
    made = case("24")
    env = made.environment()
    subprocess.run([sys.executable, "read_only.py"], cwd=made.folder, env=env, check=True)
    temporary = made.folder / "temporary"
    temporary.mkdir()
    bare = {name: value for name, value in env.items() if name not in {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}}
    bare |= {"HOME": "/dev/null", "TMPDIR": str(temporary)}
    bare["PYTHONPATH"] = os.pathsep.join([str(made.folder / "site"), env["PYTHONPATH"]])
    done = subprocess.run(
        made.command("run", "p.yaml", *SERIAL), cwd=made.folder, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1
    assert "2 utterances, 0 quarantined" in done.stderr + done.stdout
    assert made.quarantine() == {}
    assert set(melmill.open(str(made.store))["mel"]) == {"a", "b"}
    # A run with a cache finds nothing to retry.
    again = subprocess.run(
        made.command("run", "p.yaml", *SERIAL, "--json"),
        cwd=made.folder,
        env=bare | {"NUMBA_CACHE_DIR": str(made.folder / "nc")},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(again.stdout)
    assert (answer["tasks"]["run"], answer["quarantined"]) == (0, 0)
    # A single mel is made too, with one warning, and it is that of the run.
    single = subprocess.run(
        made.command("mel", "make", "c/a.wav", "-o", "a.npy", "--preset", "paper"),
        cwd=made.folder,
        env=bare,
        capture_output=True,
        text=True,
        check=False,
    )
    assert single.returncode == 0, single.stderr
    assert single.stderr.count("NUMBA_CACHE_DIR") == 1
    assert "Traceback" not in single.stderr
    np.testing.assert_array_equal(np.load(made.folder / "a.npy"), melmill.open(str(made.store))["mel"]["a"])


@pytest.mark.parametrize("home", ["~", "$HOME"])
def test_25_a_home_is_no_folder_of_that_name(
    case: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    made = case("25")
    there = made.folder / "home"
    there.mkdir()
    monkeypatch.setenv("HOME", str(there))
    shutil.copytree(made.folder / "c", there / "c")
    done = made.called("run", "p.yaml", *SERIAL, "--set", f"store={home}/runs", "--set", f"speech.root={home}/c")
    assert not (made.folder / home).exists()
    if home == "~":
        assert done.returncode == 0, done.stderr
        made.store = there / "runs"
        assert made.lengths() == {"a": 8000}
    else:
        one_line(done)
        assert "$HOME" in done.stderr
    assert made.called("run", "p.yaml", *SERIAL).returncode == 0
    assert (there / "runs" / "melmill.json").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name: "a\x01"\n', "p.yaml:1: not valid YAML: it holds the control character '\\x01'"),
        ("? [a]\n: b\n", "p.yaml:1: a key must be text, got a list"),
        ("name: x\nstore: st\nstages: &a\n  x: *a\n", "p.yaml:3: an alias can't stand for a value that holds"),
        (
            "shard_duration_s: .inf\nname: x\nstore: st\nstages:\n  speech: {uses: audio_folder, root: c}\n",
            "p.yaml:1: a number must be finite, got '.inf'",
        ),
    ],
)
def test_27_yaml_that_means_nothing_is_one_line(case: Callable[[str], Case], text: str, expected: str) -> None:
    made = case("27")
    (made.folder / "p.yaml").write_text(text)
    assert expected in one_line(made.called("plan", "p.yaml"))


def test_28_files_of_another_system_are_scored(case: Callable[[str], Case]) -> None:
    made = case("28")
    answer = made.made("--set", "scores.metrics=[estoi, si_sdr, scm]")
    assert "scores: 2 of 2 pairs differ in length by a hop at most, and are cut to the shorter" in answer["notes"]
    scores = melmill.open(str(made.store)).scores()
    assert list(scores["utterance_id"]) == ["u0", "u2"]
    assert set(scores["node"]) == {"gen"}
    pd.testing.assert_series_equal(scores["estoi"].round(3), pd.Series([0.896, 0.960], name="estoi"), check_dtype=False)
    assert scores["si_sdr_db"].between(25, 31).all()
    # A recording that the system did not make is listed.
    (made.folder / "gen" / "u2.wav").unlink()
    answer = made.made("--set", "scores.metrics=[estoi, si_sdr, scm]", "--store", "st_less")
    scores = melmill.open(str(made.folder / "st_less")).scores()
    assert "u2" in " ".join(answer["notes"])
    assert list(scores["status_estoi"]) == ["ok", "missing_estimate"]
    assert list(scores["estoi"].isna()) == [False, True]
    # Lengths that differ by more than a hop are an error, or are cut when asked.
    y, sr = soundfile.read(made.folder / "gen" / "u0.wav", dtype="int16")
    soundfile.write(made.folder / "gen" / "u0.wav", y[: -sr // 4], sr)
    metrics = ("--set", "scores.metrics=[estoi, si_sdr, scm]", "--until", "scores")
    answer = made.made(*metrics, "--store", "st_short")
    assert "get the status error: u0" in " ".join(answer["notes"])
    scores = melmill.open(str(made.folder / "st_short")).scores()
    assert list(scores["status_estoi"]) == ["error", "missing_estimate"]
    assert scores["estoi"].isna().all()
    answer = made.made(*metrics, "--store", "st_short", "--set", "scores.lengths=cut")
    assert "and are cut too: u0" in " ".join(answer["notes"])
    scores = melmill.open(str(made.folder / "st_short")).scores()
    assert list(scores["status_estoi"]) == ["ok", "missing_estimate"]
    assert scores["estoi"][0] == pytest.approx(0.896, abs=0.03)
