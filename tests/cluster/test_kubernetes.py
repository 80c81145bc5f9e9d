"""Kubernetes objects: the operator's schema accepts them, and their commands run.

The tests run the commands as the operator would.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import dask_kubernetes
import jsonschema
import pytest
import yaml
from dask_kubernetes.operator.controller.controller import (
    build_scheduler_deployment_spec,
    build_scheduler_service_spec,
    build_worker_deployment_spec,
)
from dask_kubernetes.operator.validation import validate_cluster_name
from distributed import Client

from melmill.cluster.authority import temporary
from melmill.cluster.credentials import Credentials
from melmill.cluster.types.kubernetes import (
    Kubernetes,
    KubernetesOptions,
    KubernetesPool,
    KubernetesPoolOptions,
    group_name,
    scheduler_host,
)
from tests.cluster.processes import answers, environment, free_port, python, server

CHART = Path(dask_kubernetes.__file__).parent / "operator" / "deployment" / "helm" / "dask-kubernetes-operator"
NAME = "melmill-0123abcd"

SPEC = Kubernetes(
    kubernetes=KubernetesOptions(
        image="registry/melmill:0.1.0",
        namespace="speech",
        claims={"corpora": "/data"},
        secrets=("s3-keys",),
        service_account="melmill",
    ),
    pools={
        "cpu": KubernetesPool(workers=8, threads=2, memory="4GiB"),
        "gpu": KubernetesPool(
            workers=2,
            min_workers=0,
            memory="16GiB",
            resources={"GPU": 1},
            kubernetes=KubernetesPoolOptions(
                limits={"nvidia.com/gpu": "1"}, node_selector={"gpu": "yes"}, tolerations=("nvidia.com/gpu", "a=b")
            ),
        ),
    },
)


@pytest.fixture(scope="module")
def credentials() -> Credentials:
    return temporary()


@pytest.fixture(scope="module")
def made(credentials: Credentials) -> list[dict[str, Any]]:
    return SPEC.objects(NAME, credentials)


@cache
def schema(kind: str) -> dict[str, Any]:
    """Return the operator's schema of a kind.

    It refuses fields that it does not name, which Kubernetes would drop silently.
    """
    text = (CHART / "crds" / f"{kind.lower()}.yaml").read_text()
    found = closed(yaml.load(text, yaml.CSafeLoader)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    found["properties"] |= {"apiVersion": {"const": "kubernetes.dask.org/v1"}, "kind": {"const": kind}, "metadata": {}}
    return dict(found)


def closed(node: Any) -> Any:
    if isinstance(node, list):
        return [closed(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    node = {name: closed(entry) for name, entry in node.items()}
    if isinstance(node.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in node:
        node.setdefault("additionalProperties", False)
    return node


def test_the_operator_takes_the_objects(made: list[dict[str, Any]]) -> None:
    kinds = [manifest["kind"] for manifest in made]
    assert kinds == ["Secret", "DaskCluster", "DaskWorkerGroup", "DaskWorkerGroup"]
    for manifest in made[1:]:
        jsonschema.validate(manifest, schema(manifest["kind"]))
        assert manifest["metadata"]["namespace"] == "speech"
    validate_cluster_name(NAME)
    assert made[3]["metadata"]["name"] == f"{NAME}-gpu" == group_name(NAME, "gpu")


def test_the_schema_would_notice_a_field_that_is_none(made: list[dict[str, Any]]) -> None:
    wrong = json.loads(json.dumps(made[2]))
    wrong["spec"]["worker"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="'volumeMount' was unexpected"):
        jsonschema.validate(wrong, schema("DaskWorkerGroup"))


def test_pools_are_groups_of_what_they_declare(made: list[dict[str, Any]]) -> None:
    cpu, gpu = (manifest["spec"]["worker"] for manifest in made[2:])
    assert (cpu["replicas"], gpu["replicas"]) == (8, 0)
    assert cpu["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "memory": str(4 * 2**30)},
        "limits": {"memory": str(4 * 2**30)},
    }
    assert gpu["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert gpu["spec"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists"},
        {"key": "a", "operator": "Equal", "value": "b"},
    ]
    assert made[1]["spec"]["worker"]["replicas"] == 0


def test_keys_are_in_the_secret_alone(made: list[dict[str, Any]], credentials: Credentials) -> None:
    secret, *others = made
    assert secret["stringData"]["key.pem"] == credentials.key
    assert "PRIVATE KEY" not in json.dumps(others)


def test_the_cluster_can_end_with_its_driver(credentials: Credentials) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "driver", "uid": "1"}
    for manifest in SPEC.objects(NAME, credentials, owner):
        assert manifest["metadata"]["ownerReferences"] == [owner]


def container(deployment: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(found)


def registered(log: Path) -> bool:
    return "Registered to" in log.read_text()


class Here:
    """Run the containers of a cluster as processes of this machine."""

    def __init__(self, folder: Path, secret: Mapping[str, str], port: int) -> None:
        self.folder, self.port = folder, port
        for name, text in secret.items():
            (folder / name).write_text(text)

    def command(self, found: Mapping[str, Any]) -> list[str]:
        variables = self.variables(found)
        told = [*found["command"], *found.get("args", [])]
        for old, new in (
            ("$(DASK_WORKER_NAME)", variables.get("DASK_WORKER_NAME", "")),
            ("/etc/melmill/tls", str(self.folder)),
            (f"{scheduler_host(NAME, 'speech')}:8786", f"127.0.0.1:{self.port}"),
        ):
            told = [part.replace(old, new) for part in told]
        assert told[0] == "python"
        return python(*told[1:])

    @staticmethod
    def variables(found: Mapping[str, Any]) -> dict[str, str]:
        return {variable["name"]: variable["value"] for variable in found["env"]}


@pytest.fixture(scope="module")
def running(
    made: list[dict[str, Any]], credentials: Credentials, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """Start what the operator would deploy: the scheduler, and a worker of each pool."""
    folder = tmp_path_factory.mktemp("pods")
    here = Here(folder, made[0]["stringData"], free_port())
    cluster = made[1]["spec"]
    scheduler = container(build_scheduler_deployment_spec(NAME, cluster["scheduler"]["spec"], {}, {}))
    pods = [
        container(
            build_worker_deployment_spec(
                worker_group_name=group["metadata"]["name"],
                namespace="speech",
                cluster_name=NAME,
                uuid="0",
                pod_spec=group["spec"]["worker"]["spec"],
                annotations={},
                labels={},
            )
        )
        for group in made[2:]
    ]
    command = here.command(scheduler)
    command[command.index("--port") + 1] = str(here.port)
    with ExitStack() as stack:
        up = partial(answers, "127.0.0.1", here.port)
        stack.enter_context(server(command, folder / "scheduler.log", up, here.variables(scheduler)))
        for index, pod in enumerate(pods):
            log = folder / f"worker-{index}.log"
            stack.enter_context(server(here.command(pod), log, partial(registered, log), here.variables(pod)))
        yield stack.enter_context(Client(f"tls://127.0.0.1:{here.port}", security=credentials.security()))


def test_what_the_operator_starts_is_the_cluster(running: Client) -> None:
    workers = running.scheduler_info(n_workers=-1)["workers"].values()
    assert {
        worker["name"]: (worker["nthreads"], worker["resources"], worker["memory_limit"]) for worker in workers
    } == {
        f"{NAME}-cpu-worker-0": (2, {"pool-cpu": 2}, 4 * 2**30),
        f"{NAME}-gpu-worker-0": (1, {"pool-gpu": 1, "GPU": 1}, 16 * 2**30),
    }
    from os import getenv

    assert running.submit(getenv, "NUMBA_NUM_THREADS", resources={"pool-gpu": 1}).result(30) == "1"
    import dask

    for setting, value in (("allowed-failures", 0), ("work-stealing", False), ("worker-ttl", "60s")):
        assert running.run_on_scheduler(dask.config.get, f"distributed.scheduler.{setting}") == value


def test_the_service_finds_the_scheduler(made: list[dict[str, Any]]) -> None:
    cluster = made[1]["spec"]
    service = build_scheduler_service_spec(NAME, cluster["scheduler"]["service"], {}, {})
    deployment = build_scheduler_deployment_spec(NAME, cluster["scheduler"]["spec"], {}, {})
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in container(deployment)["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert scheduler_host(NAME, "speech").startswith(f"{service['metadata']['name']}.speech")


def test_where_kubernetes_is_not_one_line_says_so(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{nobody.getsockname()[1]}"}}],
            "users": [{"name": "u", "user": {"token": "x"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        program = (
            "from melmill.cluster.connect import connected\n"
            "from tests.cluster.test_kubernetes import SPEC\n"
            "with connected(SPEC): pass\n"
        )
        done = subprocess.run(
            python("-c", program),
            env=environment(KUBECONFIG=str(tmp_path / "config")),
            capture_output=True,
            text=True,
            check=False,
        )
    last = done.stderr.strip().splitlines()[-1]
    assert "cluster: Kubernetes can't be asked for Secret melmill-" in last
    assert last.endswith("check that `kubectl get pods` works here")
