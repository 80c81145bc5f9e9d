"""Series, the page of trends, the table of summaries, and their command."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from melmill.flows.runs.trends.chart import ticks_between
from melmill.flows.runs.trends.page import report_pages, store_runs, trends_page, write_trends
from melmill.flows.runs.trends.series import Series, series_of, version_changes
from melmill.flows.runs.trends.tables import export_to_mlflow, summary_parquet, summary_table
from melmill.stages.errors import PackageMissing
from melmill.storage.records import sealed, unsealed
from melmill.storage.store import Store
from tests.flows.conftest import PIPELINE, Project, make_project


@pytest.fixture(scope="module")
def history(
    finished: Project, tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]
) -> Project:
    """Return a project with four runs: as it is, the same again, with more iterations, and by another numba."""
    made = make_project(tmp_path_factory.mktemp("trends"), corpus_files)
    shutil.copytree(finished.store, made.store)
    for n_iter in (2, 60, 61):
        made.run("--executor", "serial", "--set", f"gla.n_iter={n_iter}", "--set", f"speech.root={finished.root}")
    last = max((made.store / "runs").glob("*/facts.json"))
    facts = unsealed(last.read_bytes())
    facts["versions"]["numba"] = "0.0.1"
    last.write_bytes(sealed(facts))
    return made


def runs_of(project: Project) -> Store:
    return Store.open(str(project.store))


def of(series: list[Series], scored: str, metric: str) -> Series:
    return next(one for one in series if (one.scored, one.metric) == (scored, metric))


def test_series_know_repeats_and_changes(history: Project) -> None:
    series = series_of(runs_of(history).runs())
    assert len(series) == 4
    gla, admm = of(series, "gla", "scm_db"), of(series, "admm", "scm_db")
    assert [point.is_repeat for point in gla.points] == [False, True, False, False]
    assert [point.is_repeat for point in admm.points] == [False, True, True, True]
    # Sixty iterations are much better than two, and one more changes little.
    assert [point.is_change for point in gla.points] == [False, False, True, False]
    assert not any(point.is_change for point in admm.points)
    assert [
        len(version_changes(*pair))
        for pair in zip([None, *runs_of(history).runs()], runs_of(history).runs(), strict=False)
    ] == [0, 0, 0, 1]


class _Parsed(HTMLParser):
    """Collect the links, the scripts and the text of a page, and check that its tags are closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "link", "br", "wbr", "img"}:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_runs_changes_and_versions(history: Project) -> None:
    store = runs_of(history)
    url = f"{store.location.url}/runs/trends.html"
    page = _Parsed(trends_page([store_runs(store)], url))
    runs = store.runs()
    for text in [run.run_id for run in runs] + ["SCM [dB]", "lower is better", "gla.n_iter 2 → 60", "numba", "0.0.1"]:
        assert text in page.text
    assert re.search(rf"gla: -[\d.]+ → -[\d.]+ at run {runs[2].run_id}", page.text)
    assert page.tags.count("svg") == 2 + 4  # two charts, and the legends of two series in each
    assert "script" not in page.tags
    # Every link leads to the report of a run, from where the page is.
    assert len(set(page.links)) == 3
    for link in page.links:
        assert (Path(url).parent / link).resolve().is_file()


def test_each_run_leaves_the_page_in_its_store(history: Project) -> None:
    page = history.store / "runs" / "trends.html"
    assert "gla.n_iter 60 → 61" in page.read_text()
    for link in _Parsed(page.read_bytes()).links:
        assert (page.parent / link).resolve().is_file()
    said = history.called("report", str(history.store)).stdout
    assert f"trends: {page}" in said
    assert json.loads(history.called("report", str(history.store), "--json").stdout)["trends"] == str(page)


def test_one_run_makes_no_trend(finished: Project) -> None:
    assert write_trends(Store.open(str(finished.store))) is None
    assert not (finished.store / "runs" / "trends.html").exists()
    assert "trends" not in finished.called("report", str(finished.store)).stdout


def test_reports_lead_to_the_page_as_soon_as_it_is_there(history: Project, tmp_path: Path) -> None:
    store = runs_of(history)
    first, _, *later = (history.store / page for page in report_pages(store, store.runs()).values())
    assert _ways_out(first) == []
    (link,) = {link for page in later for link in _ways_out(page)}
    copied = tmp_path / "copy"
    assert history.called("copy", str(history.store), str(copied), "--all", "--with-run").returncode == 0
    for root in (history.store, copied):
        page = root / later[-1].relative_to(history.store)
        assert (page.parent / link).resolve() == (root / "runs" / "trends.html").resolve()
        assert (page.parent / link).is_file()


def _ways_out(page: Path) -> list[str]:
    return [link for link in _Parsed(page.read_bytes()).links if not link.startswith(("#", "data:"))]


def test_of_two_score_nodes_of_a_node_the_first_counts(finished: Project) -> None:
    (run,) = runs_of(finished).runs()
    assert run.outcome is not None
    again = [replace(score, node="more", mean=0.0) for score in run.outcome.scores]
    twice = replace(run, outcome=replace(run.outcome, scores=(*run.outcome.scores, *again)))
    assert series_of([twice]) == [replace(one, points=(replace(one.points[0], run=twice),)) for one in series_of([run])]


def test_runs_lead_to_their_own_reports(history: Project) -> None:
    store = runs_of(history)
    runs = store.runs()
    pages = report_pages(store, runs)
    assert list(pages) == [run.run_id for run in runs]
    assert pages[runs[0].run_id] == pages[runs[1].run_id] != pages[runs[2].run_id]
    for run in runs:
        named = json.loads(history.called("report", str(history.store), "--run", run.run_id, "--json").stdout)["report"]
        # The second run found the report of the first one done.
        assert run is runs[0] or named == f"{store.location.url}/{pages[run.run_id]}"


