"""Plans and runs say what was clipped and mixed, from the records alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmill
from melmill.storage.records import Record, sealed, unsealed
from tests.flows.conftest import SR, Project, voice

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
max_quarantined: 1
stages:
  speech: {{uses: audio_folder, root: {root}}}
"""
MIXED = "speech: mixed 2 files of 2 channels; say channel: left, right or loudest to take one of them"
QUIETER = "speech: 1 file lost 6 dB or more when mixed, as where one channel is silent; worst: left, 6.0 dB"
CLIPPED = "speech: 1 file holds samples past full scale; 9 samples were clipped; worst: over, peak +2.0 dBFS"


@pytest.fixture
def levels(tmp_path: Path) -> Project:
    """Return a project on files of several channels and levels, in two shards or more."""
    made = Project(tmp_path)
    made.root.mkdir()
    y, z = voice(1.0, 110.0, 0) / 32768, voice(1.0, 190.0, 1) / 32768
    over = y.copy()
    over[100:109] = 1.2589
    files = {
        "call": np.stack([y, z], axis=1),
        "left": np.stack([y, 0 * y], axis=1),
        "opposed": np.stack([y, -y], axis=1),
        "over": over,
        "fine": z,
        "scaled": y * 32768,
    }
    for name, samples in files.items():
        soundfile.write(made.root / f"{name}.wav", samples, SR, subtype="FLOAT")
    made.write(PIPELINE)
    return made


def planned(project: Project) -> list[str]:
    done = project.called("plan", str(project.pipeline), "--json")
    assert done.returncode == 0, done.stderr
    notes: list[str] = json.loads(done.stdout)["notes"]
    return notes


def test_runs_and_plans_say_what_was_clipped_and_mixed(levels: Project) -> None:
    assert planned(levels) == []
    answer = levels.run("--executor", "serial")
    assert (answer["quarantined"], answer["tasks"]["run"] >= 2) == (2, True)
    assert answer["notes"] == [CLIPPED, MIXED, QUIETER]
    assert planned(levels) == answer["notes"]
    # Nothing is counted twice where shards are reused, also those with utterances in quarantine.
    again = levels.run("--executor", "serial")
    assert (again["tasks"]["run"], again["notes"]) == (0, answer["notes"])
    soundfile.write(levels.root / "new.wav", np.full((SR, 2), voice(1.0, 90.0, 2)[:, np.newaxis] / 32768), SR)
    assert levels.run("--executor", "serial")["notes"] == [
        "speech: 1 new: new.wav",
        CLIPPED,
        MIXED.replace("2 files", "3 files"),
        QUIETER,
    ]
    said = levels.called("run", str(levels.pipeline), "--executor", "serial").stdout
    assert f"note: {CLIPPED}\n" in said
    reasons = melmill.open(levels.store).quarantine().set_index("utterance_id")["reason"]
    assert reasons["opposed"].startswith("channels cancel when mixed")
    assert reasons["scaled"].endswith("divide by 32768")


def test_facts_of_shards_with_and_without_them_are_one_table(levels: Project) -> None:
    levels.run("--executor", "serial")
    (folder,) = (levels.store / "speech").iterdir()
    entry = melmill.open(levels.store).nodes["speech"]
    table = melmill.open(levels.store).product(entry.folder, entry.key).read_table("table").set_index("utterance_id")
    assert len(list((folder / "records").iterdir())) > 1
    assert table["n_clipped"].to_dict() == pytest.approx(
        {"call": np.nan, "fine": np.nan, "left": np.nan, "over": 9}, nan_ok=True
    )
    assert (table["channel"]["left"], table["mix_loss_db"]["left"]) == ("mix", 6.02)


def test_records_from_before_levels_count(levels: Project) -> None:
    levels.run("--executor", "serial")
    (folder,) = (levels.store / "speech").iterdir()
    for path in (folder / "records").iterdir():
        fields = unsealed(path.read_bytes())
        del fields["levels"]
        path.write_bytes(sealed(fields))
        record = Record.from_json(path.read_bytes())
        assert record is not None
        assert record.levels == {}
    again = levels.run("--executor", "serial")
    assert (again["tasks"]["run"], again["notes"]) == (0, [])


