"""The contract of a report stage, and what the page of `aggregate` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Stage
from melmill.stages.score.listeners.kinds import KINDS, ListeningKind

if TYPE_CHECKING:
    import pandas as pd

    from melmill.stages.report.comparison.evaluation import Evaluation, RunAt
    from melmill.stages.score.sets.values import EmbeddedSet


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Say how the product of one node was made.

    Parameters
    ----------
    name, uses : str
        Node and stage.
    version : int
        Of the stage.
    key : str
        Fingerprint that the product is stored under.
    inputs : sequence of str
        Names of the nodes that it reads.
    parameters : mapping
        Resolved parameters, plain values.
    """

    name: str
    uses: str
    version: int
    key: str
    inputs: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Example:
    """Hold the audio of one utterance: the recording, and what each scored node made of it.

    Parameters
    ----------
    utterance_id, text : str
        Its id and its transcript, which may be empty.
    why : str
        Why a report shows it. Only the report sets this.
    sr : int
        Rate of `reference`, Hz.
    reference : ndarray of float32, shape (n_samples,)
        The recording, full scale 1.
    reconstructions : mapping of str to ndarray of float32, shape (n_samples,)
        By node. Nodes that lack the utterance are left out.
    rates : mapping of str to int
        Rate of each reconstruction, Hz. `sr` applies to nodes that are not named.
    """

    utterance_id: str
    text: str
    why: str = ""
    sr: int
    reference: NDArray[np.float32]
    reconstructions: Mapping[str, NDArray[np.float32]]
    rates: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class HeardTest:
    """Hold a listening test with the answers of all listeners.

    Parameters
    ----------
    test_id, kind : str
        Its name, and ``abx``, ``mushra``, ``cmos`` or ``preference``.
    n_trials : int
        Pages of the test.
    notes : sequence of str
        What a person should know of the sounds, a line each.
    ratings : DataFrame
        A row per listener, trial and sound: ``listener, trial, utterance_id, system, other, value``.
        A system that was scored has the name of its node.
    """

    test_id: str
    kind: str
    n_trials: int
    notes: Sequence[str]
    ratings: pd.DataFrame

    @property
    def test(self) -> ListeningKind:
        """The kind of test."""
        return KINDS[self.kind]


class ReportData(Protocol):
    """What a report can read: everything that led to its inputs.

    Each table is read when it is asked for.
    """

    @property
    def pipeline(self) -> str:
        """Name of the pipeline."""
        ...

    @property
    def trends(self) -> str:
        """Where the page is that shows scores over the runs of the store, relative to the report's page.

        Empty where there is none.
        """
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the interpreter and of the packages that results may depend on."""
        ...

    @property
    def provenance(self) -> Sequence[Provenance]:
        """All nodes before the report, each after those that it reads."""
        ...

    @property
    def scores(self) -> pd.DataFrame:
        """One row per utterance and scored node.

        Columns: ``utterance_id, subset, speaker_id, node, duration_s``, a float column per metric,
        and ``status_<metric>`` beside it. A value counts only where its status is ``ok``.
        """
        ...

    @property
    def inspections(self) -> pd.DataFrame:
        """One row per recording that a node of the stage `inspect` measured.

        Columns: those of the catalogue, ``node`` (whose recordings they are), and what was measured.
        """
        ...

    def recording(self, node: str, utterance_id: str) -> Example | None:
        """Return the audio of an utterance of a node, or None if the node lacks it."""
        ...

    @property
    def pair_notes(self) -> Sequence[str]:
        """What a person should know of the pairs with files of another system, a line each."""
        ...

    @property
    def pairs(self) -> pd.DataFrame:
        """One row per recording and file of another system, also of those without a partner.

        Columns: ``node, utterance_id, estimate_id, duration_s, estimate_duration_s``.
        """
        ...

    @property
    def traces(self) -> pd.DataFrame:
        """One row per utterance, scored node and iteration.

        Columns: ``utterance_id, node, iteration, scm_db``.
        """
        ...

    @property
    def trust(self) -> pd.DataFrame:
        """One row per damaged version of a recording, none where no node of the stage `trust` is read.

        Columns: ``utterance_id, node, damage, step``, a float column per metric, and
        ``status_<metric>``. ``node`` is the node whose waveforms were damaged, or the node that
        damaged them if several did. The recording itself has the damage ``none``, and with the error
        of 16 bits ``rounding``.
        """
        ...

    @property
    def sets(self) -> Sequence[EmbeddedSet]:
        """Embeddings of whole sets, one for each node that a node of the stage `set_score` compares."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of the levels and channels of the recordings, a line each."""
        ...

    @property
    def listening(self) -> Sequence[HeardTest]:
        """Listening tests in which a node before the report was heard, those with answers."""
        ...

    @property
    def quarantine(self) -> pd.DataFrame:
        """One row per utterance that a node could not process.

        Columns: ``utterance_id, node, stage, reason, detail``.
        """
        ...

    @property
    def throughput(self) -> pd.DataFrame:
        """One row per node: what it worked through, where, and for how long.

        Columns: ``node, shards, utterances, audio_s, compute_s, wall_s, peak_mem_bytes, busy_s,
        pool, device``.
        """
        ...

    def evaluation(self, at: RunAt | None = None) -> Evaluation:
        """Return what a gate reads: of these scores, or of another run that was published."""
        ...

    def example(self, utterance_id: str) -> Example | None:
        """Return the audio of a scored utterance, or None if it was scored without recordings.

        It raises ValueError for an utterance that nothing scored.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Hold what a report stage made.

    Parameters
    ----------
    files : mapping of str to bytes
        By name. ``index.html`` is the page that `melmill run` and `melmill report` point to.
    headline : str
        A small table that they print: CSV whose first line names the columns.
    """

    files: Mapping[str, bytes]
    headline: str


