"""A cluster as Kubernetes objects: what the Dask operator makes a scheduler and worker groups of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask.utils import parse_bytes

from melmill.cluster.blocks import Kubernetes, KubernetesPool
from melmill.cluster.credentials import CA, CERT, KEY, Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.settings import HTTP, as_environment, settings
from melmill.cluster.spec import ClusterSpec, Pool
from melmill.cluster.workers import worker_arguments, worker_environment

API_VERSION = "kubernetes.dask.org/v1"
SCHEDULER_PORT = 8786

_TLS_FOLDER = "/etc/melmill/tls"
_TLS_FLAGS = ["--tls-ca-file", f"{_TLS_FOLDER}/{CA}", "--tls-cert", f"{_TLS_FOLDER}/{CERT}"]
_TLS_FLAGS += ["--tls-key", f"{_TLS_FOLDER}/{KEY}"]
_LABELS = {"app.kubernetes.io/managed-by": "melmill"}

# A worker that never sees the scheduler ends, and its pod tries again.
_DEATH_TIMEOUT_S = 120


def objects(
    name: str, spec: ClusterSpec, credentials: Credentials, owner: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the objects of a cluster called `name`, in the order in which to create them.

    Parameters
    ----------
    name : str
    spec : ClusterSpec
        Of type ``kubernetes``.
    credentials : Credentials
        Go into a secret, which pods mount.
    owner : mapping or None
        An owner reference: what ends with the object that it names.

    Returns
    -------
    list of dict
        A Secret, a DaskCluster without workers, and a DaskWorkerGroup for each pool.
    """
    block = spec.kubernetes
    if block is None:
        raise ClusterError("cluster: type 'kubernetes' needs the block kubernetes: {image: registry/melmill:0.1.0}")
    meta = {"namespace": block.namespace, "labels": _LABELS, **({"ownerReferences": [dict(owner)]} if owner else {})}
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{name}-tls", **meta},
            "stringData": {CA: credentials.ca, CERT: credentials.cert, KEY: credentials.key},
        },
        {
            "apiVersion": API_VERSION,
            "kind": "DaskCluster",
            "metadata": {"name": name, **meta},
            "spec": {
                # The operator's own group: each pool has one of its own instead, so that they grow apart.
                "worker": {"replicas": 0, "spec": _pod(name, block, _container(block, "worker", ["true"]))},
                "scheduler": {"spec": _pod(name, block, _scheduler(spec, block)), "service": _service(name)},
            },
        },
        *(
            {
                "apiVersion": API_VERSION,
                "kind": "DaskWorkerGroup",
                "metadata": {"name": group_name(name, pool_name), **meta},
                "spec": {
                    "cluster": name,
                    "worker": {"replicas": pool.fewest, "spec": _worker_pod(name, pool_name, pool, block)},
                },
            }
            for pool_name, pool in spec.pools.items()
        ),
    ]


def group_name(cluster: str, pool: str) -> str:
    """Return the name of the worker group of a pool."""
    return f"{cluster}-{pool}"


def scheduler_host(cluster: str, namespace: str) -> str:
    """Return the name by which pods find the scheduler."""
    return f"{cluster}-scheduler.{namespace}.svc"


def _scheduler(spec: ClusterSpec, block: Kubernetes) -> dict[str, Any]:
    command = ["python", "-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--port", str(SCHEDULER_PORT)]
    command += ["--dashboard-address", HTTP["dashboard_address"], *_TLS_FLAGS]
    values = {name: value for name, value in settings(spec).items() if value is not None and "environ" not in name}
    alive = {"tcpSocket": {"port": "tcp-comm"}, "periodSeconds": 5}
    return {
        **_container(block, "scheduler", command),
        "env": _variables(as_environment(values)),
        "ports": [{"name": "tcp-comm", "containerPort": SCHEDULER_PORT, "protocol": "TCP"}],
        "readinessProbe": alive,
        "livenessProbe": {**alive, "initialDelaySeconds": 60, "failureThreshold": 6},
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
    }


def _worker_pod(cluster: str, name: str, pool: Pool, block: Kubernetes) -> dict[str, Any]:
    asked = pool.kubernetes or KubernetesPool()
    memory = str(parse_bytes(pool.memory or "4GiB"))
    address = f"tls://{scheduler_host(cluster, block.namespace)}:{SCHEDULER_PORT}"
    command = ["python", "-m", "distributed.cli.dask_worker", address, "--name", "$(DASK_WORKER_NAME)"]
    command += ["--nthreads", str(pool.threads), "--memory-limit", memory, "--death-timeout", str(_DEATH_TIMEOUT_S)]
    container = {
        **_container(block, "worker", [*command, *worker_arguments(name, pool), *_TLS_FLAGS]),
        "env": _variables(worker_environment()),
        "envFrom": [{"secretRef": {"name": secret}} for secret in block.secrets],
        "resources": {
            "requests": {"cpu": str(pool.threads), "memory": memory, **asked.requests},
            "limits": {"memory": memory, **asked.limits},
        },
    }
    return {
        **_pod(cluster, block, container),
        "nodeSelector": dict(asked.node_selector),
        "tolerations": [_toleration(taint) for taint in asked.tolerations],
    }


def _pod(cluster: str, block: Kubernetes, container: dict[str, Any]) -> dict[str, Any]:
    claims = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in block.claims]
    return {
        "containers": [container],
        "volumes": [{"name": "melmill-tls", "secret": {"secretName": f"{cluster}-tls"}}, *claims],
        # Nothing in these pods talks to Kubernetes.
        "automountServiceAccountToken": False,
        **({"serviceAccountName": block.service_account} if block.service_account else {}),
    }


def _container(block: Kubernetes, name: str, command: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": block.image,
        "command": command,
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [
            {"name": "melmill-tls", "mountPath": _TLS_FOLDER, "readOnly": True},
            *({"name": claim, "mountPath": path} for claim, path in block.claims.items()),
        ],
    }


def _service(cluster: str) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": cluster, "dask.org/component": "scheduler"},
        "ports": [{"name": "tcp-comm", "protocol": "TCP", "port": SCHEDULER_PORT, "targetPort": "tcp-comm"}],
    }


def _variables(environment: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in environment.items()]


def _toleration(taint: str) -> dict[str, str]:
    key, equals, value = taint.partition("=")
    return {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
