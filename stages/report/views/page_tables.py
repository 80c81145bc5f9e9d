"""The tables of the report's page, as rows of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pandas as pd

from melmill.stages.contract.products import declared
from melmill.stages.report.sweeps import FEWEST, Arrangement, Sweep
from melmill.stages.report.tables import Results, number, p_value, plus_minus, status, why_none
from melmill.stages.report.views.overview import grouped
from melmill.stages.score.metric import metric as metric_of

SHOWN_QUARANTINE = 200
# Metrics up to this number are columns even where there are fewer nodes.
_MOST_ACROSS = 6
# With more means than these, a table has no room for words in its cells.
_MOST_ROOMY = 60
# Stands before a mean that can't be told from the best where there is no room for words.
_TIED = "≈"
_REASON_LENGTH = 300


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Hold a cell: its text, a smaller line under it, its tooltip, and its mark.

    `kind` is ``number`` (right-aligned), ``label`` (left-aligned, one line) or ``text``
    (left-aligned, wrapped).
    """

    text: str
    small: str = ""
    hint: str = ""
    mark: str = ""
    kind: Literal["number", "label", "text"] = "number"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Hold a table of the page.

    The first cell of each row is its head. `sections` are titles with their numbers of rows.
    `is_sortable` says whether the cells of a column can be compared, `is_dense` that there are many.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = field(default_factory=tuple)
    sections: Sequence[tuple[str, int]] = ()
    is_sortable: bool = True
    is_dense: bool = False

    @property
    def parts(self) -> list[tuple[str, Sequence[Sequence[Cell]]]]:
        """The sections with their rows; without sections, all rows under an empty title."""
        parts, start = [], 0
        for title, count in self.sections or [("", len(self.rows))]:
            parts.append((title, self.rows[start : start + count]))
            start += count
        return parts


Record = Mapping[Hashable, Any]


def headline(results: Results, arrangement: Arrangement) -> Grid:
    """Return means and intervals over all utterances, without maps that have their own table."""
    folded = {node for sweep in folded_maps(arrangement) for node in sweep.points}
    return _means(results, [node for node in arrangement.nodes if node not in folded])


def folded_maps(arrangement: Arrangement) -> list[Sweep]:
    """Return the maps of a crowded report, whose tables stand apart."""
    return [sweep for sweep in arrangement.sweeps if sweep.is_map and arrangement.is_crowded]


def of_map(results: Results, sweep: Sweep) -> Grid:
    """Return means and intervals of the nodes of a map."""
    return _means(results, list(sweep.points))


def _means(results: Results, nodes: Sequence[str]) -> Grid:
    summary = results.summary
    whole = summary[(summary["level"] == "all") & summary["node"].isin(nodes)]
    metrics, rated = list(dict.fromkeys(whole["metric"])), set(whole["node"])
    nodes = [node for node in nodes if node in rated]
    # Where nothing failed, n is said once for all.
    troubled = set(whole.loc[(whole["n_failed"] > 0) | whole["uneven"], "metric"])
    counts = set(whole.loc[~whole["metric"].isin(troubled), "n"])
    alike = len(counts) == 1
    cells = {
        (row["node"], row["metric"]): _mean(row, results, counted=not alike or row["metric"] in troubled)
        for row in whole.to_dict("records")
    }
    over = f"{counts.pop():,} utterances{' where no n is given' if troubled else ''}" if alike else "utterances"
    caption = f"Mean over {over} ± half the 95 % interval"
    is_dense = len(metrics) * len(nodes) > _MOST_ROOMY
    notes = _uneven(whole, is_dense)
    if is_dense:
        cells = {at: _brief(cell) for at, cell in cells.items()}
        notes = [f"Bold is the best. {_TIED} marks nodes that can't be told from it. Point at a cell for more.", *notes]
    if len(metrics) > max(_MOST_ACROSS, len(nodes)):
        return replace(_transposed(nodes, metrics, cells), caption=caption, notes=notes, is_dense=is_dense)
    sections = _sections(nodes)
    rows = [
        [
            _head(node.partition("[")[2][:-1] if sections and "[" in node else node),
            *(cells.get((node, metric), _none("not asked for")) for metric in metrics),
        ]
        for node in nodes
    ]
    return Grid(
        caption=caption,
        columns=["node", *(_titled(metric) for metric in metrics)],
        rows=rows,
        notes=notes,
        sections=sections,
        is_dense=is_dense,
    )


