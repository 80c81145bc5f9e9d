"""Leave a record of every run in its store: its facts when it starts, and its outcome when it ends."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from melmill.errors import Error
from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.summary import Summary, too_many_quarantined
from melmill.flows.pipeline.graph import Node
from melmill.flows.planning.plan import Plan
from melmill.flows.runs.trends.page import write_trends
from melmill.flows.tasks.job import versions
from melmill.flows.watching.events import Event
from melmill.flows.watching.tally import NodeTally, Tally
from melmill.stages.contract import Kind, Scores
from melmill.stages.score.metric import status_column
from melmill.stages.score.status import Status
from melmill.storage.errors import StoreError
from melmill.storage.runs import NodeOutcome, RunFacts, RunOutcome, ScoreSummary, now
from melmill.storage.store import Store

# git answers at once. A repository on a slow disk must not hold up a run.
_GIT_TIMEOUT_S = 5.0
LEVEL = 0.95

Ended = Literal["done", "failed", "interrupted"]


class RunRecorder:
    """Store the facts of a run, listen to it, and store its outcome when the block ends.

    Parameters
    ----------
    plan : Plan
    store : Store
    run_id : str
    executor : {"dask", "serial"}
    partial : bool
        Whether the plan leaves nodes of the pipeline out.
    """

    def __init__(self, plan: Plan, store: Store, run_id: str, executor: str, *, partial: bool) -> None:
        self._plan = plan
        self._store = store
        self._run_id = run_id
        self._executor = executor
        self._partial = partial
        self._started = time.monotonic()
        self._tally = Tally({name: NodeTally(pending=len(node.pending)) for name, node in plan.nodes.items()})
        self._summary: Summary | None = None

    def __enter__(self) -> Self:
        commit, dirty = git_state()
        facts = RunFacts(
            run_id=self._run_id,
            started_at=now(),
            overrides=self._plan.pipeline.overrides,
            versions=versions(),
            git_commit=commit,
            git_dirty=dirty,
            host=platform.node(),
            command=tuple(sys.argv),
            executor=self._executor,
            partial=self._partial,
        )
        self._store.publish_facts(facts)
        return self

    def __call__(self, event: Event) -> None:
        """Count an event."""
        self._tally(event)

    def summed_up(self, summary: Summary) -> Summary:
        """Take the summary of a run that came to its end; return it, with a note if need be."""
        self._summary = summary
        state: Ended = "done"
        if summary.tasks.failed or too_many_quarantined(self._plan, summary.quarantined):
            state = "failed"
        try:
            # A gate that tripped: the run is done, and its result is not good enough.
            code = 1 if state == "failed" else 3 if summary.tripped else 0
            reason = summary.tripped[0] if code == 3 else ""
            self._publish(state, code, reason=reason, scores=score_summaries(self._plan, self._store))
        except StoreError as error:
            return _noted(
                summary, f"the outcome of this run can't be stored, so that `melmill runs` will not show it: {error}"
            )
        try:
            # New reports lead to it.
            if any(
                one.pending and one.node.product.kind in (Kind.SCORES, Kind.REPORT) for one in self._plan.nodes.values()
            ):
                write_trends(self._store)
        except StoreError as error:
            return _noted(summary, f"the page of trends can't be made anew: {error}")
        return summary

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or self._summary is not None:
            return
        reason = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
        with suppress(StoreError):  # the error that ended the run tells more
            if isinstance(error, KeyboardInterrupt):
                self._publish("interrupted", 130)
            else:
                is_usage = isinstance(error, Error) and not isinstance(error, RunFailed)
                self._publish("failed", 2 if is_usage else 1, reason=" ".join(reason.split()))

    def _publish(self, state: Ended, code: int, *, reason: str = "", scores: tuple[ScoreSummary, ...] = ()) -> None:
        nodes = {
            name: NodeOutcome(
                done=tally.done,
                reused=self._plan.nodes[name].n_shards - len(self._plan.nodes[name].pending),
                failed=tally.failed,
                retried=tally.retried,
                quarantined=tally.quarantined,
                audio_s=round(tally.audio_s, 3),
                compute_s=round(tally.compute_s, 3),
                task_s=round(tally.task_s, 3),
            )
            for name, tally in self._tally.nodes.items()
        }
        outcome = RunOutcome(
            run_id=self._run_id,
            state=state,
            ended_at=now(),
            duration_s=round(time.monotonic() - self._started, 3),
            exit_code=code,
            reason=reason,
            nodes=nodes,
            utterances=None if self._summary is None else self._summary.utterances,
            quarantined=None if self._summary is None else self._summary.quarantined,
            scores=scores,
        )
        self._store.publish_outcome(outcome)


def _noted(summary: Summary, note: str) -> Summary:
    return replace(summary, notes=(*summary.notes, note))


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the working directory, and whether files that git tracks differ from it.

    Both are None where there is no git, or no repository with a commit.
    """

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", *arguments],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_GIT_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout if answer.returncode == 0 else None

    commit = git("rev-parse", "--verify", "HEAD")
    if not commit:
        return None, None
    changed = git("status", "--porcelain", "--untracked-files=no")
    return commit.strip(), None if changed is None else bool(changed.strip())


