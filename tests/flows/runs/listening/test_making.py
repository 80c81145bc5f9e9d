"""The folder of a listening test: blind, equally loud, the same for the same seed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.listening.making import sounds_of
from melmill.flows.runs.listening.page import read_public
from melmill.flows.runs.listening.stored import read_design
from melmill.stages.numeric.mels.loudness import integrated_loudness
from melmill.stages.score.listeners.kinds import REFERENCE
from melmill.storage.store import Store
from tests.flows.conftest import Project, voice
from tests.flows.runs.listening.conftest import Listening


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_mushra_has_the_hidden_reference_and_both_anchors_equally_loud(listening: Listening) -> None:
    design = listening.make("mushra")
    assert [one.name for one in design.systems] == ["gla", "admm", REFERENCE, "low anchor", "mid anchor"]
    for trial in design.trials:
        sounds = sounds_of(str(listening.folder / "mushra"), trial.name)
        assert set(sounds) == {*trial.stimuli, "reference"}
        assert len({(y.shape, sr) for y, sr in sounds.values()}) == 1
        for y, sr in sounds.values():
            assert integrated_loudness(y, sr) == pytest.approx(-23.0, abs=0.05)
            assert np.abs(y).max() < 10 ** (-1 / 20) + 1e-4
        named = {system: sounds[token][0] for token, system in trial.stimuli.items()}
        np.testing.assert_array_equal(named[REFERENCE], sounds["reference"][0])
        # The voice of the corpus has harmonics to 2 kHz and noise above.
        for anchor, cutoff_hz in (("low anchor", 4000), ("mid anchor", 7990)):
            f, power = scipy.signal.welch(named[anchor], 16000, nperseg=1024)
            _, whole = scipy.signal.welch(named[REFERENCE], 16000, nperseg=1024)
            above = (f > cutoff_hz * 1.02) if anchor == "low anchor" else f > 7900
            assert power[above].mean() < 1e-2 * whole[above].mean()


def test_the_folder_tells_nothing_of_systems_and_utterances(listening: Listening) -> None:
    design = listening.make("mushra", title="Which is better?")
    found = files(listening.folder / "mushra")
    assert set(found) == {"index.html", *(f"trials/{n:04d}.js" for n in (1, 2, 3))}
    secret = ["gla", "admm", *(trial.utterance_id for trial in design.trials), *(one.key for one in design.systems)]
    for name, data in found.items():
        # What a sound holds is no name: base64 may spell anything.
        text = re.sub(r'"[A-Za-z0-9+/=]{200,}"', "", data.decode())
        assert not [one for one in secret if one and one in text], name
    public = read_public(found["index.html"])
    assert public is not None
    assert public["title"] == "Which is better?"
    assert "default-src 'none'" in found["index.html"].decode()
    assert "://" not in found["index.html"].decode()


def test_the_same_seed_makes_the_same_test_and_another_one_another(listening: Listening, tmp_path: Path) -> None:
    first = listening.make("mushra")
    (listening.folder / "mushra").rename(tmp_path / "first")
    assert listening.make("mushra") == first
    assert files(tmp_path / "first") == files(listening.folder / "mushra")
    (listening.folder / "mushra").rename(tmp_path / "second")
    other = listening.make("mushra", seed=1)
    assert other.test_id != first.test_id
    assert [one.utterance_id for one in other.trials] != [one.utterance_id for one in first.trials]
    store = Store.open(str(listening.store))
    assert (read_design(store, first.test_id), read_design(store, other.test_id)) == (first, other)


def test_a_test_leaves_the_products_of_the_store_alone(listening: Listening, finished: Project) -> None:
    before = {address for address, _ in Store.open(str(finished.store)).products()}
    listening.make("abx")
    assert {address for address, _ in Store.open(str(listening.store)).products()} == before


@pytest.mark.parametrize(
    ("fields", "n_trials"),
    [
        ({"nodes": ("gla", "admm")}, 3),
        ({"nodes": ("gla", "admm", "speech")}, 9),  # all three pairs
        ({"nodes": ("gla", "admm", "speech"), "against": "speech"}, 6),
        ({"nodes": ("gla",)}, 3),  # against the recordings
        ({"nodes": ()}, 3),  # all that are scored
    ],
)
def test_paired_tests_compare_pairs(listening: Listening, fields: dict[str, Any], n_trials: int) -> None:
    design = listening.make("abx", **fields)
    assert len(design.trials) == n_trials
    assert all(len(trial.stimuli) == 2 for trial in design.trials)
    if fields["nodes"] == ("gla",):
        assert {*design.trials[0].stimuli.values()} == {"speech", "gla"}


def test_utterances_are_drawn_by_speaker_or_from_a_slice(listening: Listening) -> None:
    evenly = listening.make("abx", n=6, by="speaker")
    assert sorted(trial.speaker_id for trial in evenly.trials) == ["11"] * 3 + ["22"] * 3
    some = listening.make("cmos", n=2, speakers=("22",), utterances=("*-000?",))
    assert {trial.speaker_id for trial in some.trials} == {"22"}


def test_long_utterances_are_cut_and_said(listening: Listening) -> None:
    design = listening.make("preference", n=8, longest_s=1.0)
    assert any("are cut after 1 s" in note for note in design.notes)
    assert all(y.size <= sr for y, sr in sounds_of(str(listening.folder / "preference"), "0001").values())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"nodes": ("gla", "admn")}, r"has no node 'admn'; did you mean 'admm'\?"),
        ({"nodes": ("gla", "mel")}, r"node 'mel' makes mel, which nobody can hear \(nodes with audio: speech, gla"),
        ({"n": 17}, r"--n 17 needs as many utterances .* got 16 of 16: use --n 16"),
        ({"against": "speech"}, r"--against must be one of the nodes gla, admm, got 'speech'"),
        ({"speakers": ("33",)}, r"--speakers has '33', which no utterance has .*: 11, 22"),
        ({"nodes": ("speech",)}, r"compares two systems or more, got speech"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line(listening: Listening, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said) as caught:
        listening.make("abx", **fields)
    assert "\n" not in str(caught.value)
    assert not (listening.folder / "abx" / "index.html").exists()


def test_mushra_refuses_the_recordings_as_a_system(listening: Listening) -> None:
    with pytest.raises(PipelineError, match="'speech' is the hidden reference of the test already"):
        listening.make("mushra", nodes=("gla", "speech"))


def test_a_folder_with_a_test_is_left_alone(listening: Listening) -> None:
    listening.make("abx")
    with pytest.raises(PipelineError, match="holds a page already: write to another folder"):
        listening.make("abx")


def test_the_command_line_takes_names_with_commas_in_brackets(done: Project) -> None:
    answer = done.called("listen", str(done.store), "--nodes", "gla,admm[n_iter=2,rho=1]", "--test", "abx", "-o", "x")
    assert answer.returncode == 2
    assert "has no node 'admm[n_iter=2,rho=1]'" in answer.stderr


def test_files_of_other_systems_are_heard_with_their_recordings(tmp_path: Path) -> None:
    for folder, sign in (("ref", 1), ("est", -1)):
        (tmp_path / folder).mkdir()
        for at, name in enumerate(("one", "two", "three")):
            soundfile.write(tmp_path / folder / f"{name}.wav", sign * voice(1.0 + at / 10, 110.0 + 40 * at, at), 16000)
    project = Project(tmp_path)
    scored = project.called("score", "ref", "mine=est", "-o", "report", "-m", "scm", "-j", "1")
    assert scored.returncode == 0, scored.stderr
    made = project.called(
        "listen", "report/store", "--test", "abx", "--n", "2", "-o", "test", "--nodes", "mine", "--json"
    )
    assert made.returncode == 0, made.stderr
    answer = json.loads(made.stdout)
    assert answer["systems"] == [answer["reference"], "mine"]
    design = read_design(Store.open(str(tmp_path / "report" / "store")), answer["test"])
    assert design is not None
    for trial in design.trials:
        sounds = sounds_of(str(tmp_path / "test"), trial.name)
        named = {system: sounds[token][0] for token, system in trial.stimuli.items()}
        # The same voice with the other sign, so each is with its own.
        np.testing.assert_allclose(named["mine"], -named[answer["reference"]], atol=1e-4)
