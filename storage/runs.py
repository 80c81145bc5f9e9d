"""The files of a run and its tags: manifest, facts, state and outcome.

The manifest says what the names of a run mean. The facts are written when it starts, and the outcome
when it ends. The state is news while it runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
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
        The first lists its utterances: that of its corpus, or of the last node on the way that trimmed
        or split them. Those that it follows from come after it. A report has those of its corpora.
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

    @property
    def is_ingest(self) -> bool:
        """Whether it made its catalogue of a corpus."""
        return (self.folder, self.key) in self.catalogues and not self.reshapes

    @property
    def reshapes(self) -> bool:
        """Whether it trimmed or split utterances, so that it has a catalogue of its own."""
        return self.kind == "waveform" and self.catalogues[:1] == ((self.folder, self.key),)

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


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What made a run what it is, besides its manifest. It is written once, when the run starts.

    Parameters
    ----------
    run_id : str
    started_at : str
        ISO 8601, UTC.
    overrides : tuple of str
        ``name=value``, as ``--set`` and Python gave them.
    versions : mapping of str to str
        Of the interpreter and of the packages that results may depend on.
    git_commit : str or None
        Commit of the working directory of the driver. None: it is in no git repository.
    git_dirty : bool or None
        Whether files that git tracks there differed from that commit.
    host : str
        Where the driver ran.
    command : tuple of str
        Arguments of the driver's process, its program first.
    executor : str
        ``dask`` or ``serial``.
    partial : bool
        Whether nodes of the pipeline were left out (``--until``).
    """

    run_id: str
    started_at: str
    overrides: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    git_dirty: bool | None = None
    host: str = ""
    command: tuple[str, ...] = ()
    executor: str = ""
    partial: bool = False

    def to_json(self) -> bytes:
        """Return the facts as the bytes of their file."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> RunFacts:
        """Return the facts of a file's bytes; raise ValueError, TypeError or KeyError for others."""
        fields = _known(cls, unsealed(data))
        datetime.fromisoformat(fields["started_at"])
        return cls(**{**fields, "overrides": tuple(fields["overrides"]), "command": tuple(fields["command"])})


@dataclass(frozen=True, kw_only=True)
class NodeOutcome:
    """Count the tasks of one node of a run.

    Parameters
    ----------
    done, reused, failed, retried : int
        Tasks that this run did, those that were done before, those that it gave up, and attempts
        that were repeated.
    quarantined : int
        Utterances that this run put into quarantine here.
    audio_s, compute_s, task_s : float
        Sums over the tasks that this run did, s: their audio, the time inside the stage, and the
        time of whole tasks.
    """

    done: int = 0
    reused: int = 0
    failed: int = 0
    retried: int = 0
    quarantined: int = 0
    audio_s: float = 0.0
    compute_s: float = 0.0
    task_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ScoreSummary:
    """Sum up one metric of one score node over the utterances of a run.

    Parameters
    ----------
    node, scored : str
        Score node, and the node whose waveforms it scores.
    metric : str
    n, n_failed : int
        Utterances with a value, and those without one though it was asked for.
    mean, low, high, std : float or None
        Mean, the ends of its 95 % interval (Student's t), and standard deviation (n - 1). None
        without enough values.
    catalogue : str
        Extent of the corpus: rows of its catalogue, and how many of them were retired.
    """

    node: str
    scored: str
    metric: str
    n: int
    n_failed: int
    mean: float | None
    low: float | None
    high: float | None
    std: float | None
    catalogue: str = ""


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What came of a run. It is written once, when the run ends. A killed driver leaves none.

    Parameters
    ----------
    run_id : str
    state : {"done", "failed", "interrupted"}
    ended_at : str
        ISO 8601, UTC.
    duration_s : float
        Wall time, s.
    exit_code : int
        What `melmill run` returned: 0, 1, 2, 3 or 130.
    reason : str
        Why it failed, or the first rule of a gate that tripped, in one line. Empty for nothing to say.
    nodes : mapping of str to NodeOutcome
        By node of the run.
    utterances, quarantined : int
        Utterances of all corpora, and how many of them some node could not process, in this run or
        before. A run that ended early has no such counts: None.
    scores : tuple of ScoreSummary
        Of all score nodes of the run. Empty for a run that ended early.
    """

    run_id: str
    state: Literal["done", "failed", "interrupted"]
    ended_at: str
    duration_s: float
    exit_code: int
    reason: str = ""
    nodes: Mapping[str, NodeOutcome] = field(default_factory=dict)
    utterances: int | None = None
    quarantined: int | None = None
    scores: tuple[ScoreSummary, ...] = ()

    def to_json(self) -> bytes:
        """Return the outcome as the bytes of its file."""
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> RunOutcome:
        """Return the outcome of a file's bytes; raise ValueError, TypeError or KeyError for others."""
        fields = _known(cls, unsealed(data))
        datetime.fromisoformat(fields["ended_at"])
        nodes = {name: NodeOutcome(**_known(NodeOutcome, node)) for name, node in fields["nodes"].items()}
        scores = tuple(ScoreSummary(**_known(ScoreSummary, row)) for row in fields["scores"])
        return cls(**{**fields, "nodes": nodes, "scores": scores})


