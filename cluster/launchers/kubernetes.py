"""Workers as pods of a Kubernetes cluster, by kr8s and the Dask operator.

The operator's own client and autoscaler use no certificates, and its autoscaler removes workers of
any group. So the objects are made here, pools grow by the replicas of their groups, and only idle
workers are removed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import kr8s
from distributed import Client
from kr8s.objects import APIObject, Deployment, Pod, Secret, Service, new_class

from melmill.cluster.connect import join
from melmill.cluster.contract import ClusterSpec, RunningCluster
from melmill.cluster.credentials import Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.launchers.pooled import IdleTimes, wanted_workers

_OPERATOR = "kubernetes.dask.org/v1"
DaskCluster: Any = new_class(kind="DaskCluster", version=_OPERATOR, asyncio=False)
DaskWorkerGroup: Any = new_class(
    kind="DaskWorkerGroup", version=_OPERATOR, asyncio=False, scalable=True, scalable_spec="worker.replicas"
)
_KINDS: dict[str, Any] = {"Secret": Secret, "DaskCluster": DaskCluster, "DaskWorkerGroup": DaskWorkerGroup}

OPERATOR_TIMEOUT_S = 60
# Nodes may have to be added and images be fetched.
SCHEDULER_TIMEOUT_S = 900
CONNECT_TIMEOUT_S = 60
POLL_S = 2.0
ADJUST_EVERY_S = 10.0


@contextmanager
def launch(
    spec: ClusterSpec,
    name: str,
    namespace: str,
    manifests: Sequence[Mapping[str, Any]],
    groups: Mapping[str, str],
    scheduler: tuple[str, int],
    credentials: Credentials,
) -> Iterator[RunningCluster]:
    """Create objects, wait for the scheduler, yield the cluster, delete the objects.

    Parameters
    ----------
    name : str
        Of the DaskCluster.
    manifests : sequence of mapping
        Objects to create, in order.
    groups : mapping of str to str
        Name of the DaskWorkerGroup of each pool.
    scheduler : tuple of str and int
        Host name inside Kubernetes, and port.
    """
    with ExitStack() as stack:
        for manifest in manifests:
            stack.callback(_delete, _create(dict(manifest)))
        _wait_for_operator(name, namespace)
        address = _scheduler_address(name, namespace, scheduler, stack)
        try:
            client = stack.enter_context(join(address, credentials, CONNECT_TIMEOUT_S))
        except ConnectionError as error:
            raise ClusterError(f"cluster: the scheduler at {address} does not answer: {error}") from error
        yield _RunningPods(client, spec, namespace, groups)


class _RunningPods(RunningCluster):
    def __init__(self, client: Client, spec: ClusterSpec, namespace: str, groups: Mapping[str, str]) -> None:
        super().__init__(client, spec)
        self.namespace = namespace
        self.groups = groups
        self._replicas = {pool: declared.fewest for pool, declared in spec.pools.items()}
        self._idle = IdleTimes()
        self._adjusted_s = float("-inf")

    def adapt(self, tasks: Mapping[str, int]) -> None:
        now = time.monotonic()
        if now - self._adjusted_s < ADJUST_EVERY_S:
            return
        self._adjusted_s = now
        try:
            for pool in self.spec.pools:
                self._adjust(pool, tasks.get(pool, 0))
        except (httpx.HTTPError, kr8s.ServerError, kr8s.NotFoundError) as error:
            self.notes.append(f"Kubernetes does not answer, so the cluster keeps its size: {error}")

    def _adjust(self, pool: str, tasks: int) -> None:
        wanted, replicas = wanted_workers(self.spec.pools[pool], tasks), self._replicas[pool]
        prefix = f"{self.groups[pool]}-worker-"
        names = [str(worker["name"]) for worker in self.workers() if str(worker["name"]).startswith(prefix)]
        busy = {str(worker["name"]) for worker in self.workers() if worker["metrics"].get("executing")}
        idle = self._idle.expired(names, busy)[: max(0, replicas - wanted)]
        for name in idle:
            # Deleted before the replicas are reduced, it leaves the operator no worker to choose.
            self.client.retire_workers(names=[name])
            Deployment.get(name, namespace=self.namespace).delete()
        target = replicas - len(idle) if wanted < replicas else wanted
        if target != replicas:
            DaskWorkerGroup.get(self.groups[pool], namespace=self.namespace).scale(target)
            self._replicas[pool] = target


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
            f"cluster: Kubernetes can't be asked for {what}: {error}; check that `kubectl get pods` works here"
        ) from error
    return made


def _delete(made: APIObject) -> None:
    with suppress(kr8s.NotFoundError):
        made.delete()


def _wait_for_operator(name: str, namespace: str) -> None:
    deadline = time.monotonic() + OPERATOR_TIMEOUT_S
    while not DaskCluster.get(name, namespace=namespace).raw.get("status"):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"cluster: no Dask operator acted on DaskCluster {name} in {OPERATOR_TIMEOUT_S} s: does its pod run?"
            )
        time.sleep(POLL_S)


def _scheduler_address(name: str, namespace: str, scheduler: tuple[str, int], stack: ExitStack) -> str:
    """Wait for the scheduler's pod; return its address, forwarded if this machine is outside."""
    selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    deadline = time.monotonic() + SCHEDULER_TIMEOUT_S
    pods: Any = Pod
    while not any(pod.ready() for pod in pods.list(namespace=namespace, label_selector=selector)):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"cluster: the scheduler's pod was not ready in {SCHEDULER_TIMEOUT_S} s: "
                f"kubectl describe pod -n {namespace} -l dask.org/cluster-name={name}"
            )
        time.sleep(POLL_S)
    host, port = scheduler
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        service = Service.get(f"{name}-scheduler", namespace=namespace)
        local_port = stack.enter_context(service.portforward(port, local_port="auto"))
        return f"tls://127.0.0.1:{local_port}"
    return f"tls://{host}:{port}"
