"""Files of any name are taken, or passed over by name: they never end a run, or make it wait."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmill.stages.ingest.folder import LONGEST_ID, utterance_id
from tests.flows.conftest import Project, flac, voice

PIPELINE = """\
name: test
store: {store}
stages:
  speech: {{uses: audio_folder, root: {root}}}
  mel:    {{uses: extract, from: speech}}
"""
MELS = "name: test\nstore: {store}\nstages:\n  mel: {{uses: mel_folder, root: {root}, preset: paper}}\n"
# Letters of a script whose vowels are marks, and accents that stand by themselves, make ids of
# their own.
NAMES = [
    *("a.WAV", "line\nend.wav", "tab\t.Flac", "esc\x1b[31m.flac", "sp .flac", "trail.flac ", "#%?*[x].flac"),
    *("CON.flac", "e\u0301.flac", "e\u0300.flac", "é.flac", "की.flac", "का.flac", "case.flac", "CASE.flac"),
    *("~/x.flac", "$HOME.flac", "-rf.flac", "a\\b.flac", "dir.wav/in.flac", "a..flac", "n" * 250 + ".flac"),
    # the exported name would have 256 bytes
    "n" * 247 + ".mp3.au",
    "ü" * 125 + ".au",
    *("/".join(["d" * 60] * 4 + [last]) for last in ("a.flac", "b.flac")),
]
PASSED_OVER = [
    r"note: {}: 1 passed over, name that is not UTF-8 (rename it): 'caf\xe9{}'",
    "note: {}: 2 passed over, named pipe: 'metadata.csv', 'pipe{}'",
    "note: {}: 1 passed over, link that can't be followed (Too many levels of symbolic links): 'loop{}'",
    "note: {}: 1 passed over, hidden by a dot: '.hidden{}'",
]


def fill(root: Path, names: list[str], data: bytes, suffix: str) -> None:
    """Write files of odd names, and what can't be taken."""
    for name in [*names, f".hidden{suffix}", f"._a{suffix}", os.fsdecode(b"caf\xe9" + suffix.encode())]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    os.mkfifo(root / f"pipe{suffix}")
    os.mkfifo(root / "metadata.csv")
    (root / f"loop{suffix}").symlink_to(f"loop{suffix}")


def check_notes(said: str, node: str, suffix: str) -> None:
    notes = [line for line in said.splitlines() if line.startswith("note: ")]
    for expected in PASSED_OVER:
        assert expected.format(node, suffix) in notes


def test_names_of_any_characters_go_through_a_run_and_an_export(project: Project, tmp_path: Path) -> None:
    project.root = tmp_path / "odd"
    fill(project.root, NAMES, flac(voice(0.3, 110.0, seed=0)), ".flac")
    project.write(PIPELINE)
    planned = project.called("plan", str(project.pipeline))
    ran = project.called("run", str(project.pipeline), "--executor", "serial")
    for done in (planned, ran):
        assert done.returncode == 0, done.stderr
        check_notes(done.stdout, "speech", ".flac")
        assert f"{len(NAMES)} utterances" in done.stdout
    assert "0 quarantined" in ran.stdout
    out = tmp_path / "out"
    exported = json.loads(project.called("export", str(project.store), "speech", str(out), "--json").stdout)
    assert exported["written"] == len(NAMES)
    found = {str(path.relative_to(out)) for path in out.rglob("*.flac")}
    assert {"line\nend.flac", "e\u0301.flac", "की.flac", "trail.flac", "a..flac", "dir.wav/in.flac"} <= found
    assert all(len(path.rpartition("/")[2].encode()) <= 255 for path in found)
    assert all(soundfile.info(out / path).frames for path in found)
    again = json.loads(project.called("export", str(project.store), "speech", str(out), "--json").stdout)
    assert (again["written"], again["kept"]) == (0, len(NAMES))
    assert project.called("verify", str(project.store)).returncode == 0


def test_mels_of_any_name_are_taken(project: Project, tmp_path: Path) -> None:
    project.root = tmp_path / "odd"
    np.save(tmp_path / "mel.npy", np.zeros((80, 9), np.float32))
    names = ["a\nb.npy", "A.NPY", "x .npy", "#%?.npy", "n" * 251 + ".npy"]
    fill(project.root, names, (tmp_path / "mel.npy").read_bytes(), ".npy")
    project.write(MELS)
    ran = project.called("run", str(project.pipeline), "--executor", "serial")
    assert ran.returncode == 0, ran.stderr
    check_notes(ran.stdout, "mel", ".npy")
    assert f"{len(names)} utterances, 0 quarantined" in ran.stdout


def test_librispeech_takes_any_case_and_names_what_it_passes_over(project: Project) -> None:
    folder = project.root / "dev-clean" / "11" / "1"
    (folder / "11-1-0000.flac").rename(folder / "11-1-0000.FLAC")
    (folder / "11-1-0001.flac").rename(folder / "22-1-0001.flac")
    os.mkfifo(folder / "11-1-0001.flac")
    os.mkfifo(folder / "11-1.trans.txt")
    done = project.called("plan", str(project.pipeline))
    assert done.returncode == 0, done.stderr
    assert "15 utterances" in done.stdout
    form = "<speaker>/<chapter>/<speaker>-<chapter>-<nnnn>.flac"
    for note in (
        "2 passed over, named pipe: 'dev-clean/11/1/11-1-0001.flac', 'dev-clean/11/1/11-1.trans.txt'",
        f"1 passed over, not named {form}: 'dev-clean/11/1/22-1-0001.flac'",
    ):
        assert f"note: speech: {note}" in done.stdout.splitlines()


def test_init_names_what_a_run_would_pass_over(project: Project, tmp_path: Path) -> None:
    fill(tmp_path / "odd", ["a.flac"], flac(voice(0.3, 110.0, seed=0)), ".flac")
    done = project.called("init", str(tmp_path / "odd"), "--yes", "--output", str(tmp_path / "new.yaml"))
    assert done.returncode == 0, done.stderr
    assert "note: 2 passed over, named pipe: 'metadata.csv', 'pipe.flac'" in done.stdout.splitlines()


def test_a_folder_of_nothing_else_says_what_it_holds(project: Project, tmp_path: Path) -> None:
    fill(tmp_path / "odd", [], b"", ".wav")
    (tmp_path / "odd" / ".hidden.wav").unlink()
    project.root = tmp_path / "odd"
    project.write(PIPELINE)
    done = project.called("plan", str(project.pipeline))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "2 passed over, named pipe: 'metadata.csv', 'pipe.wav'" in done.stderr


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("की", "की"),
        ("e\u0301", "e\u0301"),
        ("a \n\t&b", "a_b"),
        ("s/e\u0301 1", "s--e\u0301_1"),
        ("n" * LONGEST_ID, "n" * LONGEST_ID),
        ("n" * (LONGEST_ID + 1), "n" * 191 + "-291c4194"),
    ],
)
def test_an_id_can_name_a_file(stem: str, expected: str) -> None:
    assert utterance_id(stem) == expected
    assert len(utterance_id(stem).encode()) <= LONGEST_ID
