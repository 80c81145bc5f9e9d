"""What a comparison reads of a run: its scores, and what decides whether they can be compared."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from melmill.stages.contract.products import declared
from melmill.stages.errors import NotComparable
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.score.metric import Metric

if TYPE_CHECKING:
    import pandas as pd

SLICES = {"subset": "subset", "speaker": "speaker_id", "sex": "sex", "chapter": "chapter_id"}
"""Columns of scores by the names that ``by`` takes."""


@dataclass(frozen=True, kw_only=True)
class RunAt:
    """Say which run a gate compares with.

    Parameters
    ----------
    store : str
        URL of its store.
    run_id : str
    label : str
        What messages call it: ``nightly``.
    node : str or None
        Scored node that stands for all nodes of the run that is judged. None: that of the same name.
    products : tuple of (str, str)
        Names and keys of its score nodes.
    """

    store: str
    run_id: str
    label: str
    node: str | None = None
    products: tuple[tuple[str, str], ...] = ()


class Evaluation(Protocol):
    """One run as comparisons and gates read it. Each table is read when it is asked for."""

    @property
    def label(self) -> str:
        """What messages call it: ``runs/x@nightly``."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Why it may lack scores, a line each."""
        ...

    @property
    def scores(self) -> pd.DataFrame:
        """One row per utterance and scored node.

        Columns: ``utterance_id, node, subset, speaker_id, sex, chapter_id, duration_s``, a float
        column per metric, and ``status_<column>`` beside it.
        """
        ...

    def judges(self, name: str) -> Sequence[str]:
        """Return the scored nodes that the score node of this name judges; empty if there is none."""
        ...

    def measured_how(self, node: str, metric: Metric) -> Mapping[str, Any]:
        """Return what decides the values of a metric besides the signals, by plain names."""
        ...

    def references(self, node: str) -> Mapping[str, str]:
        """Return a digest of each recording that a node was scored against, by utterance id."""
        ...

    @property
    def quarantined(self) -> Mapping[str, frozenset[str]]:
        """Ids of the utterances that each node could not process."""
        ...

    @property
    def n_utterances(self) -> int:
        """Utterances of all corpora."""
        ...

    @property
    def throughput(self) -> pd.DataFrame:
        """One row per node, with the columns of `melmill.stages.report.contract.ReportData.throughput`."""
        ...

    @property
    def disk_bytes(self) -> Mapping[str, int]:
        """Bytes that each node's product takes in the store."""
        ...


def scored_nodes(run: Evaluation) -> list[str]:
    """Return the scored nodes of a run, in its order."""
    return [str(node) for node in run.scores["node"].unique()]


def chosen_nodes(run: Evaluation, name: str) -> list[str]:
    """Return the scored nodes that a name means.

    It is that of a scored node, the name that several were declared by, or that of a score node.

    Raises
    ------
    NotComparable
        Nothing has that name. The message has the nearest.
    """
    nodes = scored_nodes(run)
    found = [node for node in nodes if node == name] or [node for node in nodes if declared(node) == name]
    found = found or [node for node in run.judges(name) if node in nodes]
    if not found:
        raise NotComparable(f"{run.label} has no scores of {name!r}{nearest(name, nodes)}")
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """Return what to add to a message about an unknown name: the nearest one, or all.

    >>> nearest("adm", ["admm", "gla"]), nearest("x", ["gla"])
    ("; did you mean 'admm'?", ' (there are: gla)')
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(names) or 'none'})"


def check_slices(by: Sequence[str]) -> None:
    """Raise ParameterError unless each name is one of `SLICES`, and given once."""
    for name in by:
        if name not in SLICES:
            raise ParameterError("by", f"can't group by {name!r}{nearest(name, SLICES)}")
    if len(set(by)) < len(by):
        raise ParameterError("by", f"must name each group once, got {list(by)!r}")
