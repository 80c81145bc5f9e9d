"""The summaries of all runs as one table, for other tools, and as runs of an MLflow server."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.errors import PackageMissing
from melmill.storage.runs import RunRecord

if TYPE_CHECKING:
    import pandas as pd

# The tag of an MLflow run that says which run of a store it is.
_RUN_TAG = "melmill.run"


def summary_table(runs: Iterable[RunRecord]) -> pd.DataFrame:
    """Return a row for each metric of each score node of each run; a run without scores has one row.

    Returns
    -------
    DataFrame
        ``store, project, run, started_at, state, duration_s, tags, git_commit, git_dirty, host,
        overrides, versions`` of the run, ``utterances, quarantined``, and ``node, scored, metric,
        key, n, n_failed, mean, low, high, std`` (95 % interval of the mean) of the score.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for run in runs:
        facts, outcome = run.facts, run.outcome
        of_run = {
            "store": run.store,
            "project": run.manifest.project,
            "run": run.run_id,
            "started_at": pd.Timestamp(run.started_at),
            "state": run.state,
            "duration_s": run.duration_s,
            "tags": " ".join(run.tags),
            "git_commit": facts and facts.git_commit,
            "git_dirty": facts and facts.git_dirty,
            "host": facts and facts.host,
            "overrides": None if facts is None else " ".join(facts.overrides),
            "versions": None if facts is None else " ".join(f"{name}={v}" for name, v in facts.versions.items()),
            "utterances": outcome and outcome.utterances,
            "quarantined": outcome and outcome.quarantined,
        }
        scores = () if outcome is None else outcome.scores
        rows += [
            {
                **of_run,
                "node": score.node,
                "scored": score.scored,
                "metric": score.metric,
                "key": run.manifest.nodes[score.node].key if score.node in run.manifest.nodes else None,
                "n": score.n,
                "n_failed": score.n_failed,
                "mean": score.mean,
                "low": score.low,
                "high": score.high,
                "std": score.std,
            }
            for score in scores
        ] or [of_run]
    columns = [*_RUN_COLUMNS, *_SCORE_COLUMNS]
    table = pd.DataFrame(rows, columns=columns)
    counts = ["utterances", "quarantined", "n", "n_failed"]
    numbers = ["duration_s", "mean", "low", "high", "std"]
    types: dict[str, Any] = {**dict.fromkeys(counts, "Int64"), **dict.fromkeys(numbers, "Float64")}
    types["git_dirty"] = "boolean"
    texts = dict.fromkeys(set(columns) - types.keys() - {"started_at"}, "string")
    table = table.astype({**types, **texts})
    table["started_at"] = pd.to_datetime(table["started_at"], utc=True).astype("datetime64[us, UTC]")
    return table


_RUN_COLUMNS = (
    "store", "project", "run", "started_at", "state", "duration_s", "tags", "git_commit", "git_dirty", "host",
    "overrides", "versions", "utterances", "quarantined",
)  # fmt: skip
_SCORE_COLUMNS = ("node", "scored", "metric", "key", "n", "n_failed", "mean", "low", "high", "std")


def summary_parquet(runs: Iterable[RunRecord]) -> bytes:
    """Return `summary_table` as a Parquet file."""
    file = io.BytesIO()
    summary_table(runs).to_parquet(file, index=False)
    return file.getvalue()


def export_to_mlflow(runs: Sequence[RunRecord], uri: str) -> tuple[int, int]:
    """Log runs to an MLflow server with its own client; return how many were logged, and were there.

    Each store's project is an experiment. A run that is over becomes one MLflow run, whose
    parameters are the fields of its pipeline. Its metrics are means and the ends of their
    intervals: ``gla/pesq_wb``, ``gla/pesq_wb/low``. A run that was logged before stays as it is.

    Parameters
    ----------
    runs : sequence of RunRecord
    uri : str
        Of the tracking server, or a folder or database as MLflow takes them.

    Raises
    ------
    PackageMissing
        The package mlflow is not installed.
    PipelineError
        The server can't be reached, or refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise PackageMissing("--mlflow needs the package mlflow: pip install 'melmill[mlflow]'") from error
    n_logged = n_known = 0
    try:
        client = MlflowClient(tracking_uri=uri)
        for project in dict.fromkeys(run.manifest.project for run in runs):
            found = client.get_experiment_by_name(project)
            experiment = found.experiment_id if found else client.create_experiment(project)
            for run in (run for run in runs if run.manifest.project == project and run.outcome is not None):
                if client.search_runs([experiment], f"tags.`{_RUN_TAG}` = '{run.run_id}'", max_results=1):
                    n_known += 1
                else:
                    _log(client, experiment, run)
                    n_logged += 1
    except (MlflowException, OSError) as error:
        raise PipelineError(f"MLflow at {uri!r}: {' '.join(str(error).split())}", "--mlflow") from error
    return n_logged, n_known


def _log(client: Any, experiment: str, run: RunRecord) -> None:  # noqa: ANN401 - mlflow may not be installed
    from mlflow.entities import Metric, Param, RunTag

    from melmill.flows.runs.differences import flat

    facts, outcome = run.facts, run.outcome
    if outcome is None:
        return
    began = round(1000 * datetime.fromisoformat(run.started_at).timestamp())
    ended = round(1000 * datetime.fromisoformat(outcome.ended_at).timestamp())
    values = {
        f"{_allowed(score.scored)}/{_allowed(score.metric)}{end}": value
        for score in outcome.scores
        for end, value in (("", score.mean), ("/low", score.low), ("/high", score.high), ("/n", float(score.n)))
        if value is not None
    }
    values |= {"duration_s": outcome.duration_s}
    tags = {
        _RUN_TAG: run.run_id,
        "melmill.store": run.store,
        "melmill.state": run.state,
        "mlflow.source.git.commit": (facts and facts.git_commit) or "",
        **({} if facts is None else {f"version.{name}": text for name, text in facts.versions.items()}),
        **{f"melmill.tag.{name}": "yes" for name in run.tags},
    }
    # MLflow takes parameters of up to 6,000 characters.
    fields = {_allowed(name): str(value)[:6000] for name, value in flat(run.manifest.pipeline).items()}
    made = client.create_run(experiment, start_time=began, tags={}, run_name=run.run_id)
    identity = made.info.run_id
    names = list(fields)
    for first in range(0, max(1, len(names)), 100):  # a batch takes a hundred parameters
        some = names[first : first + 100]
        client.log_batch(identity, params=[Param(name, fields[name]) for name in some])
    metrics = [Metric(name, value, ended, 0) for name, value in values.items()]
    for first in range(0, len(metrics), 1000):
        client.log_batch(identity, metrics=metrics[first : first + 1000])
    client.log_batch(identity, tags=[RunTag(name, text) for name, text in tags.items() if text])
    client.set_terminated(identity, "FINISHED" if run.state == "done" else "FAILED", ended)


def _allowed(name: str) -> str:
    """Return a name of characters that MLflow takes."""
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in name)
