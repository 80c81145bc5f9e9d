"""The files of cluster/deploy, checked by the tools that read them, if these are installed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as kubernetes

from melmill.cluster.types.kubernetes import POD_NAME, POD_UID, Kubernetes
from melmill.flows.pipeline.spec import load
from tests.cluster.one_node_slurm import slurm
from tests.cluster.processes import PATIENCE_S, ROOT, environment, needs, python
from tests.flows.conftest import Project

DEPLOY = ROOT / "cluster" / "deploy"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KINDS = {
    "ServiceAccount": "V1ServiceAccount",
    "Role": "V1Role",
    "RoleBinding": "V1RoleBinding",
    "PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "CronJob": "V1CronJob",
}


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        if path.name not in ("kustomization.yaml", "pipeline.yaml"):
            for document in yaml.safe_load_all(path.read_text()):
                yield document["kind"], document


def check(value: Any, kind: str, where: str) -> None:
    """Check a value against its model in Kubernetes's own client, which must know each field."""
    inner = re.fullmatch(r"(?:list\[|dict\(str, )(.*)[\])]", kind)
    if inner:
        values = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in values:
            check(entry, inner[1], f"{where}.{key}")
        return
    model = getattr(kubernetes, kind, None)
    if model is None:
        return
    fields = {model.attribute_map[name]: found for name, found in model.openapi_types.items()}
    assert isinstance(value, dict), where
    for name, entry in value.items():
        assert name in fields, f"{where} has no field {name!r}"
        check(entry, fields[name], f"{where}.{name}")
    # Raises where a required field is missing or a word is not one of those allowed.
    model(**{python_name: value.get(name) for python_name, name in model.attribute_map.items()})


@pytest.mark.parametrize(("kind", "document"), list(documents()), ids=lambda value: str(value)[:20])
def test_kubernetes_knows_every_field(kind: str, document: dict[str, Any]) -> None:
    check(document, KINDS[kind], kind)


def test_a_field_that_kubernetes_does_not_know_would_be_noticed() -> None:
    wrong = dict(next(document for kind, document in documents() if kind == "CronJob"))
    wrong["spec"] = {**wrong["spec"], "concurrency": "Forbid"}
    with pytest.raises(AssertionError, match=r"CronJob\.spec has no field 'concurrency'"):
        check(wrong, "V1CronJob", "CronJob")


def test_the_cronjob_fits_the_rest() -> None:
    (cron,) = [document for kind, document in documents() if kind == "CronJob"]
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert {variable["name"] for variable in container["env"]} == {POD_NAME, POD_UID}
    spec = load(DEPLOY / "kubernetes" / "pipeline.yaml").cluster
    assert isinstance(spec, Kubernetes)
    assert spec.kubernetes.image == container["image"] == f"registry/melmill:{PROJECT['version']}"
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.items() >= spec.kubernetes.claims.items()
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert kustomization["namespace"] == spec.kubernetes.namespace
    (generated,) = kustomization["configMapGenerator"]
    assert {"configMap": {"name": generated["name"]}, "name": "pipeline"} in pod["volumes"]


def test_the_driver_may_do_what_it_does() -> None:
    """The role's rules allow every call of the API in cluster/launchers/kubernetes.py."""
    (role,) = [document for kind, document in documents() if kind == "Role"]
    allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    wanted = {
        *{(kind, verb) for kind in ("daskclusters", "daskworkergroups") for verb in ("create", "get", "delete")},
        ("secrets", "create"),
        ("secrets", "delete"),
        ("pods", "list"),
        ("services", "get"),
        ("deployments", "get"),
        ("deployments", "delete"),
        ("daskworkergroups", "patch"),
    }
    assert wanted <= allowed


def test_kustomize_builds_them() -> None:
    needs("kubectl")
    built = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    made = [document["kind"] for document in yaml.safe_load_all(built.stdout)]
    assert sorted(made) == sorted([*KINDS, "ConfigMap"])


def test_the_image_is_made_of_what_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    (base,) = [line.removeprefix("FROM python:").removesuffix("-slim") for line in lines if line.startswith("FROM ")]
    assert tuple(map(int, base.split("."))) >= tuple(map(int, PROJECT["requires-python"].strip(">=").split(".")))
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    assert all((ROOT / source).exists() for source in copied)
    # Every folder that the package is installed from, and the files that its metadata name.
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()
    assert {"melmill", *packages, "pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= copied
    (install,) = [line for line in lines if line.startswith("RUN pip install")]
    extras = re.findall(r"\.\[(.*?)\]", install)
    assert extras
    assert set(extras[0].split(",")) <= PROJECT["optional-dependencies"].keys()
    assert f"melmill:{PROJECT['version']}" in lines[1]


@pytest.mark.parametrize("unit", ["melmill.service", "melmill.timer"])
def test_systemd_takes_the_units(tmp_path: Path, unit: str) -> None:
    needs("systemd-analyze")
    for path in (DEPLOY / "systemd").iterdir():
        text = path.read_text().replace("/srv/melmill/.venv/bin/melmill", "/bin/true").replace("User=melmill\n", "")
        (tmp_path / path.name).write_text(text.replace("/srv/melmill", str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / unit],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if unit in line or str(tmp_path) in line]
    assert not complaints
    assert done.returncode == 0, done.stderr


def test_cron_starts_no_second_run(tmp_path: Path) -> None:
    """Run the line as cron would, twice at once, with a slow program."""
    needs("flock")
    (line,) = [line for line in (DEPLOY / "melmill.cron").read_text().splitlines() if re.match(r"[\d*]", line)]
    *when, user, command = re.split(r"\s+", line, maxsplit=6)
    assert (len(when), user) == (5, "melmill")
    program = tmp_path / ".venv" / "bin" / "melmill"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@" >>began; while [ ! -e enough ]; do sleep 0.05; done\n')
    program.chmod(0o755)
    command = command.replace("/srv/melmill", shlex.quote(str(tmp_path)))
    with subprocess.Popen(["bash", "-c", command]) as first:
        while not (tmp_path / "began").exists():
            pass
        second = subprocess.run(["bash", "-c", command], check=False)
        (tmp_path / "enough").touch()
    assert (first.returncode, second.returncode) == (0, 1)
    assert (tmp_path / "began").read_text() == "run pipeline.yaml\n"


def test_the_job_script_is_bash() -> None:
    done = subprocess.run(["bash", "-n", DEPLOY / "melmill.sbatch"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.cluster
def test_slurm_runs_the_job_script(
    project: Project, undisturbed: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs("munged", "slurmctld", "slurmd", "sbatch", root=True)
    program = project.folder / "melmill"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(python("-m", "melmill"))} "$@"\n')
    program.chmod(0o755)
    with slurm(tmp_path_factory.mktemp("slurm")):
        done = subprocess.run(
            ["sbatch", "--wait", "--time=10", DEPLOY / "melmill.sbatch", project.pipeline, "--executor", "serial"],
            cwd=project.folder,
            env=environment(PATH=f"{project.folder}:{os.environ['PATH']}"),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
    (log,) = project.folder.glob("melmill-*.log")
    assert done.returncode == 0, done.stderr + log.read_text()
    assert project.bytes() == undisturbed
