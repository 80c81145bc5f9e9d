"""Workers as pods of a Kubernetes cluster, through the Dask operator.

The operator's own client and autoscaler speak to schedulers without certificates, and take workers away from any group;
so the objects are made here, pools grow by their groups' replicas, and only idle workers are let go.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from uuid import uuid4

import httpx
import kr8s
from distributed import Client
from kr8s.objects import APIObject, Deployment, Pod, Secret, Service, new_class

from melmill.cluster.blocks import Kubernetes
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.running import RunningCluster, join
from melmill.cluster.spec import ClusterSpec
from melmill.cluster.types.manifests import API_VERSION, SCHEDULER_PORT, group_name, objects, scheduler_host
from melmill.cluster.types.pooled import Idle, wanted_workers

DaskCluster: Any = new_class(kind="DaskCluster", version=API_VERSION, asyncio=False)
DaskWorkerGroup: Any = new_class(
    kind="DaskWorkerGroup", version=API_VERSION, asyncio=False, scalable=True, scalable_spec="worker.replicas"
)
_KINDS: dict[str, Any] = {"Secret": Secret, "DaskCluster": DaskCluster, "DaskWorkerGroup": DaskWorkerGroup}

OPERATOR_TIMEOUT_S = 60
# Nodes may have to be added and images be fetched.
SCHEDULER_TIMEOUT_S = 900
CONNECT_TIMEOUT_S = 60
POLL_S = 2.0
ADJUST_EVERY_S = 10.0

# Where a driver that is a pod itself says so: its cluster then ends with it, however it ends.
POD_NAME, POD_UID = "MELMILL_POD_NAME", "MELMILL_POD_UID"


@contextmanager
def launch(spec: ClusterSpec, credentials: Credentials | None) -> Iterator[RunningCluster]:
    """Create the cluster's objects, wait for its scheduler, yield the cluster, delete the objects.

    Raises
    ------
    ClusterError
        Kubernetes does not answer or refuses an object, or no operator acts on them.
    """
    block = spec.kubernetes
    if block is None or credentials is None:
        raise ClusterError("cluster: type 'kubernetes' needs the block kubernetes: {image: ...} and certificates")
    name = f"melmill-{uuid4().hex[:8]}"
    with ExitStack() as stack:
        for manifest in objects(name, spec, credentials, _owner()):
            stack.callback(_delete, _create(manifest))
        _wait_for_operator(name, block)
        address = _scheduler_address(name, block, stack)
        client = stack.enter_context(_client(address, credentials))
        yield _Pods(client, spec, name, block)


class _Pods(RunningCluster):
    def __init__(self, client: Client, spec: ClusterSpec, name: str, block: Kubernetes) -> None:
        super().__init__(client, spec)
        self.name = name
        self.block = block
        self._replicas = {pool: declared.fewest for pool, declared in spec.pools.items()}
        self._idle = Idle()
        self._adjusted_s = float("-inf")

    def demand(self, tasks: Mapping[str, int]) -> None:
        now = time.monotonic()
        if now - self._adjusted_s < ADJUST_EVERY_S:
            return
        self._adjusted_s = now
        try:
            for pool in self.spec.pools:
                self._adjust(pool, tasks.get(pool, 0))
        except (httpx.HTTPError, kr8s.ServerError, kr8s.NotFoundError) as error:
            self.news.append(f"Kubernetes does not answer, so the cluster keeps its size: {error}")

    def _adjust(self, pool: str, tasks: int) -> None:
        wanted, there = wanted_workers(self.spec.pools[pool], tasks), self._replicas[pool]
        group = group_name(self.name, pool)
        names = [str(worker["name"]) for worker in self._look() if str(worker["name"]).startswith(f"{group}-worker-")]
        busy = {str(worker["name"]) for worker in self._look() if worker["metrics"].get("executing")}
        idle = self._idle.long(names, busy)[: max(0, there - wanted)]
        for name in idle:
            # A deployment that is gone before the replicas are fewer leaves the operator nothing to choose.
            self.client.retire_workers(names=[name])
            Deployment.get(name, namespace=self.block.namespace).delete()
        replicas = there - len(idle) if wanted < there else wanted
        if replicas != there:
            DaskWorkerGroup.get(group, namespace=self.block.namespace).scale(replicas)
            self._replicas[pool] = replicas


def _owner() -> dict[str, Any] | None:
    pod = {"name": os.environ.get(POD_NAME), "uid": os.environ.get(POD_UID)}
    return {"apiVersion": "v1", "kind": "Pod", **pod} if all(pod.values()) else None


def _create(manifest: dict[str, Any]) -> APIObject:
    what = f"{manifest['kind']} {manifest['metadata']['name']}"
    try:
        made: APIObject = _KINDS[manifest["kind"]](manifest)
        made.create()
    except (kr8s.NotFoundError, kr8s.ServerError) as error:
        response = getattr(error, "response", None)
        if manifest["kind"] != "Secret" and response is not None and response.status_code == 404:
            raise ClusterError(
                f"cluster: Kubernetes knows no {manifest['kind']}: install the Dask operator, from its Helm chart "
                "dask-kubernetes-operator"
            ) from error
        raise ClusterError(f"cluster: Kubernetes refused {what}: {error}") from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ClusterError(
            f"cluster: Kubernetes can't be asked for {what}: {error}; see that `kubectl get pods` works here"
        ) from error
    return made


def _delete(made: APIObject) -> None:
    with suppress(kr8s.NotFoundError):
        made.delete()


def _wait_for_operator(name: str, block: Kubernetes) -> None:
    deadline = time.monotonic() + OPERATOR_TIMEOUT_S
    while not DaskCluster.get(name, namespace=block.namespace).raw.get("status"):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"cluster: no Dask operator acted on DaskCluster {name} in {OPERATOR_TIMEOUT_S} s: does its pod run?"
            )
        time.sleep(POLL_S)


def _scheduler_address(name: str, block: Kubernetes, stack: ExitStack) -> str:
    """Wait for the scheduler's pod; return its address, forwarded to this machine where that is outside."""
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    deadline = time.monotonic() + SCHEDULER_TIMEOUT_S
    pods: Any = Pod
    while not any(pod.ready() for pod in pods.list(namespace=block.namespace, label_selector=selector)):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"cluster: the scheduler's pod was not ready in {SCHEDULER_TIMEOUT_S} s: "
                f"kubectl describe pod -n {block.namespace} -l dask.org/cluster-name={name}"
            )
        time.sleep(POLL_S)
    host = scheduler_host(name, block.namespace)
    try:
        socket.getaddrinfo(host, SCHEDULER_PORT)
    except OSError:
        service = Service.get(f"{name}-scheduler", namespace=block.namespace)
        port = stack.enter_context(service.portforward(SCHEDULER_PORT, local_port="auto"))
        return f"tls://127.0.0.1:{port}"
    return f"tls://{host}:{SCHEDULER_PORT}"


def _client(address: str, credentials: Credentials) -> Client:
    try:
        return join(address, credentials, CONNECT_TIMEOUT_S)
    except ConnectionError as error:
        raise ClusterError(f"cluster: the scheduler at {address} does not answer: {error}") from error