def test_versions_that_changed_with_a_run_without_scores_are_marked(history: Project, tmp_path: Path) -> None:
    store = Store.open(str(shutil.copytree(history.store, tmp_path / "store")))
    changed, last = store.runs()[2:]
    folder = tmp_path / "store" / "runs"
    (folder / changed.run_id / "outcome.json").unlink()
    shutil.copy(folder / last.run_id / "facts.json", folder / changed.run_id)
    page = trends_page([store_runs(store)]).decode()
    marks = re.findall(r'<line class="version"[^>]*><title>([^<]*)', page)
    assert len(marks) == 2  # one in each chart
    assert all("numba" in mark for mark in marks)


def test_a_gate_does_not_hide_the_report(done: Project) -> None:
    gate = "  gate: {{uses: gate, from: scores, rules: [{{metric: scm, at_most: 99}}]}}\n"
    done.write(PIPELINE.replace("cluster:", f"{gate}cluster:"))
    report = done.run("--executor", "serial")["report"]
    store = runs_of(done)
    run = store.runs()[-1]
    assert f"{store.location.url}/{report_pages(store, [run])[run.run_id]}" == report
    done.write(PIPELINE.replace("cluster:", f"{gate}cluster:").replace("  report:", "  # report:"))
    page = done.run("--executor", "serial")["gates"][0]["page"]
    run = store.runs()[-1]
    assert f"{store.location.url}/{report_pages(store, [run])[run.run_id]}" == page


def test_text_of_a_store_is_escaped(history: Project, tmp_path: Path) -> None:
    store = shutil.copytree(history.store, tmp_path / "<img src=x onerror=alert(1)>")
    page = trends_page([store_runs(Store.open(str(store)))])
    assert b"<img" not in page
    _Parsed(page)


def test_the_command_writes_page_and_table(history: Project, finished: Project, tmp_path: Path) -> None:
    places = {what: tmp_path / "new" / name for what, name in (("page", "trends.html"), ("parquet", "runs.parquet"))}
    command = ("runs", "page", str(history.store), str(finished.store))
    said = history.called(*command, "-o", str(places["page"]), "--parquet", str(places["parquet"]), "--json")
    answer = json.loads(said.stdout)
    assert answer == {"runs": 5, **{what: str(place) for what, place in places.items()}}
    for link in _Parsed(places["page"].read_bytes()).links:
        assert (places["page"].parent / link).resolve().is_file()
    table = pd.read_parquet(places["parquet"])
    assert len(table) == 5 * 4
    assert set(table["store"]) == {str(history.store), str(finished.store)}
    row = table[(table["scored"] == "gla") & (table["metric"] == "sc_db")].iloc[0]
    outcome = runs_of(history).runs()[0].outcome
    assert outcome is not None
    score = next(one for one in outcome.scores if (one.scored, one.metric) == ("gla", "sc_db"))
    assert (row["n"], row["mean"], row["low"], row["high"]) == (16, score.mean, score.low, score.high)


def test_the_table_has_its_types_without_any_score(project: Project) -> None:
    project.run("--executor", "serial", "--until", "speech")
    (run,) = Store.open(str(project.store)).runs()
    one, none = summary_table([run]), summary_table([])
    assert one.dtypes.to_dict() == none.dtypes.to_dict()
    read = pd.read_parquet(io.BytesIO(summary_parquet([run])))
    assert read["run"].tolist() == [run.run_id]
    assert read["metric"].isna().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected -o FILE, --parquet FILE or --mlflow URI"),
        (("-o", "{folder}"), "can't write"),
        (("-o", "s3:/x/y"), "two slashes after the scheme"),
    ],
)
def test_wrong_places_get_one_line(finished: Project, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    answer = finished.called("runs", "page", str(finished.store), *(one.format(folder=tmp_path) for one in arguments))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert message in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 1.0, [0.0, 0.5, 1.0]), (-0.3, 0.1, [-0.3, -0.2, -0.1, 0.0, 0.1]), (1e6, 1e6 + 1, [1e6, 1e6 + 0.5, 1e6 + 1])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks_between(low, high) == expected


def test_without_mlflow_the_way_to_get_it_is_told(finished: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)
    with pytest.raises(PackageMissing, match=r"pip install 'melmill\[mlflow\]'"):
        export_to_mlflow(Store.open(str(finished.store)).runs(), "file:///nowhere")


def test_runs_are_logged_to_mlflow_once(history: Project, tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="the extra mlflow is not installed")
    uri = f"sqlite:///{tmp_path}/mlflow.db" if _has_database() else (tmp_path / "mlruns").as_uri()
    runs = runs_of(history).runs()
    assert export_to_mlflow(runs[:2], uri) == (2, 0)
    assert export_to_mlflow(runs, uri) == (2, 2)
    client = tracking.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("test")
    found = {one.data.tags["melmill.run"]: one for one in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {run.run_id for run in runs}
    for run in runs:
        assert run.outcome is not None
        logged = found[run.run_id]
        assert logged.info.status == "FINISHED"
        assert logged.data.params["stages.gla.n_iter"] == str(run.manifest.pipeline["stages"]["gla"]["n_iter"])  # type: ignore[index]
        for score in run.outcome.scores:
            name = f"{score.scored}/{score.metric}"
            assert logged.data.metrics[name] == pytest.approx(score.mean)
            assert logged.data.metrics[f"{name}/low"] == pytest.approx(score.low)


def _has_database() -> bool:
    # The lighter package of mlflow does without.
    return importlib.util.find_spec("sqlalchemy") is not None
