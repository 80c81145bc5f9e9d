"""What records say of how fast nodes were."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from melmill.flows.tasks.throughput import occupied_s, throughput
from melmill.storage.records import Record


def record(begun_s: float, wall_s: float, worker: str = "1", **fields: object) -> Record:
    known: dict[str, object] = {
        "node": "voc", "key": "k", "name": f"{begun_s}", "n_utterances": 2, "absent": (), "n_quarantined": 0,
        "files": {}, "duration_s": 10.0, "compute_s": 1.0, "started_at": f"2026-01-01T00:00:{begun_s:06.3f}+00:00",
        "host": "h", "attempt": 1, "versions": {}, "worker": worker, "wall_s": wall_s,
    }  # fmt: skip
    return Record(**known | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], 0.0),
        ([record(5, 2)], 2.0),
        ([record(1, 2), record(4, 2)], 4.0),  # nothing between them
        ([record(1, 2), record(2, 2)], 3.0),  # one is read while the other is computed
        ([record(2, 2), record(1, 2)], 3.0),  # records come in the order of shards
        ([record(1, 5), record(2, 1), record(3, 4)], 6.0),  # one begins and ends within another
        ([record(1, 2), record(1, 2, worker="2")], 4.0),
        ([record(1, 2), record(1, 2, host="other")], 4.0),
        ([record(1.25, 0.5), record(1.5, 0.5)], 0.75),
    ],
)
def test_a_workers_moments_count_once(records: Sequence[Record], expected: float) -> None:
    assert occupied_s(records) == pytest.approx(expected)


def test_a_row_tells_what_was_done_where_and_for_how_long() -> None:
    first = record(1, 2, busy_s=0.5, device="cuda (X)", pool="gpu", peak_mem_bytes=7)
    table = throughput(
        {"voc": [first, record(2, 2, busy_s=1.0, device="cuda (X)", pool="gpu (any)")], "mel": [record(1, 1)]}
    )
    voc, mel = table.to_dict("records")
    assert voc == {
        "node": "voc", "shards": 2, "utterances": 4, "audio_s": 20.0, "compute_s": 2.0, "wall_s": pytest.approx(3.0),
        "busy_s": 1.5, "pool": "gpu, gpu (any)", "device": "cuda (X)",
        "peak_mem_bytes": 7,
    }  # fmt: skip
    assert (mel["node"], mel["pool"]) == ("mel", "")
    assert math.isnan(mel["busy_s"])