def _uneven(whole: pd.DataFrame, is_dense: bool) -> list[str]:
    """Return lines on metrics by which nodes failed on different utterances."""
    first = whole[whole["uneven"]].drop_duplicates("metric")
    uneven = {metric_of(row["metric"]).title: int(row["n_common"]) for row in first.to_dict("records")}
    if is_dense:
        names = ", ".join(uneven)
        return (
            [f"Nodes failed on different utterances, so that means are not over the same: {names}."] if uneven else []
        )
    notes = []
    for title, n_common in uneven.items():
        shared = f"is the mean over the {n_common} that all nodes have"
        none = "has no mean: they share no utterance"
        notes.append(f"{title}: the nodes failed on different utterances. “Common” {shared if n_common else none}.")
    return notes


def _transposed(nodes: Sequence[str], metrics: Sequence[str], cells: Mapping[tuple[str, str], Cell]) -> Grid:
    """Return cells with a row for each metric, in a section for each group of metrics."""
    groups = grouped(metrics)
    rows = [
        [
            _head(_titled(metric.column)),
            *(cells.get((node, metric.column), _none("not asked for")) for node in nodes),
        ]
        for _, members in groups
        for metric in members
    ]
    return Grid(
        caption="",
        columns=["metric", *nodes],
        rows=rows,
        sections=[(title, len(members)) for title, members in groups] if len(groups) > 1 else (),
        is_sortable=False,
    )


def _brief(cell: Cell) -> Cell:
    """Return a cell in one line where nothing failed: its mark is a sign."""
    failed = [part for part in cell.small.replace("\n", ", ").split(", ") if part.endswith("failed")]
    if cell.mark == "tied":
        return replace(cell, text=f"{_TIED}\u00a0{cell.text}", small=", ".join(failed), mark="")
    return replace(cell, small=", ".join(failed), mark="strong" if cell.mark == "best" else cell.mark)


def _sections(nodes: Sequence[str]) -> list[tuple[str, int]]:
    """Return a section for each declared node where one was fanned out into three or more nodes."""
    counts = [(name, len(list(group))) for name, group in itertools.groupby(nodes, declared)]
    if max((count for _, count in counts), default=0) < FEWEST:
        return []
    fanned = {declared(node) for node in nodes if "[" in node}
    return [(name if name in fanned else "", count) for name, count in counts]


def best(results: Results) -> list[tuple[str, str, str, int]]:
    """Return each metric's name, best node, its mean, and how many nodes can't be told from it."""
    whole = results.summary[results.summary["level"] == "all"]
    means = {(row["metric"], row["node"]): row for row in whole.to_dict("records")}
    rows = []
    for metric, (node, *tied) in results.leaders.items():
        row = means[metric, node]
        mean = plus_minus(row["mean"], row["ci_low"], row["ci_high"], metric_of(metric).decimals)
        rows.append((_titled(metric), node, mean, len(tied)))
    return rows


def _mean(row: Record, results: Results, *, counted: bool) -> Cell:
    metric, node = row["metric"], row["node"]
    if row["n"] == 0:
        return _none(why_none(results.failures, metric, node))
    best, *tied = results.leaders.get(metric, [""])
    digits = metric_of(metric).decimals
    small = f"n\u00a0{row['n']}" if counted else ""
    small += f", {row['n_failed']}\u00a0failed" if row["n_failed"] else ""
    if row["uneven"]:
        small += f"\ncommon\u00a0{number(row['mean_common'], digits)}"
    if math.isnan(row["ci_low"]):
        hint = f"n {row['n']}: no interval"
    else:
        spread = f"median {number(row['median'], digits)}, standard deviation {number(row['std'], digits)}"
        hint = f"95 % interval {number(row['ci_low'], digits)} to {number(row['ci_high'], digits)}, {spread}"
    return Cell(
        text=plus_minus(row["mean"], row["ci_low"], row["ci_high"], digits),
        small=small,
        hint=hint,
        mark="best" if node == best else "tied" if node in tied else "",
    )


