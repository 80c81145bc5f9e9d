"""Turns: who gets one, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from melmill.storage.files.location import Location
from melmill.storage.files.turns import Turns


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    return Location(str(tmp_path))


def test_the_last_number_counts_and_is_used_once(folder: Location) -> None:
    turns = Turns(folder, prefix="lock-")
    assert turns.last == 0
    assert turns.take(1, b"a")
    assert not turns.take(1, b"b")
    assert turns.take(2, b"b")
    turns.remove_before(2)
    # Who looked before that finds its number free, and is too late.
    assert not turns.take(1, b"c")
    assert folder.sizes() == {"lock-000002.json": 1}


def test_other_files_are_no_turns(folder: Location) -> None:
    turns = Turns(folder)
    for name in ("7.json", "lock-000008.json", "000009.beat", "x.json", "0000010.json"):
        folder.put(name, b"")
    assert turns.last == 0
    assert turns.take(1, b"a")
    turns.remove_before(1)
    assert len(folder.sizes()) == 6