@runtime_checkable
class ReportStage(Stage, Protocol):
    """A stage that reports on whole corpora, in one task; `produces` returns `Report()`."""

    def report(self, data: ReportData) -> ReportFiles:
        """Return the files of the report. The same data gives the same bytes."""
        ...


@runtime_checkable
class BaselineStage(ReportStage, Protocol):
    """A report stage that compares with another run. The graph looks that run up."""

    @property
    def baseline(self) -> str | None:
        """Tag, run or store, as written."""
        ...

    def against(self, run: RunAt | None, why: str = "") -> Stage:
        """Return the stage that knows its baseline. `why` says why there is none yet."""
        ...


PAIR_COLUMNS = ("node", "utterance_id", "estimate_id", "duration_s", "estimate_duration_s")
TRACE_COLUMNS = ("utterance_id", "node", "iteration", "scm_db")
QUARANTINE_COLUMNS = ("utterance_id", "node", "stage", "reason", "detail")
TRAINING_COLUMNS = ("series", "loss", "step", "value")
THROUGHPUT_COLUMNS = (
    "node", "shards", "utterances", "audio_s", "compute_s", "wall_s", "busy_s", "pool", "device",
    "peak_mem_bytes",
)  # fmt: skip


def _empty(columns: Sequence[str], **types: str) -> pd.DataFrame:
    """Return a table without rows; columns whose type is not named hold text."""
    import pandas as pd

    return pd.DataFrame({name: pd.Series(dtype="str") for name in columns}).astype(types)


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Hold everything that a report shows, except audio.

    Parameters
    ----------
    scores : DataFrame
        One row per utterance and scored node: ``utterance_id, subset, speaker_id, node,
        duration_s``, a float column per metric, and ``status_<column>`` beside it. A value counts
        only where its status is ``ok``.
    traces : DataFrame
        ``utterance_id, node, iteration, scm_db``; may be empty.
    quarantine : DataFrame
        ``utterance_id, node, stage, reason, detail``; may be empty.
    throughput : DataFrame
        ``node, shards, utterances, audio_s, compute_s, wall_s, busy_s, pool, device,
        peak_mem_bytes``; may be empty.
        `compute_s` is time inside the stage, summed over tasks. `wall_s` is time with a task under
        way, with reading and writing, summed over workers. `busy_s` is the device's time at work,
        NaN where the stage does not measure it. `peak_mem_bytes` is the largest size of a process
        during a task, 0 where it was not measured.
    training : DataFrame
        ``series, loss, step, value`` of a training, with a curve for each loss and series; may be
        empty.
    made : sequence of Provenance
        The pipeline's nodes in order.
    versions : mapping of str to str
        Versions of the packages and of the interpreter that did the work.
    pipeline : str
        Its name.
    trends : str
        Where the page of trends is, relative to the report's page. Empty where there is none.
    notes : sequence of str
        What a person should know of the recordings, a line each.
    pair_notes : sequence of str
        What a person should know of the pairs with files of another system, a line each.
    pairs : DataFrame or None
        ``node, utterance_id, estimate_id, duration_s, estimate_duration_s``: which file of another
        system belongs to which recording. Recordings and files without a partner have a row too.
        None where no other system's files are scored.
    listening : sequence of HeardTest
        Listening tests with their answers.
    trust : DataFrame or None
        ``utterance_id, node, damage, step``, and value and status of each metric: what metrics make
        of damaged recordings. None where that was not asked for.
    sets : sequence of EmbeddedSet
        Embeddings of whole sets, for metrics such as FAD.
    """

    scores: pd.DataFrame
    traces: pd.DataFrame = field(default_factory=partial(_empty, TRACE_COLUMNS, iteration="int64", scm_db="float64"))
    quarantine: pd.DataFrame = field(default_factory=partial(_empty, QUARANTINE_COLUMNS))
    throughput: pd.DataFrame = field(
        default_factory=partial(
            _empty,
            THROUGHPUT_COLUMNS,
            **dict.fromkeys(("shards", "utterances", "peak_mem_bytes"), "int64"),
            **dict.fromkeys(("audio_s", "compute_s", "wall_s", "busy_s"), "float64"),
        )
    )
    training: pd.DataFrame = field(default_factory=partial(_empty, TRAINING_COLUMNS, step="int64", value="float64"))
    made: Sequence[Provenance] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    pipeline: str = ""
    trends: str = ""
    notes: Sequence[str] = ()
    pair_notes: Sequence[str] = ()
    pairs: pd.DataFrame | None = None
    listening: Sequence[HeardTest] = ()
    trust: pd.DataFrame | None = None
    sets: Sequence[EmbeddedSet] = ()


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Name an utterance to play, and why it was chosen."""

    utterance_id: str
    why: str
