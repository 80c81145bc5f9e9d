"""What the page's script shows: the worst utterances, groups by any metric, and filters."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from melmill.stages.report.contract import Tables
from melmill.stages.report.stage import Aggregate
from melmill.stages.report.statistics import cube, summary
from melmill.stages.report.views.explorer import MOST_MEANS, as_data, slices, worst
from tests.stages.report.test_page import failed, read, scores_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_the_worst_of_each_node_and_of_their_mean_are_there() -> None:
    scores = scores_of(n=200, nodes=("a", "b"), metrics=("pesq_wb", "scm_db"))
    table = cube(scores)
    made = worst(table, ["a", "b"])
    ids = table.utterances["utterance_id"]
    for k, (metric, sign) in enumerate((("PESQ wide band [MOS-LQO] ↑", 1), ("SCM [dB] ↓", -1))):
        found = next(one for one in made["metrics"] if one["label"] == metric)
        values = {made["utterances"][row[0]][0]: row[1:] for row in found["rows"]}
        goodness = sign * table.values[:, :, k]
        for order in (goodness[:, 0], goodness[:, 1], goodness.mean(axis=1)):
            expected = ids[np.argsort(order)[: made["count"]]]
            assert set(expected) <= set(values)
        for at in np.argsort(goodness[:, 1])[:3]:
            assert values[ids[at]] == pytest.approx(table.values[at, :, k], abs=1e-3)
    assert made["count"] == 20
    assert made["utterances"][0][1] in {"0", "1", "2"}


def test_utterances_without_a_value_are_no_worst_cases() -> None:
    scores = failed(scores_of(n=8, metrics=("scm_db",)), "scm_db", "timeout", slice(0, 3))
    (metric,) = worst(cube(scores), ["gla", "admm"])["metrics"]
    assert [None in row for row in metric["rows"]].count(True) == 3
    assert len(metric["rows"]) == 8
    assert worst(cube(failed(scores_of(metrics=("scm_db",)), "scm_db", "timeout")), ["gla"])["metrics"] == []


def test_the_worst_take_little_room_whatever_the_corpus() -> None:
    nodes = [f"n{i}" for i in range(12)]
    scores = scores_of(n=5000, nodes=nodes, metrics=("pesq_wb", "pesq_nb", "estoi", "stoi", "scm_db", "sc_db"))
    assert len(json.dumps(worst(cube(scores), nodes))) < 200_000


def test_slices_are_the_means_of_groups() -> None:
    whole = summary(scores_of(n=24, speakers=12), by=("subset", "speaker"))
    made = slices(whole, ("subset", "speaker"), ["admm"])
    assert made["groups"][0] == ["dev-clean", "all"]
    assert ["dev-clean", "3"] in made["groups"]
    assert [group[1] for group in made["groups"][1:7]] == ["0", "1", "2", "3", "4", "5"]
    at = made["groups"].index(["dev-other", "7"])
    row = whole[(whole["speaker_id"] == "7") & (whole["node"] == "admm") & (whole["metric"] == "scm_db")].iloc[0]
    metric = next(one for one in made["metrics"] if one["label"].startswith("SCM"))
    assert metric["mean"][at] == [pytest.approx(row["mean"], abs=0.005)]
    assert metric["half"][at] == [pytest.approx((row["ci_high"] - row["ci_low"]) / 2, abs=0.005)]
    assert metric["n"][at] == [2]
    assert made["left_out"] == 0


def test_metrics_without_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summary(scores_of(n=24, speakers=12), by=("speaker",))
    monkeypatch.setattr("melmill.stages.report.views.explorer.MOST_MEANS", 24)
    assert MOST_MEANS > 24
    made = slices(whole, ("speaker",), ["gla", "admm"])
    assert (len(made["metrics"]), made["left_out"]) == (1, 1)


def test_data_cant_end_its_element() -> None:
    text = as_data(["</script><!--", "&", "\u2028"])
    assert not re.search(r"[<>&\u2028]", text)
    assert json.loads(text) == ["</script><!--", "&", "\u2028"]


def test_many_groups_are_data_and_few_are_tables() -> None:
    few = Aggregate().render(Tables(scores=scores_of(n=40, speakers=4)))["index.html"].decode()
    many = Aggregate().render(Tables(scores=scores_of(n=3000, speakers=1200)))["index.html"].decode()
    assert ('id="slices-data"' in few, 'id="slices-data"' in many) == (False, True)
    assert len(many) < 700_000
    assert 'href="#groups"' in many
    read(many.encode())


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, which runs the page's script")
def test_the_script_shows_the_worst_cases_and_groups(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    scores = scores_of(n=3000, speakers=1200)
    page = tmp_path / "index.html"
    page.write_bytes(Aggregate(baseline="gla").render(Tables(scores=scores))["index.html"])
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    values = scores.pivot(index="utterance_id", columns="node", values="pesq_wb").mean(axis=1)
    rows = re.findall(r'<th scope="row" class="label">(u\d+)</th>', shown)
    assert rows == values.sort_values().index[:20].tolist()
    assert len(re.findall(r"<option", shown)) == 2 + 3 + 2  # metrics, nodes and their mean; metrics of groups
    assert shown.count('type="search"') >= 2
