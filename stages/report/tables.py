"""The report's tables as files, and the short one for a terminal."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pandas as pd

from melmill.stages.report.comparison import leaders, paired
from melmill.stages.report.inputs import Tables
from melmill.stages.report.statistics import convergence, failures, summary
from melmill.stages.report.wording import decimals, plus_minus, why_none
from melmill.stages.score.registry import metric as described


@dataclass(frozen=True, kw_only=True)
class Results:
    """Hold what the functions of `statistics` and `comparison` found; `paired` is None without a baseline."""

    summary: pd.DataFrame
    failures: pd.DataFrame
    paired: pd.DataFrame | None
    leaders: Mapping[str, Sequence[str]]
    convergence: pd.DataFrame


def results(tables: Tables, *, by: Sequence[str], baseline: str | None, seed: int) -> Results:
    """Compute every table of statistics that a report shows."""
    scores = tables.scores
    return Results(
        summary=summary(scores, by=by, seed=seed),
        failures=failures(scores),
        paired=None if baseline is None else paired(scores, baseline, seed=seed),
        leaders=leaders(scores, seed=seed),
        convergence=convergence(tables.traces),
    )


def files(tables: Tables, found: Results) -> dict[str, bytes]:
    """Return each table as ``<name>.csv`` and ``<name>.parquet``: what was given and what was found."""
    frames = {
        "scores": tables.scores,
        "summary": found.summary,
        "failures": found.failures,
        "paired": found.paired,
        "convergence": found.convergence,
        "quarantine": tables.quarantine,
        "throughput": tables.throughput,
    }
    written: dict[str, bytes] = {}
    for name, frame in frames.items():
        if frame is not None:
            written[f"{name}.csv"] = frame.to_csv(index=False).encode()
            written[f"{name}.parquet"] = _parquet(frame)
    return written


def headline(found: pd.DataFrame, failed: pd.DataFrame) -> pd.DataFrame:
    """Return a row a node and a column a metric of ``mean ± half the 95 % interval``, as strings.

    Parameters
    ----------
    found : DataFrame
        What `summary` returned.
    failed : DataFrame
        What `failures` returned.
    """
    whole = found[found["level"] == "all"]
    cells = [_cell(row, failed) for row in whole.to_dict("records")]
    wide = whole.assign(cell=cells, title=[described(name).label for name in whole["metric"]])
    table = wide.pivot(index="node", columns="title", values="cell").fillna("")
    return table.reindex(index=whole["node"].unique(), columns=wide["title"].unique()).rename_axis(columns=None)


def _cell(row: Mapping[Hashable, Any], failed: pd.DataFrame) -> str:
    if row["n"] == 0:
        return why_none(failed, row["metric"], row["node"])
    text = plus_minus(row["mean"], row["ci_low"], row["ci_high"], decimals(row["metric"]))
    return f"{text} ({row['n_failed']} failed)" if row["n_failed"] else text


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