def paired(table: pd.DataFrame) -> Grid:
    """Return the differences from the baseline with their tests, in a section for each metric."""
    rows = []
    for row in table.to_dict("records"):
        metric, low, high = metric_of(row["metric"]), row["ci_low"], row["ci_high"]
        digits = metric.decimals
        verdict, interval = "open", "–"
        if not math.isnan(low):
            interval = f"{signed(low, digits)} to {signed(high, digits)}"
            if not low <= 0 <= high:
                verdict = "better" if low * metric.sign > 0 else "worse"
        rows.append(
            [
                _head(row["node"]),
                Cell(text=verdict, mark=verdict, kind="label"),
                Cell(text=signed(row["mean_difference"], digits), hint=row["reason"]),
                Cell(text=interval, kind="label"),
                Cell(text=f"{row['n_better']} / {row['n_worse']}"),
                Cell(text=str(row["n"])),
                Cell(text=p_value(row["wilcoxon_p"]), hint=row["reason"]),
                Cell(text=p_value(row["wilcoxon_p_holm"]), hint=row["reason"]),
                Cell(text=p_value(row["ttest_p"]), hint=row["reason"], small=row["reason"]),
            ]
        )
    columns = [
        "node",
        "verdict",
        "difference",
        "95 % interval",
        "better / worse",
        "n",
        "Wilcoxon p",
        "Holm p",
        "t test p",
    ]
    counts = table["metric"].value_counts(sort=False)
    return Grid(
        caption="Node minus baseline, utterance by utterance",
        columns=columns,
        rows=rows,
        sections=[(_titled(metric), int(counts[metric])) for metric in dict.fromkeys(table["metric"])],
    )


def signed(value: float, digits: int) -> str:
    """Return a number with its sign.

    >>> signed(0.5, 2), signed(-0.5, 2)
    ('+0.50', '-0.50')
    """
    return number(value, digits) if math.isnan(value) or value <= 0 else f"+{number(value, digits)}"


def by_group(results: Results, by: Sequence[str], nodes: Sequence[str]) -> list[Grid]:
    """Return a table for each metric, with a row per group and a column for each of `nodes`."""
    summary = results.summary
    parts = summary[(summary["level"] != "all") & summary["node"].isin(nodes)]
    levels = [{"subset": "subset", "speaker": "speaker_id"}[name] for name in by]
    grids = []
    for metric in dict.fromkeys(parts["metric"]):
        part, digits = parts[parts["metric"] == metric], metric_of(metric).decimals
        columns = list(dict.fromkeys(part["node"]))
        cells: dict[tuple[str, ...], dict[str, Cell]] = {}
        for row in part.to_dict("records"):
            small = f"{row['n_failed']} failed" if row["n_failed"] else ""
            text = plus_minus(row["mean"], row["ci_low"], row["ci_high"], digits) if row["n"] else "–"
            group = tuple(str(row[level]) for level in levels)
            cells.setdefault(group, {})[row["node"]] = Cell(text=text, small=small, hint=f"n {row['n']}")
        rows = [
            [*(_head(name or "(none)") for name in group), *(of_node.get(node, Cell(text="–")) for node in columns)]
            for group, of_node in sorted(cells.items(), key=lambda item: all_first(item[0]))
        ]
        grids.append(Grid(caption=_titled(metric), columns=[*by, *columns], rows=rows))
    return grids


def all_first(key: tuple[str, ...]) -> list[tuple[bool, int, str]]:
    """Return a sort key: a group's total before its parts, names by letter, numbers by size."""
    return [(name != "all", int(name) if name.isdecimal() else 0, name) for name in key]


