"""Evaluations made of numbers, in place of those that a store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from melmill.stages.score.metric import Metric


@dataclass
class Numbers:
    """Scores that a test wrote down; see `Evaluation`."""

    scores: pd.DataFrame
    label: str = "run"
    notes: Sequence[str] = ()
    how: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recordings: Mapping[str, str] = field(default_factory=dict)
    score_nodes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    quarantined: Mapping[str, frozenset[str]] = field(default_factory=dict)
    n_utterances: int = 10
    throughput: pd.DataFrame = field(default_factory=pd.DataFrame)
    disk_bytes: Mapping[str, int] = field(default_factory=dict)

    def judges(self, name: str) -> Sequence[str]:
        """Return what the test says of a score node."""
        return self.score_nodes.get(name, ())

    def measured_how(self, node: str, metric: Metric) -> Mapping[str, Any]:
        """Return what the test says of a metric."""
        return self.how.get(metric.name, {})

    def references(self, node: str) -> Mapping[str, str]:
        """Return what the test says of the recordings."""
        return self.recordings


def numbers(columns: Mapping[str, ArrayLike], node: str = "gla", **more: Any) -> Numbers:
    """Return an evaluation of one node, with utterances u0, u1, ... of the speakers s0 and s1 in turn.

    A value that is NaN has the status error.
    """
    values = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    n = len(next(iter(values.values())))
    table: dict[str, Any] = {
        "utterance_id": [f"u{i}" for i in range(n)],
        "subset": ["clean"] * n,
        "speaker_id": [f"s{i % 2}" for i in range(n)],
        "sex": [""] * n,
        "chapter_id": [""] * n,
        "node": [node] * n,
        "duration_s": [1.0] * n,
    }
    table |= values
    table |= {f"status_{name}": np.where(np.isnan(column), "error", "ok") for name, column in values.items()}
    return Numbers(pd.DataFrame(table), **more)
