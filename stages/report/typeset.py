"""The table of means as Markdown and as LaTeX: intervals, the best in bold, ties and failures told."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from melmill.stages.report.tables import number, why_none
from melmill.stages.score.metric import Metric
from melmill.stages.score.metric import metric as metric_of

_TIED = "can't be told from the best: the 95 % interval of their difference, utterance by utterance, holds 0"
_SPECIAL = re.compile(r"[\\{}$&#^_~%<>|±–−×†]")
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "†": r"$\dagger$",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Hold a cell: mean and half its interval as text, or why there is none, and what is told of it."""

    mean: str
    half: str = ""
    none: str = ""
    n_failed: int = 0
    mark: Literal["", "best", "tied"] = ""


@dataclass(frozen=True, kw_only=True)
class MeansTable:
    """Hold the means of a report, ready for print.

    Parameters
    ----------
    nodes : tuple of str
    metrics : tuple of Metric
    cells : mapping of (str, str) to Entry
        By node and column of the metric. A pair that was not asked for is left out.
    notes : tuple of str
        What a reader must know, a sentence each.
    """

    nodes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    cells: Mapping[tuple[str, str], Entry]
    notes: tuple[str, ...]

    @property
    def is_tall(self) -> bool:
        """Whether metrics are the rows: the longer side goes down the page."""
        return len(self.metrics) > max(6, len(self.nodes))


def means_table(summary: pd.DataFrame, ranks: pd.DataFrame, failures: pd.DataFrame) -> MeansTable:
    """Return the table of means over all utterances.

    Parameters
    ----------
    summary, ranks, failures : DataFrame
        What the functions of these names in `statistics` and `ranking` returned.
    """
    whole = summary[summary["level"] == "all"]
    marks: dict[tuple[str, str], Literal["best", "tied"]] = {}
    for row in ranks.to_dict("records"):
        if row["is_best"] or row["is_tied"]:
            marks[row["node"], row["metric"]] = "best" if row["is_best"] else "tied"
    cells = {
        (row["node"], row["metric"]): _entry(row, failures, marks.get((row["node"], row["metric"]), ""))
        for row in whole.to_dict("records")
    }
    return MeansTable(
        nodes=tuple(dict.fromkeys(whole["node"])),
        metrics=tuple(metric_of(name) for name in dict.fromkeys(whole["metric"])),
        cells=cells,
        notes=tuple(_notes(whole, cells)),
    )


def _entry(row: Mapping[Hashable, Any], failures: pd.DataFrame, mark: Literal["", "best", "tied"]) -> Entry:
    digits = metric_of(row["metric"]).decimals
    if row["n"] == 0:
        return Entry(mean="", none=why_none(failures, row["metric"], row["node"]))
    low, high = row["ci_low"], row["ci_high"]
    return Entry(
        mean=number(row["mean"], digits),
        half="" if pd.isna(low) else number((high - low) / 2, digits),
        n_failed=int(row["n_failed"]),
        mark=mark,
    )


def _notes(whole: pd.DataFrame, cells: Mapping[tuple[str, str], Entry]) -> Iterator[str]:
    counts = sorted(set((whole["n"] + whole["n_failed"]).astype(int)))
    over = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}" if counts else "0"
    yield f"Means over {over} utterances ± half the 95 % interval (bootstrap)."
    sets = [one.title for one in map(metric_of, dict.fromkeys(whole["metric"])) if one.group == "sets"]
    if sets:
        yield f"Of whole sets, with the jackknife's intervals: {'; '.join(sets)}."
    marks = {cell.mark for cell in cells.values()}
    if "best" in marks:
        yield "Bold: the best."
    if "tied" in marks:
        yield f"†: {_TIED}."
    if (whole["n_failed"] > 0).any():
        yield "Failed measurements are in no mean."
    uneven = [metric_of(name).title for name in dict.fromkeys(whole.loc[whole["uneven"], "metric"])]
    if uneven:
        yield f"Systems failed on different utterances, so their means are not over the same: {', '.join(uneven)}."


def markdown(table: MeansTable) -> str:
    """Return a table in Markdown, with its notes below."""

    def cell(entry: Entry | None) -> str:
        if entry is None:
            return ""
        if entry.none:
            return f"– ({entry.none})"
        text = f"{entry.mean} ± {entry.half}" if entry.half else entry.mean
        text = f"**{text}**" if entry.mark == "best" else f"{text} †" if entry.mark == "tied" else text
        return f"{text} ({entry.n_failed} failed)" if entry.n_failed else text

    def title(metric: Metric) -> str:
        return f"{_markdown_escaped(metric.label)} {metric.arrow}"

    head, rows = _arranged(table, cell, title, _markdown_escaped)
    lines = [
        f"| {' | '.join(head)} |",
        f"|---{'|---:' * (len(head) - 1)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        " ".join(table.notes),
    ]
    return "\n".join(lines) + "\n"


def latex(table: MeansTable) -> str:
    r"""Return a table in LaTeX, for the package ``booktabs``, with its notes as the caption."""

    def cell(entry: Entry | None) -> str:
        if entry is None:
            return ""
        if entry.none:
            return f"-- ({latex_escaped(entry.none)})"
        text = rf"{entry.mean} \pm {entry.half}" if entry.half else entry.mean
        text = rf"$\mathbf{{{text}}}$" if entry.mark == "best" else f"${text}$"
        if entry.mark == "tied":
            text += r"$^{\dagger}$"
        return f"{text} ({entry.n_failed} failed)" if entry.n_failed else text

    def title(metric: Metric) -> str:
        arrow = r"\uparrow" if metric.better == "higher" else r"\downarrow"
        return f"{latex_escaped(metric.label)} ${arrow}$"

    head, rows = _arranged(table, cell, title, latex_escaped)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_escaped(' '.join(table.notes))}}}",
        r"  \label{tab:scores}",
        rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(head)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(row)} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _arranged(
    table: MeansTable,
    cell: Callable[[Entry | None], str],
    title: Callable[[Metric], str],
    escaped: Callable[[str], str],
) -> tuple[list[str], list[list[str]]]:
    """Return the first line and the rows; the first cell of each is its head."""
    titles, names = [title(metric) for metric in table.metrics], [escaped(node) for node in table.nodes]
    cells = [[cell(table.cells.get((node, metric.column))) for metric in table.metrics] for node in table.nodes]
    if table.is_tall:
        return ["metric", *names], [[name, *column] for name, *column in zip(titles, *cells, strict=True)]
    return ["system", *titles], [[name, *row] for name, row in zip(names, cells, strict=True)]


def latex_escaped(text: str) -> str:
    r"""Return text with what LaTeX would take for commands escaped.

    >>> latex_escaped("a_b & 5 %")
    'a\\_b \\& 5 \\%'
    """
    return _SPECIAL.sub(lambda found: _ESCAPES.get(found[0], f"\\{found[0]}"), text)


def _markdown_escaped(text: str) -> str:
    return re.sub(r"([\\|*_`\[\]<>])", r"\\\1", text)
