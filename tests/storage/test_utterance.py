"""Tests of `melmill.storage.utterance`."""

from __future__ import annotations

import pickle

import pytest

from melmill.storage.utterance import Utterance

ONE = Utterance(
    utterance_id="84-121123-0000",
    subset="dev-clean",
    speaker_id="84",
    chapter_id="121123",
    text="GO DO YOU HEAR",
    path="dev-clean/84/121123/84-121123-0000.flac",
    size_bytes=1000,
    mtime_ns=1,
    source_sr=16000,
    source_n_samples=32000,
    sr=16000,
    n_samples=32000,
)


def test_the_stamp_of_its_files_makes_no_other_utterance() -> None:
    stamped = ONE._replace(text_stamp=7)
    assert stamped == ONE
    assert not stamped != ONE  # noqa: SIM202 - a tuple has an inequality of its own
    assert hash(stamped) == hash(ONE)
    assert pickle.loads(pickle.dumps(stamped)).text_stamp == 7


@pytest.mark.parametrize("field", [name for name in Utterance._fields if name != "text_stamp"])
def test_any_other_field_makes_another_utterance(field: str) -> None:
    assert ONE._replace(**{field: "another"}) != ONE  # type: ignore[arg-type]


def test_it_is_no_plain_tuple_and_does_not_change() -> None:
    assert tuple(ONE) != ONE
    with pytest.raises(AttributeError):
        ONE.text = "another"  # type: ignore[misc]
