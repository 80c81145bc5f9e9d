"""How a run is doing, as its driver last wrote to the store: what no record can tell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["running", "done", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Say what a run's driver knows and the records don't. Nothing is resumed from it.

    Parameters
    ----------
    run_id, project : str
    host, pid : str, int
        Where the driver runs.
    state : {"running", "done", "failed", "interrupted"}
        A driver that was killed leaves ``running``, with an old `updated_at`.
    started_at, updated_at : str
        ISO 8601, UTC.
    nodes : mapping of str to mapping
        By node of the run: ``pending``, ``in_flight``, ``done``, ``failed``, ``retried``, ``deaths``, ``stalled``.
    failures, stalled : sequence of mapping
        The last tasks given up (``node, shard, reason``), and the tasks that stall now (``node, shard, utterance,
        worker, host, running_s``).
    """

    run_id: str
    project: str
    host: str
    pid: int
    state: State
    started_at: str
    updated_at: str
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: Sequence[Mapping[str, Any]] = ()
    stalled: Sequence[Mapping[str, Any]] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def to_json(self) -> bytes:
        """Return the state as the bytes of its file."""
        return (json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> RunState | None:
        """Return the state of a file's bytes; None where they are none: it is news, not truth."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError):
            return None
