"""Comparisons and verdicts as one HTML file that loads nothing else, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from melmill.stages.report.comparison.runs import Comparison
from melmill.stages.report.comparison.verdicts import Judgement
from melmill.stages.report.contract import Example
from melmill.stages.report.examples import Clip, clip, excerpt_s
from melmill.stages.report.statistics import ALL
from melmill.stages.report.tables import number, p_value
from melmill.stages.report.views.page_tables import Cell, Grid, signed
from melmill.stages.report.views.templates import render
from melmill.stages.score.metric import metric as metric_of

# Audio of a page before base64.
_AUDIO_BYTES = 9_000_000
MOST_HEARD = 30
"""Utterances of one page that can be played."""

_TEMPLATE = "comparison/page.html.j2"
_MARKS = {"tripped": "worse", "passed": "better", "unsure": "open", "unjudged": "open"}

Row = Mapping[Hashable, Any]


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Hold what the page plays of one utterance: the recording, and both reconstructions."""

    anchor: str
    utterance_id: str
    text: str
    why: str
    excerpt: str
    takes: tuple[tuple[str, Clip], ...]


def gate_page(judgement: Judgement) -> bytes:
    """Return the page of a gate's verdict, as UTF-8."""
    rules = [
        [
            _head(placed.where),
            _label(placed.rule.text),
            _state(judgement.state(at)),
            Cell(text=judgement.found(at), kind="text"),
        ]
        for at, placed in enumerate(judgement.rules, start=1)
    ]
    checks = [
        [
            _head(judgement.rules[check.rule - 1].where),
            _label(check.node),
            _label(check.group),
            _state(check.state),
            Cell(text=check.says, kind="text"),
            Cell(text=p_value(check.p_holm)),
        ]
        for check in judgement.checks
    ]
    names = [placed.rule.measured for placed in judgement.rules]
    return render(
        _TEMPLATE,
        **{**_EMPTY, "metrics": list(dict.fromkeys(one for one in names if one is not None))},
        title=f"Gate {'passed' if judgement.passed else 'tripped'}",
        facts=[
            ("run", judgement.run),
            *([("baseline", judgement.baseline)] if judgement.baseline else []),
            ("rules", str(len(rules))),
            ("tripped", str(len(judgement.tripped))),
        ],
        sections=[("rules", "Rules"), ("checks", "Checks"), ("missing", "What is not comparable")],
        rules=Grid(caption="Verdict by rule", columns=["where", "rule", "verdict", "found"], rows=rules),
        checks=Grid(caption="Checks", columns=["where", "node", "group", "verdict", "found", "Holm p"], rows=checks),
        notes=judgement.notes,
    )


_EMPTY: dict[str, Any] = {"changes": None, "by": (), "worst": (), "heard": (), "problems": ()}


def comparison_page(
    comparison: Comparison, examples: Sequence[tuple[str, Example]] = (), problems: Sequence[str] = ()
) -> bytes:
    """Return the page of a comparison, as UTF-8.

    Parameters
    ----------
    comparison : Comparison
    examples : sequence of (str, Example)
        What can be played of `worst_first_heard`: the node as the comparison names it, and audio by
        names of the sides.
    problems : sequence of str
        Why others can't be played, a line each.
    """
    known = listening_anchors(comparison)
    heard = list(_heard(examples, known))
    anchors = {(node, one.utterance_id): known[node, one.utterance_id] for node, one in examples}
    worst = list(_worst(comparison, anchors))
    sections = [("changes", "Changes"), ("groups", f"By {' and '.join(comparison.by)}")]
    sections += [("worst", "Worst utterances"), ("listen", "Listen"), ("missing", "What is not comparable")]
    shown = {"changes", "missing", *(["groups"] if comparison.by else []), *(["worst"] if worst else [])}
    shown |= {"listen"} if heard or problems else set()
    tests = comparison.tests
    return render(
        _TEMPLATE,
        title=f"{comparison.a} → {comparison.b}",
        facts=[
            ("A", comparison.a),
            ("B", comparison.b),
            ("utterances", f"{comparison.overall['n'].max() if len(comparison.overall) else 0:,}"),
            ("tests", str(int(tests["wilcoxon_p"].notna().sum()))),
        ],
        sections=[(anchor, name) for anchor, name in sections if anchor in shown],
        rules=None,
        checks=None,
        changes=_changes(comparison.overall),
        by=comparison.by,
        worse_groups=_groups(comparison.worse_slices, "Groups that got worse")
        if len(comparison.worse_slices)
        else None,
        groups=_groups(tests[tests["by"] != ALL], "All groups"),
        worst=worst,
        heard=heard,
        problems=problems,
        notes=comparison.not_comparable,
        metrics=[metric_of(name) for name in dict.fromkeys(tests["metric"])],
    )