def score_summaries(plan: Plan, store: Store) -> tuple[ScoreSummary, ...]:
    """Sum up the scores of a run's score nodes, from the tables in the store.

    A node that had nothing to do, on the same utterances as in the run before, is taken from the
    outcome of that.
    """
    nodes = _score_nodes(plan)
    earlier = _earlier(store) if nodes else {}
    summaries: list[ScoreSummary] = []
    for node in nodes:
        catalogue = plan.catalogues[node.corpora[0]]
        extent = f"{catalogue.n_rows} rows, {sum(map(len, catalogue.retired.values()))} retired"
        known = earlier.get((node.folder, node.key, extent), ())
        if known and not plan.nodes[node.name].pending:
            summaries += [replace(summary, node=node.name) for summary in known]
        else:
            summaries += _score_summaries(plan, store, node, extent)
    return tuple(summaries)


def _score_nodes(plan: Plan) -> list[Node]:
    return [node_plan.node for node_plan in plan.nodes.values() if isinstance(node_plan.node.product, Scores)]


def _earlier(store: Store) -> dict[tuple[str, str, str], list[ScoreSummary]]:
    """Return the summaries of the last run that has some, by folder and key of the node and by utterances."""
    for run_id in reversed(store.run_ids()):
        outcome, manifest = store.outcome(run_id), store.manifest(run_id)
        if outcome is not None and manifest is not None and outcome.scores:
            found: dict[tuple[str, str, str], list[ScoreSummary]] = {}
            for summary in outcome.scores:
                entry = manifest.nodes[summary.node]
                found.setdefault((entry.folder, entry.key, summary.catalogue), []).append(summary)
            return found
    return {}


@dataclass
class _Moments:
    """Count, mean and sum of squared distances from it, over parts of a table."""

    n: int = 0
    n_failed: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray[Any, np.dtype[np.float64]], n_failed: int) -> None:
        """Take further values.

        References
        ----------
        Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample
        variances, 1982, equations 2.1.
        """
        self.n_failed += n_failed
        if not values.size:
            return
        mean = float(values.mean())
        total, apart = self.n + values.size, mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + apart**2 * self.n * values.size / total
        self.mean += apart * values.size / total
        self.n = total

    def interval(self) -> tuple[float | None, float | None, float | None]:
        """Return the ends of the 95 % interval of the mean (Student's t), and the standard deviation."""
        if self.n < 2:
            return None, None, None
        from scipy.special import stdtrit

        std = math.sqrt(self.squares / (self.n - 1))
        half = float(stdtrit(self.n - 1, (1 + LEVEL) / 2)) * std / math.sqrt(self.n)
        return self.mean - half, self.mean + half, std


def _score_summaries(plan: Plan, store: Store, node: Node, extent: str) -> Iterator[ScoreSummary]:
    moments: dict[str, _Moments] = {}
    folder = store.product(node.folder, node.key)
    for table in folder.tables("table", plan.catalogues[node.corpora[0]]):
        for metric in table.column_names:
            if status_column(metric) not in table.column_names:
                continue
            status = table[status_column(metric)].to_numpy()
            values = np.asarray(table[metric].to_numpy(), dtype=np.float64)
            has_value = (status == Status.OK.value) & np.isfinite(values)
            n_asked = len(status) - table[status_column(metric)].null_count
            moments.setdefault(metric, _Moments()).add(values[has_value], n_asked - int(has_value.sum()))
    scored = node.product.scored if isinstance(node.product, Scores) else None
    for metric, counted in moments.items():
        if counted.n + counted.n_failed == 0:
            continue
        low, high, std = counted.interval()
        yield ScoreSummary(
            node=node.name,
            scored=scored or node.name,
            metric=metric,
            n=counted.n,
            n_failed=counted.n_failed,
            mean=counted.mean if counted.n else None,
            low=low,
            high=high,
            std=std,
            catalogue=extent,
        )
