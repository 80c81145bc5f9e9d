"""Print the mean scores of a store's last run, with confidence intervals.

python -m benchmarks.quality STORE [--all]

Means are over the 20 utterances of test-other whose names end in -0003 or -0004, so that others can
repeat them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import click

import melmill
from melmill.stages.report.statistics import summary
from melmill.stages.report.tables import plus_minus

CHOSEN = r"-000[34]$"
COLUMNS = {"scm_db": "SCM dB", "sc_db": "SC dB", "pesq_wb": "PESQ-wb", "estoi": "ESTOI"}
PLACES = {"scm_db": 2, "sc_db": 2, "pesq_wb": 3, "estoi": 3}


@click.command()
@click.argument("store")
@click.option("--all", "everything", is_flag=True, help="All utterances, not only those 20.")
def main(store: str, everything: bool) -> None:
    """Print a Markdown table with a row for each method.

    Each value is a mean ± half its 95 % interval over the scores with status ok. Nodes with fewer
    metrics than others, such as a map of parameters, are left out.
    """
    scores = melmill.open(store).scores()
    if not everything:
        chosen = scores["utterance_id"].str.contains(CHOSEN) & (scores["subset"] == "test-other")
        scores = scores[chosen]
    found = summary(scores, by=()).set_index(["node", "metric"])
    columns = [name for name in COLUMNS if name in found.index.unique("metric")]
    click.echo(f"{scores['utterance_id'].nunique()} utterances, mean ± half the 95 % interval\n")
    click.echo("| method | iterations | " + " | ".join(COLUMNS[name] for name in columns) + " | failed |")
    click.echo("|---" * (len(columns) + 3) + "|")
    for node in scores["node"].unique():
        if all((node, name) in found.index for name in columns):
            click.echo(_row(node, found.loc[node].to_dict("index"), columns))


def _row(node: str, found: Mapping[Hashable, Any], columns: Sequence[str]) -> str:
    method, _, label = node.removesuffix("]").partition("[")
    rows = [found[name] for name in columns]
    means = [
        plus_minus(row["mean"], row["ci_low"], row["ci_high"], PLACES[name])
        for name, row in zip(columns, rows, strict=True)
    ]
    failed = sum(int(row["n_failed"]) for row in rows)
    return f"| `{method}` | {label.removeprefix('n_iter=')} | " + " | ".join(means) + f" | {failed} |"


if __name__ == "__main__":
    main()