def _head(text: str) -> Cell:
    return Cell(text=text, kind="label")


def _label(text: str) -> Cell:
    return Cell(text=text, kind="text")


def _state(state: str) -> Cell:
    return Cell(text=state, mark=_MARKS[state], kind="label")


_CHANGE_COLUMNS = (
    *("node", "verdict", "A", "B", "difference", "95 % interval", "better / worse", "n", "Wilcoxon p", "Holm p"),
    *("effect", "detectable"),
)


def _changes(tests: pd.DataFrame) -> Grid:
    ordered = tests.sort_values("metric", key=_order_of(tests), kind="stable")
    counts = ordered["metric"].value_counts(sort=False)
    return Grid(
        caption="B minus A, utterance by utterance",
        columns=_CHANGE_COLUMNS,
        rows=[[_head(str(row["node"])), *_cells(row)] for row in ordered.to_dict("records")],
        sections=[(metric_of(name).label + f" {metric_of(name).arrow}", int(counts[name])) for name in counts.index],
    )


def _order_of(tests: pd.DataFrame) -> Any:  # noqa: ANN401 - what sort_values takes
    place = {name: at for at, name in enumerate(dict.fromkeys(tests["metric"]))}
    return lambda column: column.map(place)


def _groups(tests: pd.DataFrame, caption: str) -> Grid:
    return Grid(
        caption=caption,
        columns=["group", "metric", *_CHANGE_COLUMNS],
        rows=[
            [
                _head(f"{row['by']} {row['slice']}"),
                _head(metric_of(row["metric"]).name),
                _head(str(row["node"])),
                *_cells(row),
            ]
            for row in tests.to_dict("records")
        ],
    )


def _cells(row: Row) -> Iterator[Cell]:
    digits = metric_of(row["metric"]).decimals + 1
    verdict = row["outcome"] or "open"
    interval = "–"
    if not math.isnan(row["ci_low"]):
        interval = f"{signed(row['ci_low'], digits)} to {signed(row['ci_high'], digits)}"
    yield Cell(text=verdict, mark=verdict, kind="label")
    yield Cell(text=number(row["mean_a"], digits))
    yield Cell(text=number(row["mean_b"], digits))
    yield Cell(text=signed(row["mean_difference"], digits), hint=row["reason"])
    yield Cell(text=interval, kind="label")
    yield Cell(text=f"{row['n_better']} / {row['n_worse']}")
    yield Cell(text=str(row["n"]))
    yield Cell(text=p_value(row["wilcoxon_p"]), hint=row["reason"])
    yield Cell(text=p_value(row["wilcoxon_p_holm"]), hint=row["reason"])
    yield Cell(text=signed(row["effect_size"], 2))
    yield Cell(text=number(row["smallest_detectable"], digits), small=row["reason"])


