"""What a training keeps next to its product: its state, its first utterances and its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.flows.tasks.training import TrainingFolder
from melmill.stages.task_context import TaskCancelled, current_task
from melmill.storage.files.location import Location


@pytest.fixture
def place(tmp_path: Path) -> TrainingFolder:
    return TrainingFolder(Location(str(tmp_path)), "tuned")


def test_a_state_replaces_the_last_one(place: TrainingFolder) -> None:
    assert place.load() is None
    assert place.stamp is None
    place.save(b"one")
    first = place.stamp
    place.save(b"the second")
    assert place.load() == b"the second"
    assert place.stamp != first


def test_a_noted_line_is_reported_and_kept(place: TrainingFolder) -> None:
    lines: list[str] = []
    place.note("nobody listens")
    with current_task("tuned", report=lines.append):
        place.note("step 1")
    place.note("nobody listens any more")
    assert lines == ["tuned: step 1"]
    said = [line.partition(" ")[2] for line in place.log.decode().splitlines()]
    assert said == ["nobody listens", "step 1", "nobody listens any more"]


def test_one_that_nobody_waits_for_ends_with_its_state_saved(place: TrainingFolder) -> None:
    with current_task("tuned", is_wanted=lambda: False):
        with pytest.raises(TaskCancelled):
            place.save(b"state")
        with pytest.raises(TaskCancelled):
            place.note("still here")
    assert place.load() == b"state"
    assert place.log == b""


def test_it_goes_on_with_the_utterances_that_it_began_with(place: TrainingFolder) -> None:
    assert list(place.begin(["a", "b"])) == ["a", "b"]
    # Nothing was saved yet, so nothing is lost by those that are new.
    assert list(place.begin(["a", "b", "c"])) == ["a", "b", "c"]
    place.save(b"state")
    assert list(place.begin(["a", "b", "c", "d"])) == ["a", "b", "c"]
    assert place.load() == b"state"


def test_it_starts_over_where_an_utterance_is_lost(place: TrainingFolder) -> None:
    place.begin(["a", "b"])
    place.save(b"state")
    assert list(place.begin(["b", "c"])) == ["b", "c"]
    assert place.load() is None
    assert b"starts over: 1 of the utterances that it began with are not in its inputs now" in place.log


def test_nothing_but_the_log_stays_of_one_that_is_done(place: TrainingFolder, tmp_path: Path) -> None:
    place.begin(["a"])
    place.save(b"state")
    place.note("done")
    place.end()
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["log.txt"]