def failures(counted: pd.DataFrame) -> Grid:
    """Return counts of failed measurements: a row per node and metric, a column per status."""
    kinds = list(dict.fromkeys(counted["status"]))
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in counted.to_dict("records"):
        counts.setdefault((row["node"], row["metric"]), {})[row["status"]] = row["n"]
    rows = [
        [
            _head(node),
            Cell(text=metric_of(name).title, kind="label"),
            *(Cell(text=str(of.get(kind, 0))) for kind in kinds),
        ]
        for (node, name), of in counts.items()
    ]
    return Grid(caption="Measurements without a value", columns=["node", "metric", *map(status, kinds)], rows=rows)


def quarantine_reasons(rejected: pd.DataFrame) -> Grid:
    """Return counts of quarantined utterances: a row per node and reason."""
    counts = rejected.groupby(["node", "stage", "reason"], sort=False, dropna=False).size().rename("n").reset_index()
    ordered = counts.sort_values("n", ascending=False, kind="stable").head(SHOWN_QUARANTINE)
    rows = [[*_texts(row, ("node", "stage", "reason")), Cell(text=str(row["n"]))] for row in ordered.to_dict("records")]
    return Grid(caption="Why", columns=["node", "stage", "reason", "utterances"], rows=rows)


def quarantine(rejected: pd.DataFrame) -> Grid:
    """Return the first 200 quarantined utterances."""
    columns = ("utterance_id", "node", "stage", "reason")
    rows = [_texts(row, columns) for row in rejected.head(SHOWN_QUARANTINE).to_dict("records")]
    rest = len(rejected) - len(rows)
    notes = [f"{rest} more, and all tracebacks, are in quarantine.csv."] if rest else []
    return Grid(caption="Which", columns=["utterance", *columns[1:]], rows=rows, notes=notes)


def _texts(row: Record, columns: Iterable[str]) -> list[Cell]:
    texts: list[str] = ["" if pd.isna(row[name]) else str(row[name]) for name in columns]
    cut = [text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]}…" for text in texts]
    return [Cell(text=text, kind="text") for text in cut]


def throughput(timing: pd.DataFrame) -> Grid:
    """Return how long each node took for how much audio, and how busy its device was."""
    rows = []
    for row in timing.to_dict("records"):
        sizes = [str(row["shards"]), str(row["utterances"]), f"{row['audio_s'] / 3600:.2f}", f"{row['compute_s']:.1f}"]
        fast = f"{row['audio_s'] / row['wall_s']:.1f}" if row["wall_s"] > 0 else "–"
        busy = f"{row['busy_s'] / row['wall_s']:.0%}" if row["wall_s"] > 0 and row["busy_s"] >= 0 else "–"
        memory = f"{row['peak_mem_bytes'] / 2**20:.0f}" if row["peak_mem_bytes"] > 0 else "–"
        cells = [*sizes, f"{row['wall_s']:.1f}", fast, busy, memory]
        rows.append([_head(row["node"]), *_texts(row, ["pool", "device"]), *(Cell(text=text) for text in cells)])
    columns = ["node", "pool", "device", "shards", "utterances", "audio [h]", "compute [s]", "worker [s]"]
    note = (
        "Compute is time inside the stage. Worker is time with a task under way, including reading and writing. "
        "Utilisation is the share of worker time in which the device was at work. Memory is the largest size of a "
        "process during a task."
    )
    return Grid(
        caption="Work done, summed over workers",
        columns=[*columns, "× real time", "utilisation", "memory [MiB]"],
        rows=rows,
        notes=[note],
    )


def _titled(metric: str) -> str:
    return f"{metric_of(metric).label}\u00a0{metric_of(metric).arrow}"


def _head(text: str) -> Cell:
    return Cell(text=text, kind="label")


def _none(reason: str) -> Cell:
    return Cell(text=reason, mark="none")
