"""Results of listeners: into the store once, out of it with intervals, screening and metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.listening.results import import_results
from melmill.stages.score.listeners.kinds import REFERENCE
from melmill.storage.store import Store
from tests.flows.conftest import Project
from tests.flows.runs.listening.conftest import Listening

GOOD = {"gla": 40, "admm": 60, REFERENCE: 100, "low anchor": 20, "mid anchor": 90}


def imported(listening: Listening, *paths: Path, listener: str | None = None) -> list[bool]:
    done = import_results(Store.open(str(listening.store)), [str(path) for path in paths], listener)
    return [one.is_new for one in done]


def test_a_result_is_stored_once(listening: Listening) -> None:
    design = listening.make("mushra")
    path = listening.rated(design, "anna", GOOD)
    assert imported(listening, path) == [True]
    before = {file: file.read_bytes() for file in (listening.store / "_listening").rglob("*.json")}
    assert imported(listening, path) == [False]
    assert imported(listening, path, listening.rated(design, "anna", GOOD, name="copy")) == [False]
    assert {file: file.read_bytes() for file in (listening.store / "_listening").rglob("*.json")} == before


def test_other_answers_of_a_listener_are_refused(listening: Listening) -> None:
    design = listening.make("mushra")
    imported(listening, listening.rated(design, "anna", GOOD))
    other = listening.rated(design, "anna", {**GOOD, "gla": 41}, name="other")
    with pytest.raises(PipelineError, match=r"has other answers of listener 'anna' .* with --listener NAME"):
        imported(listening, other)
    assert imported(listening, other, listener="anna 2") == [True]


def changed(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"test": "mushra-000000000000"}, r"is of test 'mushra-000000000000', which .* does not have \(tests: mushra-"),
        ({"test": "../../runs"}, r"is of test '../../runs', which"),
        ({"listener": ""}, r"has listener '', expected a name"),
        ({"answers": []}, r"holds no answer"),
        ({"answers": [{"trial": "0009", "ratings": {}}]}, r"answers trial '0009', which the test does not have"),
        ({"answers": [{"trial": "0001", "ratings": {"s": 1}}]}, r"trial 0001 has no 'ratings' for exactly the stimuli"),
        ({"answers": [{"trial": "0001"}, {"trial": "0001"}]}, r"answers trial '0001' twice"),
        ({"format": 2}, r"has format 2, and this melmill reads 1"),
    ],
)
def test_what_is_no_result_of_the_test_is_refused(listening: Listening, fields: dict[str, Any], said: str) -> None:
    design = listening.make("mushra")
    path = listening.rated(design, "anna", GOOD)
    changed(path, **fields)
    with pytest.raises(PipelineError, match=rf"anna.json {said}") as caught:
        imported(listening, listening.rated(design, "bert", GOOD), path)
    assert "\n" not in str(caught.value)
    # All are checked before any is stored.
    assert not list((listening.store / "_listening").rglob("listeners/*"))


def test_files_that_are_no_json_or_not_there_are_one_line(listening: Listening) -> None:
    listening.make("mushra")
    (listening.folder / "x.json").write_text("{")
    with pytest.raises(PipelineError, match=r"x.json can't be parsed"):
        imported(listening, listening.folder / "x.json")
    for path in (listening.folder / "nobody.json", listening.folder / "mushra"):
        with pytest.raises(PipelineError, match="there is no such file, and no folder with results"):
            imported(listening, path)


def test_results_reach_the_command_line_and_the_next_report(done: Project) -> None:
    listening = Listening(done.folder, done.store)
    design = listening.make("mushra", n=6)
    ratings = {
        "anna": GOOD,
        "bert": {**GOOD, "gla": 44, "admm": 70},
        "carl": {**GOOD, REFERENCE: 50},  # does not find the reference
    }
    for name, of in ratings.items():
        listening.rated(design, name, of)
    page = done.called("report", str(done.store), "--json")
    answer = done.called("listen", "import", str(done.store), *(f"{name}.json" for name in ratings))
    assert answer.returncode == 0, answer.stderr
    assert "Run the pipeline again" in answer.stdout

    (test,) = json.loads(done.called("listen", "results", str(done.store), "--json").stdout)["tests"]
    assert (test["test"], test["n_listeners"], test["rejected"]) == (design.test_id, 3, ["carl"])
    systems = {row["system"]: row for row in test["systems"]}
    assert (systems["gla"]["mean"], systems["admm"]["mean"], systems[REFERENCE]["mean"]) == (42, 65, 100)
    assert (systems["admm"]["ci_low"], systems["admm"]["ci_high"]) == (60, 70)
    assert {row["listener"]: row["share_low"] for row in test["screening"]} == {"anna": 0, "bert": 0, "carl": 1}
    assert {row["metric"]: row["n_stimuli"] for row in test["agreement"]} == {"sc_db": 12, "scm_db": 12}
    shown = done.called("listen", "results", str(done.store)).stdout
    assert "1 of 3 listeners rated the hidden reference below 90 in more than 15 %" in shown
    assert "carl" in shown

    # Only the report is made again, and now it shows them.
    summary = done.run("--executor", "serial")
    assert summary["tasks"]["run"] == 1
    folder = Path(summary["reports"][0])
    html = folder.read_text()
    section = html[html.index('id="listeners"') :]
    assert re.search(r"admm</th>\s*<td>65.0 \(60.0 to 70.0\)", section)
    assert "Do metrics agree with listeners?" in section
    assert (folder.parent / "listening.csv").read_text().count("\n") == 6
    assert done.called("report", str(done.store), "--json").stdout != page.stdout
    assert done.run("--executor", "serial")["tasks"]["run"] == 0


def test_a_store_without_answers_has_the_reports_that_it_had(done: Project) -> None:
    Listening(done.folder, done.store).make("mushra")
    assert done.run("--executor", "serial")["tasks"]["run"] == 0


def test_a_product_that_is_not_the_one_that_was_heard_is_not_compared(done: Project) -> None:
    listening = Listening(done.folder, done.store)
    design = listening.make("mushra")
    imported(listening, listening.rated(design, "anna", GOOD))
    done.run("--executor", "serial", "--set", "admm.n_iter=3")
    (test,) = json.loads(done.called("listen", "results", str(done.store), "--json").stdout)["tests"]
    names = [row["system"] for row in test["systems"]]
    assert "gla" in names
    assert "admm" not in names
    assert any(re.fullmatch(r"admm \([0-9a-f]{6}\)", name) for name in names)
    assert {row["n_stimuli"] for row in test["agreement"]} == {3}


def test_abx_says_how_likely_guessing_is(listening: Listening) -> None:
    design = listening.make("abx", n=16)
    answers: dict[str, Any] = {}
    for at, trial in enumerate(design.trials):
        a, b = trial.stimuli
        answers[trial.name] = {"a": a, "b": b, "x": b, "answer": "b" if at < 12 else "a"}
    imported(listening, listening.result(design, "anna", answers))
    from melmill.flows.runs.listening.results import results_of

    store = Store.open(str(listening.store))
    manifest = store.latest_manifest()
    assert manifest is not None
    made = results_of(store, manifest)[0].as_dict()
    (pair,) = made["pairs"]
    # 12 of 16: the sum of the last five terms of the binomial, 2517 / 65536.
    assert pair["p"] == pytest.approx(2517 / 65536)
    assert (pair["n_trials"], pair["mean"], pair["ci_low"]) == (16, 0.75, None)
    assert made["listeners"] == [
        {"listener": "anna", "n_trials": 16, "n_correct": 12, "p": pytest.approx(2517 / 65536)}
    ]
