"""How fast nodes were, from the records of their tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from melmill.storage.records import Record


def throughput(records: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Return a row a node: what it worked through, where, and for how long; see `Tables`."""
    import pandas as pd

    return pd.DataFrame([{"node": name, **_row(some)} for name, some in records.items()])


def _row(records: Sequence[Record]) -> dict[str, int | float | str]:
    busy = [record.busy_s for record in records if record.busy_s is not None]
    return {
        "shards": len(records),
        "utterances": sum(record.n_utterances for record in records),
        "audio_s": sum(record.duration_s for record in records),
        "compute_s": sum(record.compute_s for record in records),
        "wall_s": occupied_s(records),
        "peak_mem_bytes": max((record.peak_mem_bytes for record in records), default=0),
        "busy_s": sum(busy) if busy else float("nan"),
        "pool": _words(record.pool for record in records),
        "device": _words(record.device for record in records),
    }


def occupied_s(records: Iterable[Record]) -> float:
    """Return for how long workers had tasks under way, added over workers, s.

    A moment in which a worker had several counts once: a GPU computes on one shard while another is read or written.
    """
    total, ends = 0.0, dict[tuple[str, str], float]()
    for record in sorted(records, key=_begun):
        worker, begun = (record.host, record.worker), _begun(record)
        before, end = ends.get(worker, begun), begun + record.wall_s
        total += max(0.0, end - max(begun, before))
        ends[worker] = max(end, before)
    return total


def _begun(record: Record) -> float:
    return datetime.fromisoformat(record.started_at).timestamp()


def _words(found: Iterable[str]) -> str:
    return ", ".join(sorted({word for word in found if word}))
