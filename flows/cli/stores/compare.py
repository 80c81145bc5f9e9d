"""`melmill compare`: how one run differs from another, utterance by utterance."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from melmill.flows.cli.group import DONE, LocalPath, cli
from melmill.flows.cli.show import as_json, one_line, table, write_file

if TYPE_CHECKING:
    from melmill.flows.runs.compare import RunComparison

_COLUMNS = (
    *("metric", "node", "A", "B", "B - A", "95 % interval", "verdict", "Holm p", "effect", "detectable", "n"),
    "better/worse",
)


def _names(values: tuple[str, ...]) -> list[str]:
    """Return names that were given between commas or one by one, each once."""
    return list(dict.fromkeys(name.strip() for text in values for name in text.split(",") if name.strip()))


@cli.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="Compare this scored node. Repeatable.")
@click.option(
    "-m",
    "--metric",
    "--metrics",
    "metrics",
    multiple=True,
    metavar="NAMES",
    help="Metrics, between commas. Repeatable.  [default: all that both have]",
)
@click.option(
    "--by", multiple=True, metavar="NAMES", help="Groups, between commas: subset, speaker, sex, chapter. Repeatable."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the bootstrap of intervals."
)
@click.option("--other-project", is_flag=True, help="Compare runs of two projects.")
@click.option("--html", type=LocalPath(dir_okay=False), metavar="FILE", help="Write a page with players.")
@click.option("--markdown", type=LocalPath(dir_okay=False), metavar="FILE", help="Write tables in Markdown.")
@click.option("--junit", type=LocalPath(dir_okay=False), metavar="FILE", help="Write JUnit's XML.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def compare(
    a: str,
    b: str,
    nodes: tuple[str, ...],
    metrics: tuple[str, ...],
    by: tuple[str, ...],
    seed: int,
    other_project: bool,
    html: Path | None,
    markdown: Path | None,
    junit: Path | None,
    json_: bool,
) -> int:
    """Compare the scores of run B with those of run A, utterance by utterance.

    A and B are STORE, STORE@TAG or STORE@RUN, each with :NODE where one node is meant. Differences are B minus A.

    \b
    Examples:
      melmill compare runs/x@nightly runs/x
      melmill compare runs/x:gla runs/x:admm --metric pesq_wb,estoi --by speaker
      melmill compare runs/x@v1 runs/x@v2 --html difference.html --junit difference.xml
    """
    from melmill.flows.runs.compare import compare_addresses

    found = compare_addresses(
        a,
        b,
        nodes=_names(nodes),
        metrics=_names(metrics) or None,
        by=_names(by),
        seed=seed,
        other_project=other_project,
    )
    if html is not None:
        write_file(html, found.html())
    if markdown is not None:
        write_file(markdown, found.markdown("" if html is None else _relative(html, markdown)).encode())
    if junit is not None:
        write_file(junit, found.junit())
    if json_:
        as_json(found.as_dict())
    else:
        _show(found)
    return DONE


def _relative(page: Path, markdown: Path) -> str:
    """Return the address of a page as a file beside it names it."""
    same = page.resolve().parent == markdown.resolve().parent
    return page.name if same else page.resolve().as_uri()


def _show(found: RunComparison) -> None:
    comparison = found.comparison
    click.echo(f"A: {comparison.a}")
    click.echo(f"B: {comparison.b}")
    table(_COLUMNS, _rows(comparison.overall.to_dict("records")))
    if comparison.by:
        if len(comparison.worse_slices):
            columns = ("group", *_COLUMNS)
            records = comparison.worse_slices.to_dict("records")
            groups = (f"{row['by']} {row['slice']}" for row in records)
            rows = ((group, *row) for group, row in zip(groups, _rows(records), strict=True))
            table(columns, rows, title="groups that got worse though the mean did not")
        else:
            click.echo(f"no {' or '.join(comparison.by)} got worse where the mean did not")
    _show_worst(found)
    for note in comparison.not_comparable:
        click.echo(f"not comparable: {one_line(note)}")


def _rows(records: Iterable[Mapping[Hashable, Any]]) -> Iterator[tuple[object, ...]]:
    from melmill.stages.report.tables import number, p_value
    from melmill.stages.report.views.page_tables import signed
    from melmill.stages.score.metric import metric as metric_of

    for row in records:
        metric = metric_of(str(row["metric"]))
        digits = metric.decimals + 1
        yield (
            f"{metric.name} {metric.arrow}",
            row["node"],
            number(row["mean_a"], digits),
            number(row["mean_b"], digits),
            signed(row["mean_difference"], digits),
            f"{signed(row['ci_low'], digits)} to {signed(row['ci_high'], digits)}",
            row["outcome"] or row["reason"] or "open",
            p_value(row["wilcoxon_p_holm"]),
            signed(row["effect_size"], 2),
            number(row["smallest_detectable"], digits),
            row["n"],
            f"{row['n_better']}/{row['n_worse']}",
        )


def _show_worst(found: RunComparison) -> None:
    """Print the worst utterances by the first metric that has some."""
    from melmill.stages.report.tables import number
    from melmill.stages.report.views.page_tables import signed
    from melmill.stages.score.metric import metric as metric_of

    worst = found.comparison.worst
    if worst.empty:
        return
    metric = metric_of(str(worst["metric"].iloc[0]))
    digits = metric.decimals + 1
    table(
        ("utterance", "speaker", "node", "A", "B", "B - A", "recording"),
        (
            (
                row["utterance_id"],
                row["speaker_id"],
                row["node"],
                number(row["value_a"], digits),
                number(row["value_b"], digits),
                signed(row["difference"], digits),
                found.recording(row["node"], row["utterance_id"]),
            )
            for row in worst[worst["metric"] == metric.column].to_dict("records")
        ),
        title=f"utterances that lost most by {metric.title}",
    )
