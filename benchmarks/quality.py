"""Print the mean scores of a store's last run on the 20 test-other utterances that others can repeat.

python -m benchmarks.quality STORE [--all]
"""

from __future__ import annotations

import click
import pandas as pd

import melmill

CHOSEN = r"-000[34]$"
COLUMNS = {"scm_db": "SCM dB", "sc_db": "SC dB", "pesq_wb": "PESQ-wb", "estoi": "ESTOI"}
PLACES = {"scm_db": 2, "sc_db": 2, "pesq_wb": 3, "estoi": 3}


@click.command()
@click.argument("store")
@click.option("--all", "everything", is_flag=True, help="All utterances, not only those 20.")
def main(store: str, everything: bool) -> None:
    """Print a Markdown table: a row a method, the mean of every score that is ok."""
    scores = melmill.open(store).scores()
    if not everything:
        chosen = scores["utterance_id"].str.contains(CHOSEN) & (scores["subset"] == "test-other")
        scores = scores[chosen]
    click.echo(f"{scores['utterance_id'].nunique()} utterances\n")
    click.echo("| method | " + " | ".join(COLUMNS.values()) + " | failed |")
    click.echo("|---" * (len(COLUMNS) + 2) + "|")
    for node, rows in scores.groupby("node", sort=False):
        failed = int(sum((rows[f"status_{name}"] != "ok").sum() for name in COLUMNS))
        means = [f"{_mean(rows, name):.{PLACES[name]}f}" for name in COLUMNS]
        click.echo(f"| {node} | " + " | ".join(means) + f" | {failed} |")


def _mean(rows: pd.DataFrame, name: str) -> float:
    return float(rows.loc[rows[f"status_{name}"] == "ok", name].mean())


if __name__ == "__main__":
    main()
