"""What a report is made of: tables, and the utterances to play."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from melmill.stages.contract import Provenance

if TYPE_CHECKING:
    import pandas as pd

TRACE_COLUMNS = ("utterance_id", "node", "iteration", "scm_db")
QUARANTINE_COLUMNS = ("utterance_id", "node", "stage", "reason", "detail")
TRAINING_COLUMNS = ("series", "loss", "step", "value")
THROUGHPUT_COLUMNS = (
    "node", "shards", "utterances", "audio_s", "compute_s", "wall_s", "busy_s", "pool", "device",
    "peak_mem_bytes",
)  # fmt: skip


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: pd.Series(dtype="str") for name in columns})


def _no_traces() -> pd.DataFrame:
    return _empty(TRACE_COLUMNS).astype({"iteration": "int64", "scm_db": "float64"})


def _no_training() -> pd.DataFrame:
    return _empty(TRAINING_COLUMNS).astype({"step": "int64", "value": "float64"})


def _no_quarantine() -> pd.DataFrame:
    return _empty(QUARANTINE_COLUMNS)


def _no_throughput() -> pd.DataFrame:
    whole, real = ("shards", "utterances", "peak_mem_bytes"), ("audio_s", "compute_s", "wall_s", "busy_s")
    return _empty(THROUGHPUT_COLUMNS).astype(dict.fromkeys(whole, "int64") | dict.fromkeys(real, "float64"))


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Hold everything that a report shows, except audio.

    Parameters
    ----------
    scores : DataFrame
        One row per utterance and scored node: ``utterance_id, subset, speaker_id, node, duration_s``,
        a float column per metric, and ``status_<column>`` beside it. A value counts only where its
        status is ``ok``.
    traces : DataFrame
        ``utterance_id, node, iteration, scm_db``; may be empty.
    quarantine : DataFrame
        ``utterance_id, node, stage, reason, detail``; may be empty.
    throughput : DataFrame
        ``node, shards, utterances, audio_s, compute_s, wall_s, busy_s, pool, device, peak_mem_bytes``; may be empty.
        `compute_s` is time inside the stage, summed over tasks. `wall_s` is time with a task under
        way, with reading and writing, summed over workers. `busy_s` is the device's time at work,
        NaN where the stage does not measure it. `peak_mem_bytes` is the largest size of a process
        during a task, 0 where it was not measured.
    training : DataFrame
        ``series, loss, step, value`` of a training, with a curve for each loss and series; may be empty.
    made : sequence of Provenance
        The pipeline's nodes in order.
    versions : mapping of str to str
        Versions of the packages and of the interpreter that did the work.
    pipeline : str
        Its name.
    """

    scores: pd.DataFrame
    traces: pd.DataFrame = field(default_factory=_no_traces)
    quarantine: pd.DataFrame = field(default_factory=_no_quarantine)
    throughput: pd.DataFrame = field(default_factory=_no_throughput)
    training: pd.DataFrame = field(default_factory=_no_training)
    made: Sequence[Provenance] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    pipeline: str = ""


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Name an utterance to play, and why it was chosen."""

    utterance_id: str
    why: str
