"""Figures, pictures and clips of the report."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from melmill.stages.report import examples, statistics
from melmill.stages.report.contract import Example
from melmill.stages.report.examples import (
    axes,
    clip,
    difference_picture,
    excerpt_s,
    mel_db,
    mel_picture,
    picture_spec,
)
from melmill.stages.report.figures import COLOURS, box_plot, convergence, label, line_style
from melmill.stages.report.statistics import Cube, cube

LONG = "admm[n_iter=1000,rho=0.2,start=pghi,momentum=$0.99$]<b>&"


def scores_of(nodes: list[str], n: int = 30) -> Cube:
    rng = np.random.default_rng(0)
    ids = [f"u{i}" for i in range(n)]
    parts = [
        pd.DataFrame(
            {"utterance_id": ids, "subset": "d", "speaker_id": "s", "node": node, "scm_db": rng.normal(-20, 3, n)}
        )
        for node in nodes
    ]
    return cube(pd.concat(parts, ignore_index=True).assign(status_scm_db="ok"))


def curves_of(nodes: list[str]) -> pd.DataFrame:
    traces = pd.DataFrame(
        [
            {"utterance_id": f"u{u}", "node": node, "iteration": i, "scm_db": -float(i) - u}
            for node in nodes
            for u in range(3)
            for i in range(5)
        ]
    )
    return statistics.convergence(traces)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.split(",", 1)[1])


@pytest.mark.parametrize("nodes", [["only"], ["a", "b"], [f"admm[n_iter={i}]" for i in range(12)], [LONG, "b"]])
def test_box_plot_names_every_node_and_the_unit(nodes: list[str]) -> None:
    svg = box_plot(scores_of(nodes), "scm_db", nodes)
    assert {line for node in nodes for line in label(node).split("\n")} <= set(texts(svg))
    assert "SCM [dB], lower is better" in texts(svg)


def test_box_plot_keeps_an_empty_row_for_a_node_without_values() -> None:
    table = scores_of(["a", "b"])
    table.values[:, 1] = np.nan
    svg = box_plot(table, "scm_db", ["a", "b"])
    assert {"a", "b"} <= set(texts(svg))
    assert COLOURS[0].lower() in svg
    assert COLOURS[1].lower() not in svg


def test_convergence_draws_a_curve_per_traced_node_in_the_nodes_colour() -> None:
    svg = convergence(curves_of(["admm", "mystery"]), ["gla", "admm", "pghi"])
    assert {"admm", "mystery", "iteration", "SCM [dB], lower is better"} <= set(texts(svg))
    assert "gla" not in texts(svg)
    found = {colour.lower() for colour in COLOURS if f"stroke: {colour.lower()}" in svg}
    assert found == {COLOURS[1].lower(), COLOURS[3].lower()}


def test_box_plot_draws_the_chosen_nodes_alone() -> None:
    svg = box_plot(scores_of(["a", "b", "c"]), "scm_db", ["c"])
    assert "c" in texts(svg)
    assert not {"a", "b"} & set(texts(svg))


@pytest.mark.parametrize(("n_iter", "ticks"), [(30, {"0", "10", "20"}), (500, {"1", "10", "100", "500"})])
def test_many_iterations_have_a_logarithmic_axis(n_iter: int, ticks: set[str]) -> None:
    curve = pd.DataFrame({"node": "a", "iteration": range(n_iter + 1), "mean": -1000.0 - np.arange(n_iter + 1)})
    svg = convergence(curve.assign(first_quartile=curve["mean"], third_quartile=curve["mean"]), ["a"])
    assert ticks <= set(texts(svg))
    assert ("0" in texts(svg)) == ("0" in ticks)


@pytest.mark.parametrize(
    "draw",
    [lambda: box_plot(scores_of(["a", LONG]), "scm_db", ["a", LONG]), lambda: convergence(curves_of(["a"]), ["a"])],
)
def test_figures_are_reproducible_and_take_the_pages_ink(draw: object) -> None:
    assert callable(draw)
    svg = draw()
    assert svg == draw()
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "font-family" not in svg
    assert not re.search(r"http(?!://www\.w3\.org)|<metadata|<b>", svg)


def test_figures_leave_global_settings_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    box_plot(scores_of(["a"]), "scm_db", ["a"])
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("node", [LONG, "x" * 70, "a,b,c", ",", "", "admm[n_iter=10]"])
def test_labels_keep_the_whole_name_in_short_lines(node: str) -> None:
    lines = label(node).split("\n")
    assert "".join(lines) == node
    assert max(map(len, lines)) <= 26


def test_twelve_nodes_look_different() -> None:
    nodes = [f"n{i}" for i in range(12)]
    assert len({line_style(nodes, node) for node in nodes}) == 12


def tone(hz: float, sr: int = 16000, seconds: float = 1.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(sr * seconds)) / sr)).astype(np.float32)


def test_clip_is_the_waveform_in_16_bits() -> None:
    y = tone(440)
    read, sr = soundfile.read(BytesIO(decoded(clip(y, 16000).uri)), dtype="int16")
    assert sr == 16000
    np.testing.assert_array_equal(read, np.rint(y.astype(np.float64) * 32768))


@pytest.mark.parametrize(
    ("y", "playable", "note"),
    [
        ([0.0, 1.5, -1.5, 0.5], True, "2 samples clipped"),  # saturated, never wrapped
        ([0.0, np.nan, np.inf], False, "not playable: 2 samples are not finite"),
        ([], False, "not playable: empty"),
    ],
)
def test_clip_of_what_16_bits_cannot_hold(y: list[float], playable: bool, note: str) -> None:
    made = clip(np.array(y, dtype=np.float32), 16000)
    assert (bool(made.uri), made.note) == (playable, note)
    if playable:
        read, _ = soundfile.read(BytesIO(decoded(made.uri)), dtype="int16")
        assert read.tolist() == [0, 32767, -32768, 16384]


def test_excerpts_shrink_with_the_number_of_streams() -> None:
    assert excerpt_s([16000] * 28, n_pictures=52) < 8 < excerpt_s([16000] * 8, n_pictures=12)
    assert excerpt_s([], n_pictures=0) == 0.0


def test_excerpts_of_noise_keep_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "BUDGET_BYTES", 150_000)
    y = (0.3 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
    one = Example(utterance_id="u", text="", sr=16000, reference=y, reconstructions={"a": y[::-1].copy(), "b": -y})
    (made,) = examples.shown([one], pd.DataFrame({"utterance_id": [], "node": []}), ["a", "b"])
    assert 0.9 < sum(take.n_bytes for take in made.takes) / 150_000 < 1.0


@pytest.mark.parametrize("sr", [8000, 16000, 22050, 24000, 48000])
def test_a_tone_shows_in_the_picture_at_its_tick(sr: int) -> None:
    y = tone(2000, sr)
    spec = picture_spec(sr)
    M = mel_db(y, spec)
    image = Image.open(BytesIO(decoded(mel_picture(M, float(M.max())))))
    assert image.size == (M.shape[1], 80)
    brightest = int(np.asarray(image)[:, M.shape[1] // 2].argmax())
    height = dict(axes(spec, y.size).ticks)["2 kHz"]
    assert 1 - (brightest + 0.5) / 80 == pytest.approx(height, abs=1.5 / 80)


def test_difference_picture_is_neutral_where_nothing_differs() -> None:
    M = mel_db(tone(500), picture_spec(16000))
    levels = np.asarray(Image.open(BytesIO(decoded(difference_picture(np.hstack([M, M]), M)))))
    assert levels.shape == M.shape
    assert np.isin(levels, [127, 128]).all()
    louder = np.asarray(Image.open(BytesIO(decoded(difference_picture(M + 10, M)))))
    assert (louder == round(0.75 * 255)).all()


def test_pictures_of_a_broken_waveform_are_drawn() -> None:
    y = np.full(4000, np.nan, dtype=np.float32)
    assert np.isfinite(mel_db(y, picture_spec(16000))).all()
