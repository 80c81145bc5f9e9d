"""The state of a run: what is not one counts as none, as nothing depends on it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from melmill.storage.runs import RunState

STATE = RunState(
    run_id="20260101T000000000000",
    project="demo",
    host="here",
    pid=1,
    state="running",
    started_at="2026-01-01T00:00:00+00:00",
    updated_at="2026-01-01T00:00:10+00:00",
    nodes={"mel": {"pending": 1, "done": 2, "audio_s": 12.5}},
    failures=[{"node": "mel", "shard": 3, "reason": "ValueError: x"}, {"node": "report", "shard": None, "reason": ""}],
    stalled=[{"node": "mel", "shard": 1, "utterance": None, "worker": "w", "host": "h", "running_s": 3.0}],
)


def test_a_state_comes_back() -> None:
    found = RunState.from_json(STATE.to_json())
    assert found is not None
    assert replace(found) == STATE


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": [1]},
        {"nodes": {"mel": 3}},
        {"nodes": {"mel": {"done": "2"}}},
        {"failures": 3},
        {"failures": ["mel"]},
        {"failures": [{"node": "mel"}]},
        {"stalled": [{"node": "mel", "shard": 1}]},
        {"started_at": "yesterday"},
        {"updated_at": 7},
        {"updated_at": "2026-01-01T00:00:10"},
        {"state": "lost"},
        {"run_id": None},
    ],
)
def test_what_is_no_state_is_none(change: dict[str, object]) -> None:
    assert RunState.from_json(json.dumps({**STATE.as_dict(), **change}).encode()) is None
