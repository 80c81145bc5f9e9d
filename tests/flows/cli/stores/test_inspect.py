"""`melmill report`: of the last run, of an earlier one, and of one node."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
import pytest

import melmill
from melmill.flows.cli.tables import print_headline, print_means
from melmill.storage.files.location import Location
from tests.flows.conftest import PIPELINE, Project, add_chapter, flac, voice

SECOND = PIPELINE.replace(
    "cluster:", "  brief: {{uses: aggregate, from: scores, baseline: admm, examples: 0}}\ncluster:"
)


def _shown(project: Project, *arguments: str) -> str:
    answer = project.called("report", str(project.store), "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    return str(json.loads(answer.stdout)["report"])


@pytest.mark.slow
def test_each_run_has_its_own_report(done: Project) -> None:
    made = {}
    for change in ("nothing", "a parameter", "the corpus"):
        if change == "the corpus":
            add_chapter(done.root, "dev-clean", "33", [flac(voice(1.0, 150.0, 9))])
        overrides = ["--set", "gla.n_iter=1"] if change == "a parameter" else []
        report = done.run("--executor", "serial", *overrides)["report"]
        made[melmill.open(str(done.store)).run_ids()[-1]] = report
    assert len({*made.values()}) == 3
    assert {run_id: _shown(done, "--run", run_id) for run_id in made} == made
    assert _shown(done) == list(made.values())[-1]
    assert Path(_shown(done, "--node", "report")).is_file()


def test_a_node_names_its_report(done: Project) -> None:
    done.write(SECOND)
    done.run("--executor", "serial")
    assert {Path(_shown(done, "--node", name)).parents[3].name for name in ("report", "brief")} == {"report", "brief"}
    table = done.called("report", str(done.store), "--node", "brief").stdout
    assert "/brief/" in table.splitlines()[-1]


def test_what_is_not_there_is_answered_in_one_line_with_the_nearest(finished: Project) -> None:
    run_id = melmill.open(str(finished.store)).run_ids()[-1]
    wrong = {
        ("--node", "reprot"): "error: the run has no node 'reprot'; did you mean 'report'?",
        ("--node", "x"): "error: the run has no node 'x' (reports and trainings: report)",
        ("--node", "mel"): "error: node 'mel' makes mel, not a report or a training (reports and trainings: report)",
        ("--run", run_id[:-1]): f"has no run '{run_id[:-1]}'; did you mean '{run_id}'?",
        ("--run", "../runs"): f"has no run '../runs' (its last run is '{run_id}')",
    }
    for arguments, message in wrong.items():
        answer = finished.called("report", str(finished.store), *arguments)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert message in answer.stderr
        assert answer.stderr.count("\n") == 1


def test_a_run_without_a_report_says_so(project: Project) -> None:
    project.run("--executor", "serial", "--until", "speech")
    project.run("--executor", "serial", "--set", "gla.n_iter=1", "--set", "admm.n_iter=1")
    first, last = melmill.open(str(project.store)).run_ids()
    answer = project.called("report", str(project.store), "--run", first)
    assert answer.returncode == 1
    assert f"run '{first}' of store" in answer.stderr
    assert _shown(project, "--run", last) == _shown(project)


def test_the_table_is_printed_for_papers_and_pages(finished: Project) -> None:
    shown = {name: finished.called("report", str(finished.store), "--format", name) for name in ("md", "latex", "csv")}
    assert {answer.returncode for answer in shown.values()} == {0}
    assert shown["md"].stdout.startswith("| system | SC")
    assert shown["md"].stdout.count("**") == 4  # the best of two metrics
    assert "\\begin{tabular}{lrr}" in shown["latex"].stdout
    table = pd.read_csv(io.StringIO(shown["csv"].stdout))
    assert list(zip(table["node"], table["metric"], strict=True)) == [
        ("gla", "sc_db"), ("gla", "scm_db"), ("admm", "sc_db"), ("admm", "scm_db"),
    ]  # fmt: skip
    assert (table["ci_low"] <= table["mean"]).all()
    assert not any("report:" in answer.stdout for answer in shown.values())


def test_reports_of_earlier_versions_are_printed_too(finished: Project, tmp_path: Path) -> None:
    report = Path(_shown(finished)).parent
    expected = finished.called("report", str(finished.store), "--format", "md").stdout
    old = tmp_path / "old"
    shutil.copytree(report, old)
    (old / "ranks.parquet").unlink()
    with redirect_stdout(io.StringIO()) as said:
        print_means(Location(str(old)), "md")
    assert said.getvalue() == expected
    (old / "summary.parquet").unlink()
    with pytest.raises(melmill.PipelineError, match="has no table of means, so it can't be printed as md"):
        print_means(Location(str(old)), "md")


def test_many_metrics_go_down_the_terminal() -> None:
    header = ["node", *(f"m{i}" for i in range(8))]
    with redirect_stdout(io.StringIO()) as said:
        print_headline("\n".join([",".join(header), ",".join(["a", *"01234567"])]).encode())
    lines = said.getvalue().splitlines()
    assert "metric" in lines[1]
    assert len(lines) == 8 + 4
