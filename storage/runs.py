"""The files of a run: its manifest, which says what its names mean, and its state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from melmill.storage.product import Address
from melmill.storage.reading.recordings import Recordings
from melmill.storage.records import sealed, unsealed


@dataclass(frozen=True, kw_only=True)
class NodeEntry:
    """Where the product of a node is, and what it holds.

    Parameters
    ----------
    folder, key : str
        Its place is ``<store>/<folder>/<key>``.
    kind : str
        ``utterances``, ``waveform``, ``mel``, ``scores`` or ``report``.
    stage : str
        Stage that made it.
    catalogues : tuple of (folder, key)
        Of the corpora whose utterances it has. A report may have several.
    scored : str or None
        Node whose waveforms were scored.
    recordings : Recordings or None
        Where the recordings of an ingest node lie, if they stay in the corpus.
    """

    folder: str
    key: str
    kind: str
    stage: str
    catalogues: tuple[Address, ...]
    scored: str | None = None
    recordings: Recordings | None = None

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> NodeEntry:
        """Return an entry of plain values, as `as_plain` gives them."""
        catalogues = tuple((folder, key) for folder, key in fields["catalogues"])
        recordings = Recordings(**fields["recordings"]) if fields.get("recordings") else None
        return cls(**{**fields, "catalogues": catalogues, "recordings": recordings})

    def as_plain(self) -> dict[str, object]:
        """Return plain values, which JSON can hold."""
        fields = asdict(self)
        if self.recordings is None:
            # Older versions don't know it.
            del fields["recordings"]
        return fields


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Which product each node name meant in one run. It is published once and never changed.

    Parameters
    ----------
    run_id, project : str
    started_at : str
        ISO 8601, UTC.
    nodes : mapping of str to NodeEntry
        By name of the node, in the pipeline's order.
    pipeline : mapping
        The pipeline's document as plain values.
    """

    run_id: str
    project: str
    started_at: str
    nodes: Mapping[str, NodeEntry]
    pipeline: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the manifest as the bytes of its file."""
        return sealed({**asdict(self), "nodes": {name: entry.as_plain() for name, entry in self.nodes.items()}})

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Return the manifest of a file's bytes.

        Raises
        ------
        ValueError, TypeError, KeyError
            The bytes hold something else.
        """
        fields = unsealed(data)
        nodes = {name: NodeEntry.from_plain(entry) for name, entry in fields["nodes"].items()}
        return cls(**{**fields, "nodes": nodes})


State = Literal["running", "done", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run's driver knows and the records don't. No run resumes from it.

    Parameters
    ----------
    run_id, project : str
    host, pid : str, int
        Where the driver runs.
    state : {"running", "done", "failed", "interrupted"}
        A killed driver leaves ``running``, with an old `updated_at`.
    started_at, updated_at : str
        ISO 8601, UTC.
    nodes : mapping of str to mapping
        By node of the run: ``pending``, ``in_flight``, ``done``, ``failed``, ``retried``,
        ``deaths``, ``stalled``, ``quarantined``, and sums of times, s.
    failures, stalled : sequence of mapping
        The last tasks that were given up (``node, shard, reason``), and the tasks that stall now
        (``node, shard, utterance, worker, host, running_s``).
    """

    run_id: str
    project: str
    host: str
    pid: int
    state: State
    started_at: str
    updated_at: str
    nodes: Mapping[str, Mapping[str, int | float]] = field(default_factory=dict)
    failures: Sequence[Mapping[str, object]] = ()
    stalled: Sequence[Mapping[str, object]] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)

    def to_json(self) -> bytes:
        """Return the state as the bytes of its file."""
        return (json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> RunState | None:
        """Return the state of a file's bytes, None for other bytes: nothing depends on it."""
        try:
            state = cls(**json.loads(data))
            return state if state._is_plausible() else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def _is_plausible(self) -> bool:
        """Tell whether the fields that are read have their types."""
        times = [datetime.fromisoformat(text) for text in (self.started_at, self.updated_at)]
        counts = [count for node in self.nodes.values() for count in node.values()]
        tasks = [(task["node"], task["shard"]) for task in (*self.failures, *self.stalled)]
        told = [task["reason"] for task in self.failures]
        told += [task[name] for task in self.stalled for name in ("utterance", "worker", "host")]
        return (
            all(time.tzinfo is not None for time in times)
            and all(isinstance(text, str) for text in (self.run_id, self.project, self.host))
            and self.state in get_args(State)
            and all(isinstance(count, int | float) for count in counts)
            and all(isinstance(node, str) and isinstance(shard, int | None) for node, shard in tasks)
            and all(isinstance(text, str | None) for text in told)
        )