# No tag is taken for an address, a path, a run or an option.
TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RUN_LIKE = re.compile(r"\d{8}T\d{12}")


def check_tag_name(name: str) -> str | None:
    """Return what is wrong with the name of a tag, None for nothing.

    >>> check_tag_name("nightly-2026.1") is None
    True
    >>> check_tag_name("a b")
    "a tag is called by letters, digits, '.', '_' and '-', 100 at most, and begins with a letter or digit, got 'a b'"
    """
    if not TAG_NAME.fullmatch(name):
        return (
            "a tag is called by letters, digits, '.', '_' and '-', 100 at most, and begins with a letter or digit, "
            f"got {name!r}"
        )
    return f"a tag can't be called as a run is, got {name!r}" if _RUN_LIKE.fullmatch(name) else None


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A name for a run. It protects the run from pruning, and serves as a baseline.

    Parameters
    ----------
    name, run_id : str
    at : str
        When it was set, ISO 8601, UTC.
    by : str
        Who set it: ``user@host``.
    """

    name: str
    run_id: str
    at: str
    by: str

    def to_json(self) -> bytes:
        """Return the tag as the bytes of its file."""
        return sealed({"run_id": self.run_id, "at": self.at, "by": self.by})

    @classmethod
    def from_json(cls, name: str, data: bytes) -> Tag:
        """Return the tag of a file's bytes; raise ValueError, TypeError or KeyError for others."""
        fields = unsealed(data)
        datetime.fromisoformat(fields["at"])
        return cls(name=name, **{key: str(fields[key]) for key in ("run_id", "at", "by")})


# A driver writes its state every ten seconds. After this time without news it may be gone, s.
SILENT_S = 60.0

RunsState = Literal["running", "done", "failed", "interrupted", "lost", "unknown"]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All that a store knows of one run at one moment.

    Parameters
    ----------
    store : str
        URL of the store.
    run_id : str
    manifest : Manifest
        Of this run. A run of an older version may have none because it repeated the run before it.
        It has the manifest of that.
    facts : RunFacts or None
        None: an older version ran it.
    outcome : RunOutcome or None
        None: it still runs, its driver was killed, or an older version ran it.
    progress : RunState or None
        The last news of its driver. None: it had nothing to do.
    tags : tuple of str
        Names of its tags, sorted.
    at : datetime
        When all of this was read.
    """

    store: str
    run_id: str
    manifest: Manifest
    facts: RunFacts | None
    outcome: RunOutcome | None
    progress: RunState | None
    tags: tuple[str, ...]
    at: datetime

    @property
    def state(self) -> RunsState:
        """How the run ended, or ``running``.

        ``lost``: there is no outcome and no news for a minute, so its driver was killed.
        ``unknown``: an older version ran it and told nothing.
        """
        if self.outcome is not None:
            return self.outcome.state
        if self.progress is not None and self.progress.state != "running":
            return self.progress.state
        if self.progress is None and self.facts is None:
            return "unknown"
        news = self.progress.updated_at if self.progress is not None else self.started_at
        silent_s = (self.at - datetime.fromisoformat(news)).total_seconds()
        return "lost" if silent_s > SILENT_S else "running"

    @property
    def started_at(self) -> str:
        """When it began, ISO 8601, UTC."""
        own = self.facts or self.progress
        return self.manifest.started_at if own is None else own.started_at

    @property
    def duration_s(self) -> float | None:
        """Wall time so far, s; None where nobody knows."""
        if self.outcome is not None:
            return self.outcome.duration_s
        if self.state == "running":
            end = self.at
        elif self.progress is not None:
            end = datetime.fromisoformat(self.progress.updated_at)
        else:
            return None
        return max(0.0, (end - datetime.fromisoformat(self.started_at)).total_seconds())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON: facts and outcome as stored, None where there are none."""
        return {
            "store": self.store,
            "run": self.run_id,
            "project": self.manifest.project,
            "state": self.state,
            "tags": list(self.tags),
            "started_at": self.started_at,
            "duration_s": self.duration_s,
            "facts": None if self.facts is None else asdict(self.facts),
            "outcome": None if self.outcome is None else asdict(self.outcome),
            "nodes": {name: entry.as_plain() for name, entry in self.manifest.nodes.items()},
            "pipeline": dict(self.manifest.pipeline),
        }


def now() -> str:
    """Return the time, ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _known(cls: Any, fields: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - any dataclass
    """Return the fields that a class has. A later version may have written more."""
    return {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