@pytest.mark.parametrize(
    ("channel", "quarantined", "notes"),
    [("left", {"scaled"}, [CLIPPED]), (1, {"over", "fine", "scaled", "left"}, []), ("loudest", {"scaled"}, [CLIPPED])],
)
def test_another_channel_is_taken_and_nothing_is_mixed(
    levels: Project, channel: str | int, quarantined: set[str], notes: list[str]
) -> None:
    answer = levels.run("--executor", "serial", "--set", f"speech.channel={channel}")
    assert answer["notes"] == notes
    assert set(melmill.open(levels.store).quarantine()["utterance_id"]) == quarantined


def test_an_unknown_channel_is_an_error_of_the_line(levels: Project) -> None:
    done = levels.called("plan", str(levels.pipeline), "--set", "speech.channel=lefft")
    assert done.returncode == 2
    assert "channel must be mix (the mean of all), left, right" in done.stderr
    assert "got 'lefft'; did you mean 'left'?" in done.stderr


REPORT = (
    PIPELINE + "  mel: {{uses: extract, from: speech}}\n  gla: {{uses: griffin_lim, from: mel, n_iter: 1}}\n"
    "  scores: {{uses: score, from: gla, against: speech, metrics: [sc]}}\n"
    "  report: {{uses: aggregate, from: scores, examples: 0}}\n"
)


def shown(page: Path, note: str) -> bool:
    """Return whether a report lists a note."""
    return f"<li>{note.replace('+', '&#43;')}</li>" in page.read_text() or f"<li>{note}</li>" in page.read_text()


def test_a_report_says_it_too(levels: Project) -> None:
    levels.write(REPORT)
    page = Path(levels.run("--executor", "serial")["report"])
    for note in (CLIPPED, MIXED, QUIETER):
        assert shown(page, note)


def test_what_is_gone_counts_no_more(levels: Project) -> None:
    # All in one shard, so that a record counts what is gone and what is not.
    levels.write(REPORT.replace("shard_duration_s: 3", "shard_duration_s: 300"))
    assert levels.run("--executor", "serial")["notes"] == [CLIPPED, MIXED, QUIETER]
    (levels.root / "over.wav").unlink()
    (levels.root / "left.wav").unlink()
    done = levels.called("plan", str(levels.pipeline), "--follow", "--json")
    gone = "speech: 2 removed, left out of all results: left.wav, over.wav"
    mixed = MIXED.replace("2 files", "1 file")
    assert json.loads(done.stdout)["notes"] == [gone, mixed]
    answer = levels.run("--executor", "serial", "--follow")
    assert answer["notes"] == [gone, mixed]
    assert planned(levels) == [mixed]
    page = Path(answer["report"])
    assert [shown(page, note) for note in (CLIPPED, MIXED, QUIETER, mixed)] == [False, False, False, True]


def test_a_rate_that_nobody_chose_is_told(project_of_rates: Project) -> None:
    project = project_of_rates
    note = (
        "speech: 2 of 3 recordings have 48,000 Hz, 44,100 Hz and are stored at 16,000 Hz: say sr: 48000 to keep all "
        "of it, or sr: 16000 if that is meant"
    )
    assert planned(project) == [note]
    assert project.run("--executor", "serial")["notes"] == [note]
    # It holds while the corpus and the pipeline are as they are.
    assert planned(project) == [note]
    # A rate that is written down is meant. It makes the same product.
    answer = project.run("--executor", "serial", "--set", "speech.sr=16000")
    assert (answer["tasks"]["run"], answer["notes"]) == (0, [])
    assert project.run("--executor", "serial", "--set", "speech.sr=48000")["notes"] == []


def test_init_chooses_a_rate_and_says_nothing_of_it(project_of_rates: Project, tmp_path: Path) -> None:
    made = tmp_path / "new.yaml"
    done = project_of_rates.called("init", str(project_of_rates.root), "--yes", "--output", str(made))
    assert done.returncode == 0, done.stderr
    assert "are stored at" not in done.stdout + made.read_text()


@pytest.fixture
def project_of_rates(tmp_path: Path) -> Project:
    """Return a project on files of three rates that says nothing of a rate."""
    made = Project(tmp_path)
    made.root.mkdir()
    for sr, f0 in ((16000, 110.0), (44100, 150.0), (48000, 190.0)):
        soundfile.write(made.root / f"{sr}.wav", voice(0.5, f0, 0), sr, subtype="PCM_16")
    made.write(PIPELINE)
    return made