def _worst(
    comparison: Comparison, anchors: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    for (name, node), rows in comparison.worst.groupby(["metric", "node"], sort=False):
        metric = metric_of(str(name))
        digits = metric.decimals + 1
        yield (
            f"{metric.label}, {node}",
            [
                {
                    "utterance_id": row["utterance_id"],
                    "speaker": row["speaker_id"],
                    "a": number(row["value_a"], digits),
                    "b": number(row["value_b"], digits),
                    "difference": signed(row["difference"], digits),
                    "anchor": anchors.get((str(node), row["utterance_id"]), ""),
                }
                for row in rows.to_dict("records")
            ],
        )


def worst_first_heard(comparison: Comparison, most: int = MOST_HEARD) -> list[tuple[str, str, str]]:
    """Return which utterances to play: node, id, and why.

    The ten worst by the first metric come first, then those by the next.
    """
    found: dict[tuple[str, str], str] = {}
    order = comparison.worst.groupby(["metric", "node"], sort=False).cumcount() + 1
    for rank, row in zip(order, comparison.worst.to_dict("records"), strict=True):
        why = f"{row['node']}: number {rank} of the worst by {metric_of(row['metric']).title}"
        found.setdefault((str(row["node"]), row["utterance_id"]), why)
    return [(node, utterance_id, why) for (node, utterance_id), why in list(found.items())[:most]]


def listening_anchors(comparison: Comparison) -> dict[tuple[str, str], str]:
    """Return the anchor of each utterance to play, by node and id, whether it can be played or not."""
    heard = worst_first_heard(comparison)
    return {(node, utterance_id): f"listen-{at}" for at, (node, utterance_id, _) in enumerate(heard, start=1)}


def _heard(examples: Sequence[tuple[str, Example]], anchors: Mapping[tuple[str, str], str]) -> Iterator[Heard]:
    rates = [rate for _, one in examples for rate in (one.sr, *(one.rates[side] for side in one.reconstructions))]
    seconds = excerpt_s(rates, n_pictures=0, budget_bytes=_AUDIO_BYTES)
    for node, one in examples:
        duration_s = one.reference.size / one.sr
        takes = [("recording", clip(one.reference[: round(seconds * one.sr)], one.sr))] if one.reference.size else []
        takes += [
            (side, clip(y[: round(seconds * one.rates[side])], one.rates[side]))
            for side, y in one.reconstructions.items()
        ]
        cut = f"The first {seconds:.1f} s of {duration_s:.1f} s." if duration_s > seconds else ""
        yield Heard(
            anchor=anchors[node, one.utterance_id],
            utterance_id=one.utterance_id,
            text=one.text,
            why=one.why,
            excerpt=cut,
            takes=tuple(takes),
        )


def comparison_markdown(comparison: Comparison, page: str = "") -> str:
    """Return a comparison as Markdown: tables of changes, of groups that got worse, and of the worst.

    Parameters
    ----------
    comparison : Comparison
    page : str
        Address of its page with players, which utterances link to. Empty: there is none.
    """
    lines = [f"# {_plain(comparison.a)} → {_plain(comparison.b)}", "", *_markdown(_changes(comparison.overall))]
    if comparison.by:
        lines += ["", f"## By {' and '.join(comparison.by)}", ""]
        if len(comparison.worse_slices):
            lines += ["Groups that got worse though the mean did not:", ""]
            lines += _markdown(_groups(comparison.worse_slices, ""))
        else:
            lines += ["No group got worse where the mean over all utterances did not."]
    for table, rows in _worst(comparison, listening_anchors(comparison)):
        lines += [
            "",
            f"## Worst by {_plain(table)}",
            "",
            "| utterance | speaker | A | B | difference |",
            "|---|---|--:|--:|--:|",
        ]
        for row in rows:
            name = _plain(row["utterance_id"])
            link = f"[{name}]({page}#{row['anchor']})" if page and row["anchor"] else name
            lines.append(f"| {link} | {_plain(row['speaker'])} | {row['a']} | {row['b']} | {row['difference']} |")
    lines += ["", "## Not comparable", ""]
    lines += [f"- {_plain(note)}" for note in comparison.not_comparable] or ["Everything is comparable."]
    return "\n".join(lines) + "\n"


def _markdown(grid: Grid) -> Iterator[str]:
    titled = bool(grid.sections)
    columns = [*(["metric"] if titled else []), *grid.columns]
    yield f"| {' | '.join(map(_plain, columns))} |"
    yield f"|{'|'.join(['---'] * len(columns))}|"
    for title, rows in grid.parts:
        for row in rows:
            yield f"| {' | '.join(map(_plain, [*([title] if titled else []), *(cell.text for cell in row)]))} |"


def _plain(text: str) -> str:
    """Return text that means itself in Markdown."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]<>#|~" else char for char in text)
