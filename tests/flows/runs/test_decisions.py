"""Decisions about runs: a nightly evaluation end to end, comparisons of real runs, and gates in pipelines."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import melmill
from melmill.flows.runs.gate import parse_rules
from melmill.flows.runs.history import remove_tag
from melmill.flows.runs.prune import Rules, prune
from melmill.stages.errors import NotComparable
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.errors import StoreError
from melmill.storage.store import Store
from tests.flows.conftest import Project, add_chapter, make_project

NIGHTLY = """\
name: nightly
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 12}}
  scores: {{uses: score, from: gla, against: speech, metrics: [scm, estoi]}}
"""
CLUSTER = "cluster: {{pools: {{cpu: {{workers: 1}}}}}}\n"
GATE = """\
  gate:
    uses: gate
    from: scores
    baseline: good
    rules:
      - {{metric: scm, node: gla, not_worse_than: 0.5}}
      - {{failed_share: 0.5}}
"""
RULES = """\
rules:
  - {metric: scm, node: gla, at_most: -3}
  - {metric: scm, node: gla, not_worse_than: 0.5}
  - {metric: scm, node: gla, by: speaker, not_worse_than: 1}
  - {quarantined_share: 0}
"""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project with two runs: a good one, tagged `good`, and a worse one, the last. Only read it."""
    made = make_project(tmp_path_factory.mktemp("nights"), corpus_files, NIGHTLY)
    made.run("--executor", "serial")
    assert made.called("tag", "store", "good").returncode == 0
    made.run("--executor", "serial", "--set", "gla.n_iter=1")
    (made.folder / "gate.yaml").write_text(RULES)
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, nights: Project) -> Project:
    """Return a run of another project over the same recordings. Only read it."""
    made = make_project(tmp_path_factory.mktemp("other"), {}, NIGHTLY.replace("name: nightly", "name: another"))
    shutil.copytree(nights.root, made.root)
    made.run("--executor", "serial")
    return made


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a run of the same project over other recordings. Only read it."""
    made = make_project(tmp_path_factory.mktemp("apart"), {}, NIGHTLY)
    add_chapter(made.root, "dev-clean", "33", corpus_files["11"][:3])
    made.run("--executor", "serial")
    return made


def test_a_nightly_evaluation(nights: Project, tmp_path: Path) -> None:
    project = Project(tmp_path)
    shutil.copytree(nights.folder, project.folder, dirs_exist_ok=True)
    project.write(NIGHTLY.replace("{root}", str(nights.root)))
    judge = ("gate", "store", "--rules", "gate.yaml", "--baseline", "good", "--update-baseline", "--junit", "gate.xml")

    bad = project.called(*judge)
    assert bad.returncode == 3
    tripped = [line for line in bad.stderr.splitlines() if line.startswith("tripped: ")]
    assert [re.match(r"tripped: gate\.yaml:(\d): ", line)[1] for line in tripped] == ["3", "4"]  # type: ignore[index]
    suite = ET.parse(project.folder / "gate.xml").getroot()
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert (suite.get("failures"), len(failed)) == (str(len(failed)), len(failed))
    assert failed[0] == "scm of gla: not worse than 0.5 [gla]"
    store = Store.open(str(project.store))
    assert store.tags()["good"].run_id == store.run_ids()[0]  # a gate that trips moves nothing

    project.run("--executor", "serial", "--set", "gla.n_iter=16")
    fixed = project.called(*judge)
    assert (fixed.returncode, fixed.stderr) == (0, "")
    assert store.tags()["good"].run_id == store.run_ids()[2]
    assert ET.parse(project.folder / "gate.xml").getroot().get("failures") == "0"
    answer = json.loads(project.called(*judge, "--json").stdout)
    assert (answer["passed"], answer["tripped"]) == (True, [])
    # The first run is worse than the new baseline, and can still be judged.
    assert project.called("gate", "store@" + store.run_ids()[1], *judge[2:6]).returncode == 3


def test_a_gate_in_a_pipeline_ends_the_run_with_3(project: Project) -> None:
    project.write(NIGHTLY + GATE + CLUSTER)
    first = project.run("--executor", "serial")
    (gate,) = first["gates"]
    assert gate["passed"]
    assert "there is no baseline 'good' yet, as this is the store's first run" in gate["unsure"][0]
    again = project.called("run", "pipeline.yaml", "--executor", "serial")
    assert again.returncode == 2
    assert "pipeline.yaml:9: node 'gate': store" in again.stderr
    assert "has no tag or run 'good'" in again.stderr

    project.called("tag", "store", "good")
    worse = ("run", "pipeline.yaml", "--set", "gla.n_iter=1")
    # A worker judges it as this process does.
    bad = project.melmill(*worse)
    assert bad.returncode == 3
    assert "tripped: gate: rule 1: scm of gla: not worse than 0.5: tripped: gla: " in bad.stderr
    (verdict,) = (path for path in project.store.rglob("verdict.json") if b'"passed": false' in path.read_bytes())
    judged = verdict.read_bytes()
    record = verdict.parents[2] / "records" / f"{verdict.parent.name}.json"
    assert json.loads(record.read_text())["worker"]
    record.unlink()
    shutil.rmtree(verdict.parent)
    assert project.called(*worse, "--executor", "serial").returncode == 3
    assert verdict.read_bytes() == judged
    # The verdict is stored: a run with nothing to do has it too.
    repeated = project.called(*worse, "--executor", "serial")
    assert (repeated.returncode, "nothing to run" in repeated.stdout) == (3, True)
    outcome = Store.open(str(project.store)).runs()[-1].outcome
    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == ("done", 3)
    page = Path(project.run("--executor", "serial", "--set", "gla.n_iter=1", expect=3)["gates"][0]["page"])
    assert {"index.html", "verdict.json", "junit.xml"} <= {path.name for path in page.parent.iterdir()}
    assert project.called("run", "pipeline.yaml", "--executor", "serial").returncode == 0


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("stor/@good", r"baseline 'stor/@good' is no store, and no tag or run of"),
        ("elsewhere/store", r"baseline 'elsewhere/store' is no store"),
        ("'@good'", ""),
        ("{store}@good", ""),  # the pipeline's own store, which is not there yet
    ],
)
def test_another_store_that_is_not_there_is_no_baseline_yet_to_come(
    project: Project, baseline: str, message: str
) -> None:
    project.write(NIGHTLY + GATE.replace("baseline: good", f"baseline: {baseline}"))
    done = project.called("plan", "pipeline.yaml")
    assert (done.returncode, done.stderr.count("\n")) == ((2, 1) if message else (0, done.stderr.count("\n")))
    assert re.search(message, done.stderr)


def test_a_first_run_that_did_not_come_to_its_end_goes_on(project: Project) -> None:
    project.write(NIGHTLY + GATE)
    # No run of the store could be the baseline yet: one has no scores, and one failed.
    project.run("--executor", "serial", "--until", "mel")
    victim = next(project.store.glob("mel/*/data/c/2/0"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    project.run("--executor", "serial", expect=1)
    assert project.called("repair", "store").returncode == 0
    (gate,) = project.run("--executor", "serial")["gates"]
    assert "there is no baseline 'good' yet, as no run of the store is done and has scores" in gate["unsure"][0]
    assert project.called("run", "pipeline.yaml", "--executor", "serial").returncode == 2


def test_two_runs_are_compared(nights: Project, tmp_path: Path) -> None:
    files = {name: tmp_path / f"difference.{name}" for name in ("html", "md", "xml")}
    done = nights.called(
        *("compare", "store@good", "store", "--by", "speaker,subset", "--json", "--html", str(files["html"])),
        *("--markdown", str(files["md"]), "--junit", str(files["xml"])),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (scm, *_) = answer["tests"]
    assert (scm["metric"], scm["node"], scm["by"], scm["n"], scm["outcome"]) == ("scm_db", "gla", "all", 16, "worse")
    assert {row["slice"] for row in answer["tests"]} == {"all", "11", "22", "dev-clean"}
    worst = answer["worst"][0]
    assert Path(worst["recording"]).is_file()
    page = files["html"].read_text()
    # The recording, and what both runs made of it.
    assert page.count("<audio ") >= 3 * 10
    assert f"[{worst['utterance_id']}](difference.html#listen-1)" in files["md"].read_text()
    assert ET.parse(files["xml"]).getroot().get("tests") == str(len(answer["tests"]))


def test_two_runs_are_compared_in_python(nights: Project) -> None:
    found = melmill.compare(f"{nights.store}@good", nights.store, metrics=["scm"])
    assert found.comparison.overall["metric"].tolist() == ["scm_db"]
    assert found.as_dict()["not_comparable"] == []
    table = nights.called("compare", "store@good:gla", "store:gla", "-m", "scm").stdout
    assert "worse" in table
    assert "utterances that lost most by SCM" in table
    with pytest.raises(ParameterError, match="metrics must be a list of names, got 'scm'"):
        melmill.compare(nights.store, nights.store, metrics="scm")


def test_other_recordings_and_metrics_are_not_compared(nights: Project, tmp_path: Path) -> None:
    other = make_project(tmp_path, {}, NIGHTLY.replace("[scm, estoi]", "[estoi]"))
    shutil.copytree(nights.root, other.root)
    chapter = other.root / "dev-clean" / "11" / "1"
    shutil.copy(chapter / "11-1-0001.flac", chapter / "11-1-0000.flac")  # another recording of the same name
    (chapter / "11-1-0007.flac").unlink()
    other.run("--executor", "serial")
    found = melmill.compare(f"{nights.store}@good", other.store)
    assert [row["n"] for row in found.as_dict()["tests"]] == [14]
    assert [re.sub(r"/\S*/", "", note) for note in found.comparison.not_comparable] == [
        "gla: 1 utterances are missing in store: 11-1-0007",
        "gla: 1 utterances have other references, and are not compared: 11-1-0000",
        "gla: scm was scored in store@good alone",
    ]


def test_a_store_packed_otherwise_is_compared(nights: Project, tmp_path: Path) -> None:
    other = make_project(tmp_path, {}, NIGHTLY.replace("shard_duration_s: 3", "shard_duration_s: 5"))
    shutil.copytree(nights.root, other.root)
    other.run("--executor", "serial")
    (scm, estoi) = melmill.compare(f"{nights.store}@good", other.store).as_dict()["tests"]
    assert (scm["n"], estoi["n"]) == (16, 16)
    assert (scm["mean_difference"], estoi["mean_difference"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "store@god", "store"), r"has no tag or run 'god'; did you mean 'good'\?"),
        (("compare", "store:glo", "store"), r"store has no scores of 'glo'; did you mean 'gla'\?"),
        (("compare", "store", "store", "-m", "pesq_wb"), r"pesq_wb of 'gla' was not scored in store"),
        (("compare", "store", "store", "--by", "speeker"), r"by can't group by 'speeker'; did you mean 'speaker'\?"),
        (("gate", "store", "--rules", "gate.yaml", "--baseline", "god"), r"no tag or run 'god'; did you mean 'good'\?"),
        (("gate", "store", "--rules", "gate.yaml"), r"gate.yaml:3: not_worse_than needs a baseline"),
        (("gate", "store", "--rules", "none.yaml"), r"rules 'none.yaml' can't be read: No such file"),
        (("gate", "store", "--rules", "typo.yaml"), r"typo.yaml:2: rule 1 has no field 'at_lest'; did you mean"),
        (("gate", "store", "--rules", "pesq.yaml"), r"pesq.yaml:2: pesq_wb of 'gla' was not scored in store"),
        (("gate", "store", "--rules", "gate.yaml", "--baseline", "{other}"), "baseline is a run of project 'another'"),
        (("gate", "store", "--rules", "gate.yaml", "--baseline", "{apart}"), "have no utterance of gla in common"),
        (("compare", "store", "{other}"), "is a run of project 'another'"),
        (("compare", "store", "{apart}"), "have no utterance of gla in common"),
        (
            ("gate", "store", "--rules", "gate.yaml", "--update-baseline"),
            r"--update-baseline moves the tag of --baseline",
        ),
        (
            ("gate", "store", "--rules", "gate.yaml", "--baseline", "{run}", "--update-baseline"),
            r"--update-baseline moves a tag, and '\d+T\d+' is none of",
        ),
    ],
)
def test_bad_input_is_one_line(
    nights: Project, other: Project, apart: Project, arguments: tuple[str, ...], message: str
) -> None:
    (nights.folder / "typo.yaml").write_text("rules:\n  - {metric: estoi, at_lest: 1}")
    (nights.folder / "pesq.yaml").write_text("rules:\n  - {metric: pesq_wb, at_least: 1}")
    places = {"run": Store.open(str(nights.store)).run_ids()[0], "other": other.store, "apart": apart.store}
    done = nights.called(*(one.format(**places) for one in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(message, done.stderr)
    assert done.stderr.count("\n") == 1


def test_stores_of_two_projects_are_compared_on_purpose(nights: Project, other: Project) -> None:
    assert nights.called("compare", "store", str(other.store), "--other-project").returncode == 0
    # Another store is a baseline too.
    gate = ("gate", "store@good", "--rules", "gate.yaml", "--baseline", str(other.store), "--other-project")
    assert nights.called(*gate).returncode == 0


def test_runs_without_a_common_utterance(nights: Project, apart: Project) -> None:
    with pytest.raises(NotComparable, match="have no utterance of gla in common"):
        melmill.compare(nights.store, apart.store)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rules:\n  - {metric: estoi, at_lest: 1}",
            r"gate.yaml:2: rule 1 has no field 'at_lest'; did you mean 'at_least'\?",
        ),
        ("rules:\n  - {metric: estoy, at_least: 1}", r"gate.yaml:2: metric 'estoy' is none; did you mean 'estoi'\?"),
        (
            "rules:\n  - metric: estoi\n    at_least: high",
            r"gate.yaml:3: at_least of rule 1 must be a number or null, got 'high'",
        ),
        ("rules:\n  - metric: estoi", r"gate.yaml:2: a rule must have one limit, and this one limits nothing"),
        ("rule:\n  - {}", r"gate.yaml:1: a file of rules has no field 'rule'; did you mean 'rules'\?"),
        ("rules: []", r"gate.yaml:1: rules must be a list"),
        ("rules: [estoi]", r"gate.yaml:1: rule 1 must be a mapping"),
        ("- 1", r"gate.yaml:1: a file of rules must be a mapping"),
        ("rules: {", r"gate.yaml:1: not valid YAML"),
    ],
)
def test_a_mistake_in_the_rules_has_its_line(text: str, message: str) -> None:
    with pytest.raises(melmill.PipelineError, match=message):
        parse_rules(text, "gate.yaml")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("- {{metric: pesq_wb, at_least: 3}}", r"rule 1 \(pesq_wb: at least 3\) is about pesq_wb, which is not scored"),
        ("- {{metric: estoi, node: glo, at_least: 3}}", "is about 'glo', which is not scored; did you mean 'gla'"),
        ("- {{metric: estoi, at_lest: 3}}", "has no field 'at_lest'; did you mean 'at_least'"),
        ("- {{metric: estoi, not_worse_than: 3}}", r"compares with a baseline in rule 1 .*: add baseline"),
    ],
)
def test_a_gate_node_is_checked_before_anything_runs(project: Project, rules: str, message: str) -> None:
    project.write(NIGHTLY + "  gate:\n    uses: gate\n    from: scores\n    rules:\n      " + rules)
    done = project.called("plan", "pipeline.yaml")
    assert (done.returncode, project.store.exists()) == (2, False)
    assert re.search(rf"pipeline\.yaml:\d+: .*{message}", done.stderr)


def test_a_run_whose_products_were_pruned_is_not_taken_for_good(nights: Project, tmp_path: Path) -> None:
    store = Store.open(str(shutil.copytree(nights.store, tmp_path / "store")))
    first = store.run_ids()[0]
    remove_tag(store, "good")
    assert sorted(one.node for one in prune(store, Rules(keep=1, grace_s=0)).deleted) == ["gla", "scores"]
    (tmp_path / "gate.yaml").write_text("rules: [{quarantined_share: 0.5}]")
    run = f"{store.location.url}@{first}"
    for arguments in (
        ("compare", run, store.location.url),
        ("gate", run, "--rules", str(tmp_path / "gate.yaml")),
        ("listen", run, "--nodes", "gla", "--test", "mushra", "--n", "1", "-o", str(tmp_path / "test")),
    ):
        done = nights.called(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert "any more: its product was pruned" in done.stderr


def test_a_baseline_that_is_gone_is_named(nights: Project) -> None:
    with pytest.raises(StoreError, match="has no tag or run 'nightly'"):
        melmill.compare(f"{nights.store}@nightly", nights.store)
