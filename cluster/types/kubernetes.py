"""Workers as pods of a Kubernetes cluster, through the Dask operator."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

from melmill.cluster.contract import ClusterSpec, Pool, RunningCluster
from melmill.cluster.credentials import CA, CERT, KEY, Credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.settings import LOOPBACK_HTTP_ADDRESS, as_environment, settings
from melmill.cluster.workers import worker_arguments, worker_environment

API_VERSION = "kubernetes.dask.org/v1"
SCHEDULER_PORT = 8786

# A driver that is a pod itself has its name and uid in these variables. Its cluster then ends with
# it, however it ends.
POD_NAME, POD_UID = "MELMILL_POD_NAME", "MELMILL_POD_UID"

_TLS_FOLDER = "/etc/melmill/tls"
_TLS_FLAGS = ["--tls-ca-file", f"{_TLS_FOLDER}/{CA}", "--tls-cert", f"{_TLS_FOLDER}/{CERT}"]
_TLS_FLAGS += ["--tls-key", f"{_TLS_FOLDER}/{KEY}"]
_LABELS = {"app.kubernetes.io/managed-by": "melmill"}
_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(?:\.\d+)?(?:m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")

# A worker that never sees the scheduler ends, and its pod tries again.
_DEATH_TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True)
class KubernetesOptions:
    """How the cluster runs in Kubernetes, by the Dask operator.

    Parameters
    ----------
    image : str
        Container image that has melmill (see ``cluster/deploy/Dockerfile``).
    namespace : str
        Where everything is made.
    claims : dict of str to str
        Persistent volume claims and their mount paths in pods (``corpora: /data``). Corpus and
        store must be among them, unless they are in an object store.
    secrets : tuple of str
        Secrets whose entries become environment variables of the workers (keys of an object store).
    service_account : str or None
        Of the pods. None for the namespace's default.
    """

    image: str
    namespace: str = "default"
    claims: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    service_account: str | None = None

    def __post_init__(self) -> None:
        """Check what Kubernetes would refuse."""
        if not self.image or any(c.isspace() for c in self.image):
            raise ClusterError(f"kubernetes: image must name a container image, got {self.image!r}", "image")
        names = {"namespace": (self.namespace,), "claims": tuple(self.claims), "secrets": self.secrets}
        for name, values in names.items():
            for value in values:
                if not _DNS_LABEL.fullmatch(value):
                    raise ClusterError(
                        f"kubernetes: {name} must be lower-case letters, digits and '-', got {value!r}", name
                    )
        for claim, path in self.claims.items():
            if not path.startswith("/"):
                raise ClusterError(f"kubernetes: claim {claim!r} needs an absolute path, got {path!r}", "claims")


@dataclass(frozen=True, kw_only=True)
class KubernetesPoolOptions:
    """What the pods of a pool ask Kubernetes for. Each pod is one worker.

    Parameters
    ----------
    requests, limits : dict of str to str
        Resources by name (``cpu: "1"``, ``memory: 4Gi``, ``nvidia.com/gpu: "1"``). By default, cpu
        and memory follow from the pool's threads and memory.
    node_selector : dict of str to str
        Labels that a node must have.
    tolerations : tuple of str
        Taints to tolerate, whatever their effect: ``key`` or ``key=value``.
    """

    requests: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that quantities are quantities."""
        for name, quantities in (("requests", self.requests), ("limits", self.limits)):
            for resource, quantity in quantities.items():
                if not _QUANTITY.fullmatch(quantity):
                    raise ClusterError(
                        f"kubernetes: {name} of {resource!r} must be a quantity such as '2', '500m' or '4Gi', "
                        f"got {quantity!r}",
                        name,
                    )


@dataclass(frozen=True, kw_only=True)
class KubernetesPool(Pool):
    """A pool whose workers are pods.

    Parameters
    ----------
    kubernetes : KubernetesPoolOptions
    """

    kubernetes: KubernetesPoolOptions = field(default_factory=KubernetesPoolOptions)


