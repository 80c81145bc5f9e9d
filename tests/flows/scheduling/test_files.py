"""The files that call a schedule, checked by the programs that read them."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.flows.conftest import Project

# Everything that cron, systemd, a shell or YAML could misread.
TELL = """cat > "told 50% of $HOME.json"; echo 'a\\b' "é" `date`"""


@pytest.fixture
def gated(project: Project) -> Project:
    (project.folder / "gate.yaml").write_text("rules:\n  - {metric: scm, node: admm, at_most: 5}\n")
    return project


def made(project: Project, *arguments: str) -> dict[str, object]:
    done = project.called("schedule", "pipeline.yaml", "-o", "out", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_no_fault_in_its_units(gated: Project) -> None:
    answer = made(gated, "--kind", "systemd", "--every", "0 2 13 * fri", "--notify", TELL, "--gate", "gate.yaml")
    assert answer["checks"] == ["systemd-analyze calendar and systemd-analyze verify find no fault"]
    timer = (gated.folder / "out" / "melmill-test.timer").read_text()
    assert timer.count("OnCalendar=") == 2
    service = (gated.folder / "out" / "melmill-test.service").read_text()
    assert f"WorkingDirectory={gated.folder}\n" in service
    assert "50%% of $$HOME" in service


def test_a_cron_line_says_to_the_shell_what_was_given(gated: Project) -> None:
    given = ["--every", "30 2 * * *", "--notify", TELL, "--baseline", "good", "--gate", "gate.yaml"]
    answer = made(gated, "--kind", "cron", *given)
    line = (gated.folder / "out" / "melmill-test.cron").read_text().splitlines()[1]
    assert line.startswith("30 2 * * * cd ")
    command = line.removeprefix("30 2 * * * ").replace("\\%", "%")  # as cron does
    words = shlex.split(command.partition(" && ")[2].rpartition(" >> ")[0])
    assert words[words.index("--notify") + 1] == TELL
    assert words[words.index("--gate") + 1] == str(gated.folder / "gate.yaml")
    assert words[words.index("--store") + 1] == str(gated.store)
    if shutil.which("crontab"):
        assert answer["checks"] == ["crontab -n finds no fault"]


def test_a_cron_job_is_one_for_kubernetes_own_client(gated: Project) -> None:
    client = pytest.importorskip("kubernetes.client")
    given = ["--every", "week", "--gate", "gate.yaml", "--notify", TELL, "--store", "s3://team/store"]
    made(gated, "--kind", "kubernetes", "--image", "registry/melmill:1", *given)
    text = (gated.folder / "out" / "melmill-test.yaml").read_text()
    config, job = yaml.safe_load_all(text)
    assert config["data"]["pipeline.yaml"] == gated.pipeline.read_text()

    class Answer:
        data = json.dumps(job)

    # It knows every field and its type, and refuses a required one that is missing.
    read = client.ApiClient().deserialize(Answer(), "V1CronJob")
    assert client.ApiClient().sanitize_for_serialization(read) == job
    (container,) = read.spec.job_template.spec.template.spec.containers
    assert container.args[:3] == ["schedule", "tick", "/etc/melmill/pipeline.yaml"]
    assert container.args[container.args.index("--notify") + 1] == TELL
    assert read.spec.concurrency_policy == "Forbid"


DEBIAN = "usage:\tcrontab [-u user] [-n] file\n\t-n\t(dry run: checks the syntax, then bails out)"
CRONIE = " -n <host>  set host in cluster\n -T <file>  test a crontab file syntax"


@pytest.mark.parametrize(("usage", "option"), [(DEBIAN, "-n"), (CRONIE, "-T"), ("Usage: crontab [-c DIR]", None)])
def test_each_crontab_is_asked_for_its_own_dry_run(tmp_path: Path, usage: str, option: str | None) -> None:
    from melmill.flows.runs.scheduling.files import _dry_run

    program = tmp_path / "crontab"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{usage}\nEND\nexit 1\n")
    program.chmod(0o755)
    assert _dry_run(str(program)) == option


def test_a_store_on_this_machine_is_a_volume_in_kubernetes(project: Project) -> None:
    answer = made(project, "--kind", "kubernetes", "--image", "registry/melmill:1", "--every", "0 2 * * 7")
    text = (project.folder / "out" / "melmill-test.yaml").read_text()
    job = list(yaml.safe_load_all(text))[1]["spec"]
    assert job["schedule"] == "0 2 * * 0"
    (container,) = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][container["args"].index("--store") + 1] == "/data/store"
    assert f"the store '{project.store}' is on this machine" in str(answer["notes"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--every", "day", "--gate", "nogate.yaml"], "--gate 'nogate.yaml': there is no such file"),
        (["--every", "day", "--baseline", "good"], "--baseline is what the rules of --gate compare with"),
        (["--every", "day", "--kind", "kubernetes"], "a CronJob needs --image"),
        (["--every", "day", "--kind", "cron", "--image", "x"], "--image is for --kind kubernetes"),
        (["--every", "dayly"], "--every must be hour, day"),
        (["--every", "day", "--name", "My Name"], "--name must be small letters"),
        (["--every", "day", "--kind", "cron", "--notify", "x" * 1000], "cron takes 1000"),
        (["--every", "day", "--kind", "cron", "--notify", "a\nb"], "can't hold line ends"),
        (["--every", "day", "--kind", "systemd", "--baseline", "a\nb", "--gate", "gate.yaml"], "can't hold line ends"),
        (["--every", "day", "--gate", "typo.yaml"], "typo.yaml:2"),
        (["--every", "day", "--gate", "latin.yaml"], "not UTF-8 text"),
    ],
)
def test_bad_schedules_are_one_line(gated: Project, arguments: list[str], said: str) -> None:
    project = gated
    (project.folder / "typo.yaml").write_text("rules:\n  - {metrik: scm, node: admm, at_most: 5}\n")
    (project.folder / "latin.yaml").write_bytes(b"rules:\n  - {metric: scm, node: \xe4, at_most: 5}\n")
    done = project.called("schedule", "pipeline.yaml", "-o", "out", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
    assert not Path(project.folder / "out").exists()


def test_a_fault_that_systemd_finds_is_said(project: Project, tmp_path: Path) -> None:
    from melmill.flows.pipeline.errors import PipelineError
    from melmill.flows.runs.scheduling.files import _checked

    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "x.service"
    unit.write_text("[Service]\nExecStart=relative\n")
    with pytest.raises(PipelineError, match=r"x\.service"):
        _checked([program, "verify", "--man=no", str(unit)])
