"""Corpora with files that no reader takes, and with files whose headers do not know their length."""

from __future__ import annotations

import struct

import pytest

import melmill
from melmill.stages.formats.audio import decode
from melmill.stages.formats.containers import ffmpeg
from tests.flows.conftest import Project
from tests.stages.formats.containers.made import by_ffmpeg, by_libsndfile, noisy_tone

PIPELINE = """\
name: test
store: {store}
max_quarantined: 100 %
stages:
  speech: {{uses: audio_folder, root: {root}}}
"""


def fill(project: Project, files: dict[str, bytes]) -> None:
    project.root.mkdir(exist_ok=True)
    for path in project.root.rglob("*.*"):
        path.unlink()
    for name, data in files.items():
        (project.root / name).write_bytes(data)
    project.write(PIPELINE)


def test_plan_and_run_say_what_is_passed_over(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    good = by_libsndfile(noisy_tone(16000), "WAV", "PCM_16")
    fill(project, {"a.wav": good, "b.M4A": b"?", "c.m4a": b"?", "d.wma": b"?", "e.dsf": b"?"})
    expected = (
        "note: speech: 3 files are audio by their names but not read: 2 .m4a, 1 .wma; pip install 'melmill[av]' to "
        "read them"
    )
    for command in (["plan"], ["run", "--executor", "serial"]):
        done = project.called(command[0], str(project.pipeline), *command[1:])
        assert done.returncode == 0, done.stderr
        said = " ".join((done.stdout + done.stderr).split())
        assert expected in said
        assert "note: speech: 1 file is audio by its name but not read: 1 .dsf; convert it" in said
    assert list(melmill.open(str(project.store))["speech"]) == ["a"]


def test_every_recording_is_stored_whole_or_in_quarantine(project: Project) -> None:
    y = noisy_tone(48000)
    wav, ogg = by_libsndfile(y, "WAV", "PCM_16"), by_libsndfile(y, "OGG", "OPUS")
    vbr = by_ffmpeg(y, 16000, "mp3", "libmp3lame", variable=True, write_xing="0")
    fill(
        project,
        {
            "vbr.mp3": vbr,
            "piped.wav": wav[:40] + struct.pack("<I", 0x7FFFF000) + wav[44:],
            "chained.opus": ogg + ogg,
            "sphere.sph": by_libsndfile(y, "NIST", "PCM_16"),
            "cut_a.mp3": vbr[:-100],
            "cut_b.opus": ogg[:-1000],
            "cut_c.aiff": by_libsndfile(y, "AIFF", "PCM_16")[:-1000],
            "rate.wav": wav[:24] + bytes(4) + wav[28:],
        },
    )
    done = project.called("run", str(project.pipeline), "--executor", "serial")
    assert done.returncode == 0, done.stderr
    stored = melmill.open(str(project.store))["speech"]
    lengths = {name: len(stored[name]) for name in stored}
    assert lengths == {"vbr": len(decode(vbr)[0]), "piped": 48000, "chained": 96000, "sphere": 48000}
    said = project.called("quarantine", str(project.store), "--json").stdout
    assert said.count('"reason": "file is truncated') == 3
    assert "header says 0 Hz" in said