@dataclass(frozen=True, kw_only=True)
class Kubernetes(ClusterSpec):
    """A scheduler and workers as pods that the Dask operator makes.

    Parameters
    ----------
    kubernetes : KubernetesOptions
    """

    type: ClassVar[str] = "kubernetes"
    encrypted: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    scheduler_here: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("kr8s", "cryptography")
    requirement: ClassVar[str] = "melmill[kubernetes]"

    kubernetes: KubernetesOptions = field(metadata={"example": "{image: registry/melmill:0.1.0}"})
    pools: Mapping[str, KubernetesPool] = field(metadata={"example": "{cpu: {workers: 2, memory: 4GiB}}"})

    @contextmanager
    def launch(self, credentials: Credentials | None) -> Iterator[RunningCluster]:
        """Create the cluster's objects, yield the cluster when its scheduler is up, delete them.

        Raises
        ------
        ClusterError
            Kubernetes does not answer or refuses an object, or no operator acts on them.
        """
        from melmill.cluster.launchers.kubernetes import launch  # needs kr8s

        assert credentials is not None
        name = f"melmill-{uuid4().hex[:8]}"
        namespace = self.kubernetes.namespace
        groups = {pool: group_name(name, pool) for pool in self.pools}
        pod, uid = os.environ.get(POD_NAME), os.environ.get(POD_UID)
        owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid} if pod and uid else None
        manifests = self.objects(name, credentials, owner)
        address = scheduler_host(name, namespace), SCHEDULER_PORT
        with launch(self, name, namespace, manifests, groups, address, credentials) as cluster:
            yield cluster

    def objects(
        self, name: str, credentials: Credentials, owner: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the objects of a cluster called `name`, in the order in which to create them.

        Parameters
        ----------
        name : str
        credentials : Credentials
            They go into a secret, which pods mount.
        owner : mapping or None
            An owner reference. The objects end with the object that it names.

        Returns
        -------
        list of dict
            A Secret, a DaskCluster without workers, and a DaskWorkerGroup for each pool.
        """
        block = self.kubernetes
        owners = {"ownerReferences": [dict(owner)]} if owner else {}
        meta = {"namespace": block.namespace, "labels": _LABELS, **owners}
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
                    # The operator's own group stays empty. Each pool has a group, so that they grow
                    # apart.
                    "worker": {"replicas": 0, "spec": _pod(name, block, _container(block, "worker", ["true"]))},
                    "scheduler": {"spec": _pod(name, block, _scheduler(block)), "service": _service(name)},
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
                for pool_name, pool in self.pools.items()
            ),
        ]


def group_name(cluster: str, pool: str) -> str:
    """Return the name of the worker group of a pool."""
    return f"{cluster}-{pool}"


def scheduler_host(cluster: str, namespace: str) -> str:
    """Return the host name of the scheduler inside Kubernetes."""
    return f"{cluster}-scheduler.{namespace}.svc"


def _scheduler(block: KubernetesOptions) -> dict[str, Any]:
    command = ["python", "-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--port", str(SCHEDULER_PORT)]
    command += ["--dashboard-address", LOOPBACK_HTTP_ADDRESS, *_TLS_FLAGS]
    values = {
        name: value for name, value in settings(adaptive=True).items() if value is not None and "environ" not in name
    }
    alive = {"tcpSocket": {"port": "tcp-comm"}, "periodSeconds": 5}
    return {
        **_container(block, "scheduler", command),
        "env": _variables(as_environment(values)),
        "ports": [{"name": "tcp-comm", "containerPort": SCHEDULER_PORT, "protocol": "TCP"}],
        "readinessProbe": alive,
        "livenessProbe": {**alive, "initialDelaySeconds": 60, "failureThreshold": 6},
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
    }


def _worker_pod(cluster: str, name: str, pool: KubernetesPool, block: KubernetesOptions) -> dict[str, Any]:
    from dask.utils import parse_bytes

    asked = pool.kubernetes
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


def _pod(cluster: str, block: KubernetesOptions, container: dict[str, Any]) -> dict[str, Any]:
    claims = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in block.claims]
    return {
        "containers": [container],
        "volumes": [{"name": "melmill-tls", "secret": {"secretName": f"{cluster}-tls"}}, *claims],
        # Nothing in these pods talks to Kubernetes.
        "automountServiceAccountToken": False,
        **({"serviceAccountName": block.service_account} if block.service_account else {}),
    }


def _container(block: KubernetesOptions, name: str, command: list[str]) -> dict[str, Any]:
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
