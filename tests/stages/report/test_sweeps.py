"""Nodes that differ in numbers: found, drawn and put in order on the page."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from melmill.stages.report.contract import Provenance, Tables
from melmill.stages.report.figures import COLOURS
from melmill.stages.report.stage import Aggregate
from melmill.stages.report.statistics import summary
from melmill.stages.report.sweeps import CROWDED, arrange, find_sweeps
from melmill.stages.report.tables import results
from melmill.stages.report.views.page_tables import folded_maps, headline, of_map
from melmill.stages.report.views.sweep_figures import Line, Map, against, heat_map, lines, maps
from tests.stages.report.test_figures import texts
from tests.stages.report.test_page import example_of, page_of, read, words


def fanned(name: str, source: str = "", **values: Any) -> list[Provenance]:
    """Return the nodes of a declaration, fanned out over its lists and over `source`."""
    axes = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    made = []
    for choice in itertools.product(*axes.values()):
        chosen = dict(zip(axes, choice, strict=True))
        told = [source] * bool(source) + [f"{key}={value}" for key, value in chosen.items() if len(axes[key]) > 1]
        full = f"{name}[{','.join(told)}]" if told else name
        inputs = ("mel", source) if source else ("mel",)
        made.append(Provenance(name=full, uses="admm", version=1, key=full, inputs=inputs, parameters=chosen))
    return made


def names(made: Sequence[Provenance]) -> list[str]:
    return [one.name for one in made]


def scores_of(quality: Mapping[str, float], n: int = 8) -> pd.DataFrame:
    """Return scores whose differences between nodes are the same at every utterance."""
    rng = np.random.default_rng(0)
    spread = rng.normal(size=n)
    parts = [
        pd.DataFrame(
            {
                "utterance_id": [f"u{i:04d}" for i in range(n)],
                "subset": "s",
                "speaker_id": [str(i % 2) for i in range(n)],
                "node": node,
                "duration_s": 2.0,
                "pesq_wb": value + spread,
                "status_pesq_wb": "ok",
                "scm_db": -10 * value + spread,
                "status_scm_db": "ok",
            }
        )
        for node, value in quality.items()
    ]
    return pd.concat(parts, ignore_index=True)


FIVE = [10, 20, 50, 100, 200]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        # One number: a line.
        (fanned("admm", n_iter=FIVE), [("admm", ("n_iter",), 5)]),
        # Two: a map; the other of the two constants says nothing.
        (fanned("admm", n_iter=100, lam=[1.0, 10.0], rho=[0.1, 1.0]), [("admm", ("lam", "rho"), 4)]),
        # A word or an input parts a declaration.
        (
            fanned("admm", n_iter=FIVE, start=["pghi", "random"]),
            [("admm[start=pghi]", ("n_iter",), 5), ("admm[start=random]", ("n_iter",), 5)],
        ),
        (
            fanned("admm", source="a", n_iter=FIVE) + fanned("admm", source="b", n_iter=FIVE),
            [("admm[a]", ("n_iter",), 5), ("admm[b]", ("n_iter",), 5)],
        ),
        # What follows from an input goes unsaid.
        (
            fanned("gla", source="a", n_iter=FIVE, spec={"n_mels": 40})
            + fanned("gla", source="b", n_iter=FIVE, spec={"n_mels": 80}),
            [("gla[a]", ("n_iter",), 5), ("gla[b]", ("n_iter",), 5)],
        ),
        # Of three numbers the two with the most values make the map.
        (
            fanned("admm", n_iter=[5, 10], lam=[1.0, 2.0, 3.0], rho=[0.1, 0.2, 0.3]),
            [("admm[n_iter=5]", ("lam", "rho"), 9), ("admm[n_iter=10]", ("lam", "rho"), 9)],
        ),
        # Two points make no line; seeds, booleans and words are no numbers.
        (fanned("admm", n_iter=[10, 20]), []),
        (fanned("admm", seed=[0, 1, 2, 3]), []),
        (fanned("admm", trace=[True, False], start=["a", "b"]), []),
        (fanned("gla", n_iter=100) + fanned("admm", n_iter=200), []),
        # Two declarations do not mix.
        (fanned("a", n_iter=FIVE) + fanned("b", n_iter=FIVE), [("a", ("n_iter",), 5), ("b", ("n_iter",), 5)]),
    ],
)
def test_sweeps_are_nodes_that_differ_in_numbers_alone(
    made: list[Provenance], expected: list[tuple[str, tuple[str, ...], int]]
) -> None:
    found = find_sweeps(made, names(made))
    assert [(sweep.name, sweep.axes, len(sweep.points)) for sweep in found] == expected


def test_unscored_nodes_are_in_no_sweep() -> None:
    made = fanned("admm", n_iter=FIVE)
    (sweep,) = find_sweeps(made, names(made)[:3])
    assert list(sweep.points.values()) == [(10.0,), (20.0,), (50.0,)]


def test_few_nodes_are_all_shown() -> None:
    made = fanned("admm", n_iter=FIVE)
    arrangement = arrange(made, ["gla", *names(made)], {})
    assert arrangement.shown == arrangement.nodes
    assert not arrangement.is_crowded
    assert arrangement.curved() == ["gla", "admm[n_iter=200]"]


def test_of_many_nodes_the_longest_and_the_best_stand_for_their_sweep() -> None:
    made = fanned("gla", n_iter=FIVE) + fanned("map", n_iter=100, lam=[1.0, 2.0, 3.0], rho=[0.1, 0.2, 0.3])
    nodes = [*names(made), "pghi"]
    assert len(nodes) > CROWDED
    arrangement = arrange(
        made, nodes, {"gla[n_iter=10]": 9.0, "map[lam=2.0,rho=0.3]": 1.0, "map[lam=1.0,rho=0.1]": 0.0}
    )
    assert arrangement.shown == ("gla[n_iter=200]", "map[lam=2.0,rho=0.3]", "pghi")
    assert arrangement.is_crowded


def test_only_curves_that_another_goes_on_are_left_out() -> None:
    made = fanned("admm", n_iter=[10, 20, 50], rho=[0.1, 0.2])
    assert arrange(made, names(made), {}).curved() == ["admm[n_iter=50,rho=0.1]", "admm[n_iter=50,rho=0.2]"]


def line(name: str, x: Sequence[float], at: int = 0) -> Line:
    values = np.array(x, dtype=np.float64)
    return Line(name=name, style=(COLOURS[at], "-"), x=values, mean=values, low=values - 1, high=values + 1)


@pytest.mark.parametrize(
    ("x", "ticks"),
    [
        ([10, 20, 50, 100, 200, 500], {"10", "20", "50", "100", "200", "500"}),
        ([0.1, 0.2, 0.3], {"0.1", "0.2", "0.3"}),
        ([0.0, 5.0], {"0", "5"}),  # zero has no logarithm
    ],
)
def test_a_line_has_its_values_as_ticks(x: list[float], ticks: set[str]) -> None:
    svg = against([line("admm", x), line("gla", x[:2], 1)], "pesq_wb", "n_iter")
    assert ticks | {"admm", "gla", "n_iter", "PESQ wide band [MOS-LQO], higher is better"} <= set(texts(svg))
    assert all(f"stroke: {colour.lower()}" in svg for colour in COLOURS[:2])


def test_wide_ranges_are_spaced_by_ratio() -> None:
    def gaps(x: list[float]) -> list[float]:
        svg = against([line("a", x)], "estoi", "n_iter")
        markers = re.findall(rf'<use [^>]*?x="([0-9.]+)"[^>]*?stroke: {COLOURS[0].lower()}"', svg)
        placed = [float(at) for at in markers[: len(x)]]  # the legend's comes last
        return np.diff(placed).tolist()

    narrow, wide = gaps([1, 2, 4]), gaps([1, 10, 100])
    assert narrow[1] == pytest.approx(2 * narrow[0], rel=0.01)
    assert wide[1] == pytest.approx(wide[0], rel=0.01)


def test_a_heat_map_writes_every_mean_and_frames_the_best() -> None:
    means = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    table = Map(
        names=("lam", "rho"),
        down=[0.0858, 858.0],
        across=[0.01, 0.1, 1.0],
        means=means,
        marks={(1, 2): "best", (0, 1): "tied"},
    )
    svg = heat_map(table, "pesq_wb")
    expected = {"1.00", "2.00", "–", "3.00", "4.00", "5.00", "lam", "rho", "0.0858", "858", "0.01", "0.1", "1"}
    assert expected <= set(texts(svg))
    assert svg.count("stroke-width: 2.4") == 1
    assert svg.count("stroke-width: 0.9") == 1
    assert "#fee838" in svg  # the brightest colour is the best
    lower = heat_map(table, "scm_db")
    assert lower.index("#fee838") < lower.index("#00224e")  # there the smallest mean, drawn first, is the brightest


def test_figures_are_the_same_every_time() -> None:
    table = Map(names=("a", "b"), down=[1.0], across=[1.0, 2.0], means=np.array([[1.0, 1.0]]), marks={})
    drawn = [(heat_map(table, "estoi"), against([line("a", [1, 2, 3])], "estoi", "x")) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert not any("#010203" in svg for svg in drawn[0])


def test_panels_hold_a_figure_a_metric() -> None:
    made = fanned("gla", n_iter=FIVE) + fanned("admm", n_iter=FIVE) + fanned("map", lam=[1.0, 2.0], rho=[0.1, 0.2])
    scores = scores_of({node: i / 10 for i, node in enumerate(names(made))})
    found, arrangement = summary(scores, by=()), arrange(made, names(made), {})
    (panel,) = lines(found, arrangement)
    assert panel.title == "Against n_iter"
    assert [metric.column for metric, _ in panel.drawn] == ["pesq_wb", "scm_db"]
    assert {"gla", "admm"} <= set(texts(panel.drawn[0][1]))
    assert "map" not in texts(panel.drawn[0][1])
    (panel,) = maps(scores, found, arrangement, seed=0)
    assert panel.title == "map: lam and rho"
    best = scores[scores["node"] == "map[lam=2.0,rho=0.2]"]["pesq_wb"].mean()
    assert f"{best:.2f}" in texts(panel.drawn[0][1])
    assert panel.drawn[0][1].count("stroke-width: 2.4") == 1


def crowd() -> list[Provenance]:
    made = [one for name in ("gla", "ipalm", "admm") for one in fanned(name, n_iter=[*FIVE, 500])]
    return [*made, *fanned("map", n_iter=100, lam=[0.1, 1.0, 10.0], rho=[0.1, 0.3, 1.0]), *fanned("pghi")]


def test_a_page_of_many_nodes_says_the_best_and_folds_its_maps() -> None:
    made = crowd()
    scores = scores_of({node: i / 10 for i, node in enumerate(names(made))})
    tables = Tables(scores=scores, made=made)
    found = results(tables, by=(), baseline=None, seed=0)
    arrangement = arrange(made, names(made), {})
    grid = headline(found, arrangement)
    assert grid.sections == [("gla", 6), ("ipalm", 6), ("admm", 6), ("", 1)]
    assert [row[0].text for row in grid.rows][:2] == ["n_iter=10", "n_iter=20"]
    assert [title for title, _ in grid.parts] == ["gla", "ipalm", "admm", ""]
    assert [len(rows) for _, rows in grid.parts] == [6, 6, 6, 1]
    (folded,) = folded_maps(arrangement)
    assert len(of_map(found, folded).rows) == 9
    nodes = names(made)
    reader = read(page_of(tables, [example_of(nodes)], baseline="ipalm[n_iter=500]", by=("speaker",)))
    text = words(reader)
    assert text.count("Best PESQ wide band") == 1
    assert "Over the parameters" in text
    assert "9 nodes over lam and rho" in text
    assert "5 of 28 nodes" in text
    assert sum(tag == "audio" for tag, _ in reader.tags) == 6  # the recording and the five
    assert text.index("Against n_iter") < text.index("Means over utterances,")


def test_a_page_of_a_map_alone_has_no_empty_table() -> None:
    made = fanned("map", lam=[0.1, 1.0, 10.0, 100.0], rho=[0.1, 0.2, 0.3, 1.0])
    tables = Tables(scores=scores_of({node: i / 10 for i, node in enumerate(names(made))}), made=made)
    reader = read(page_of(tables, by=()))
    assert "16 nodes over lam and rho" in words(reader)
    assert sum(tag == "table" for tag, _ in reader.tags) == 4  # the map's own, ranks, agreement, how it was made


def test_a_page_of_few_nodes_begins_with_its_table() -> None:
    made = fanned("admm", n_iter=FIVE)
    tables = Tables(scores=scores_of({node: i / 10 for i, node in enumerate(names(made))}), made=made)
    text = words(read(Aggregate().render(tables)["index.html"]))
    assert "Best PESQ" not in text
    assert text.index("Means over utterances,") < text.index("Means over utterances of nodes")


def test_sweeps_of_a_metric_without_values_are_not_drawn() -> None:
    made = crowd()
    scores = scores_of({node: i / 10 for i, node in enumerate(names(made))})
    scores = scores.assign(pesq_wb=np.nan, status_pesq_wb="not_installed")
    text = words(read(page_of(Tables(scores=scores, made=made))))
    assert "SCM [dB], lower is better" in text
    assert "PESQ wide band [MOS-LQO], higher is better" not in text
    assert "Best SCM" in text


def test_a_node_without_a_value_leaves_a_gap() -> None:
    made = crowd()
    scores = scores_of({node: i / 10 for i, node in enumerate(names(made))})
    gone = scores["node"].isin(["map[lam=0.1,rho=0.1]", "gla[n_iter=10]"])
    scores["pesq_wb"] = scores["pesq_wb"].mask(gone)
    scores["status_pesq_wb"] = scores["status_pesq_wb"].mask(gone, "timeout")
    assert "timeout" in words(read(page_of(Tables(scores=scores, made=made))))
    (panel,) = maps(scores, summary(scores, by=()), arrange(made, names(made), {}), seed=0)
    assert ["–" in texts(drawn) for _, drawn in panel.drawn] == [True, False]
