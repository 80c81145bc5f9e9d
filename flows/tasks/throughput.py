"""What nodes worked through, and how fast, by their records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from melmill.storage.records import Record


def throughput(records: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """Return a row per node: what it worked through, where, and for how long, by its records.

    Parameters
    ----------
    records : mapping of str to sequence of Record
        By name of the node.

    Returns
    -------
    DataFrame
        Columns as in `melmill.stages.report.contract.ReportData.throughput`.
    """
    import pandas as pd

    rows = []
    for name, done in records.items():
        busy = [record.busy_s for record in done if record.busy_s is not None]
        row = {
            "node": name,
            "shards": len(done),
            "utterances": sum(record.n_utterances for record in done),
            "audio_s": sum(record.duration_s for record in done),
            "compute_s": sum(record.compute_s for record in done),
            "wall_s": occupied_s(done),
            "peak_mem_bytes": max((record.peak_mem_bytes for record in done), default=0),
            "busy_s": sum(busy) if busy else float("nan"),
            "pool": _distinct(record.pool for record in done),
            "device": _distinct(record.device for record in done),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def occupied_s(records: Iterable[Record]) -> float:
    """Return the time in which workers had tasks, summed over workers, s.

    Time in which one worker had several tasks counts once: a GPU computes on one shard while
    another is read.
    """
    total, ends = 0.0, dict[tuple[str, str], float]()
    for record in sorted(records, key=_start):
        worker, start = (record.host, record.worker), _start(record)
        busy_until, end = ends.get(worker, start), start + record.wall_s
        total += max(0.0, end - max(start, busy_until))
        ends[worker] = max(end, busy_until)
    return total


def _start(record: Record) -> float:
    return datetime.fromisoformat(record.started_at).timestamp()


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(sorted({name for name in names if name}))
