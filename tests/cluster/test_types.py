"""The `cluster:` block of each type: what YAML becomes, and what is refused at which line."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from melmill.cluster import registry
from melmill.cluster.contract import ClusterSpec
from melmill.cluster.credentials import Tls
from melmill.cluster.errors import ClusterError
from melmill.cluster.registry import cluster_type, cluster_types
from melmill.cluster.types.address import Address
from melmill.cluster.types.kubernetes import Kubernetes, KubernetesPoolOptions
from melmill.cluster.types.local import Local
from melmill.cluster.types.slurm import Slurm, SlurmOptions, SlurmPoolOptions
from melmill.cluster.types.ssh import Ssh, SshOptions, SshPool, SshPoolOptions
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from tests.cluster.processes import ROOT

HEAD = "name: x\nstore: x\nstages: {}\n"

SSH = """\
cluster:
  type: ssh
  security: {ca: a.pem, cert: b.pem, key: c.pem}
  ssh: {hosts: [node1, 10.0.0.2, gpu1], user: me, port: 2222, key: id, known_hosts: known, interface: eth0}
  pools:
    cpu: {workers: 32, threads: 1, memory: 4GiB}
    gpu: {workers: 4, resources: {GPU: 1}, ssh: {hosts: [gpu1]}}
"""

SLURM = """\
cluster:
  type: slurm
  security: tls
  slurm: {log_folder: logs, prologue: [module load cuda], scheduler_port: 8786}
  pools:
    cpu: {workers: 32, min_workers: 0, memory: 4GiB, slurm: {partition: cpu, walltime: "08:00:00"}}
    gpu:
      workers: 4
      memory: 16GiB
      resources: {GPU: 1}
      slurm: {partition: gpu, account: speech, walltime: "1-00:00:00", directives: ["--gres=gpu:1"]}
"""

KUBERNETES = """\
cluster:
  type: kubernetes
  kubernetes: {image: "registry/melmill:0.1.0", namespace: speech, claims: {corpora: /data}, secrets: [s3-keys]}
  pools:
    cpu: {workers: 8, memory: 4GiB}
    gpu:
      workers: 2
      min_workers: 0
      memory: 16GiB
      resources: {GPU: 1}
      kubernetes: {limits: {nvidia.com/gpu: "1"}, node_selector: {gpu: "yes"}, tolerations: [nvidia.com/gpu]}
"""


def read(tmp_path: Path, text: str) -> ClusterSpec:
    path = tmp_path / "pipeline.yaml"
    path.write_text(HEAD + text)
    return load(path).cluster


def test_ssh_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, SSH) == Ssh(
        security=Tls(ca="a.pem", cert="b.pem", key="c.pem"),
        ssh=SshOptions(
            hosts=("node1", "10.0.0.2", "gpu1"),
            user="me",
            port=2222,
            key="id",
            known_hosts="known",
            interface="eth0",
        ),
        pools={
            "cpu": SshPool(workers=32, memory="4GiB"),
            "gpu": SshPool(workers=4, resources={"GPU": 1.0}, ssh=SshPoolOptions(hosts=("gpu1",))),
        },
    )


def test_slurm_is_read(tmp_path: Path) -> None:
    spec = read(tmp_path, SLURM)
    assert isinstance(spec, Slurm)
    assert spec.security == "tls"
    assert spec.slurm == SlurmOptions(log_folder="logs", prologue=("module load cuda",), scheduler_port=8786)
    assert spec.pools["cpu"].fewest == 0
    assert spec.pools["gpu"].fewest == 4
    assert spec.pools["gpu"].slurm == SlurmPoolOptions(
        walltime="1-00:00:00", partition="gpu", account="speech", directives=("--gres=gpu:1",)
    )


def test_kubernetes_is_read(tmp_path: Path) -> None:
    spec = read(tmp_path, KUBERNETES)
    assert isinstance(spec, Kubernetes)
    assert spec.kubernetes.claims == {"corpora": "/data"}
    assert spec.pools["gpu"].kubernetes == KubernetesPoolOptions(
        limits={"nvidia.com/gpu": "1"}, node_selector={"gpu": "yes"}, tolerations=("nvidia.com/gpu",)
    )


@pytest.mark.parametrize(
    ("block", "old", "new", "line", "message"),
    [
        # An unknown field, in each kind of block.
        (SSH, "user: me", "usr: me", 7, r"ssh of cluster has no field 'usr'; did you mean 'user'\?"),
        (SSH, "ca: a.pem", "ka: a.pem", 6, r"security of cluster has no field 'ka' \(fields: ca, cert, key\)"),
        (SSH, "threads: 1", "thread: 1", 9, r"cpu of pools of cluster has no field 'thread'; did you mean 'threads'\?"),
        (SLURM, "account: speech", "acount: speech", 12 + 2, "has no field 'acount'; did you mean 'account'"),
        # What a type needs, and what belongs to another type.
        (SSH, "  ssh: {hosts: [node1", "  sh: {hosts: [node1", 7, "cluster has no field 'sh'"),
        (SSH, "type: ssh", "type: local", 7, "the field 'ssh' is for type 'ssh', got type 'local'"),
        (SLURM, "slurm: {log_folder", "address: x #", 7, "the field 'address' is for type 'address', got type 'slurm'"),
        (KUBERNETES, "kubernetes: {limits", "slurm: {limits", 14, "'slurm' is for type 'slurm', got type 'kubernetes'"),
        (SSH, "  ssh: {hosts: [node1", "  #", 4, r"needs the field 'ssh', such as ssh: {hosts: \[node1, node2\]}"),
        (SSH, "type: ssh", "type: sshh", 5, r"no type is called 'sshh'; did you mean 'ssh'\? \(types: address, kube"),
        (
            SSH,
            "[node1, 10.0.0.2, gpu1]",
            "[]",
            7,
            "ssh: hosts must be names or addresses .* each once, got none",
        ),
        (SSH, "node1", "gpu1", 7, "each once, got 'gpu1' twice"),
        (SSH, "node1", "-oProxyCommand=x", 7, "got '-oProxyCommand=x'"),
        (SSH, "hosts: [gpu1]", "hosts: [gpu9]", 8, "'gpu' names the host 'gpu9', which is not among ssh: hosts: node1"),
        (SSH, "port: 2222", "port: 0", 7, r"ssh: port must be in \[1, 65535\], got 0"),
        (SSH, "interface: eth0", "interface: eth0, host: h", 7, "host and interface both say where"),
        (
            SSH,
            "threads: 1",
            "min_workers: 1",
            8,
            "'cpu' has min_workers, but a cluster of type 'ssh' keeps all workers",
        ),
        (SSH, "4GiB", "4 gigs", 9, "memory must be a size such as 4GiB, got '4 gigs'"),
        (SSH, "cpu: {workers", "C P U: {workers", 8, "pool 'C P U' must be called by at most 20 lower-case letters"),
        (
            SLURM,
            ', slurm: {partition: cpu, walltime: "08:00:00"}',
            "",
            9,
            "cpu of pools of cluster needs the field 'slurm'",
        ),
        (SLURM, "memory: 4GiB, ", "", 8, "pool 'cpu' needs memory, such as 4GiB: slurm reserves it"),
        (SLURM, "partition: cpu, walltime", "partition: cpu, wall", 9, "has no field 'wall'; did you mean 'walltime'"),
        (SLURM, '"08:00:00"', "28800", 9, "walltime of slurm .*must be text, got 28800"),
        (
            SLURM,
            '"08:00:00"',
            '"8 hours"',
            9,
            "walltime must be a time such as .*, got '8 hours'",
        ),
        (SLURM, "partition: cpu", 'partition: "cpu\\n#SBATCH"', 9, "partition must be a name that Slurm knows"),
        (SLURM, "--gres=gpu:1", "gres", 14, "a directive is an option of sbatch such as '--gres=gpu:1', got 'gres'"),
        (SLURM, "min_workers: 0", "min_workers: 33", 9, r"min_workers must be in \[0, 32\]"),
        (KUBERNETES, "namespace: speech", "namespace: My Place", 6, "namespace must be lower-case .*, got 'My Place'"),
        (KUBERNETES, "corpora: /data", "corpora: data", 6, "claim 'corpora' needs an absolute path, got 'data'"),
        (KUBERNETES, 'gpu: "1"', "gpu: one", 14, "limits of 'nvidia.com/gpu' must be a quantity such as .*, got 'one'"),
    ],
)
def test_a_bad_block_is_one_line_with_its_place(
    tmp_path: Path, block: str, old: str, new: str, line: int, message: str
) -> None:
    assert old in block
    with pytest.raises(PipelineError, match=message) as caught:
        read(tmp_path, block.replace(old, new, 1))
    assert str(caught.value).startswith(f"{tmp_path}/pipeline.yaml:{line}: ")
    assert "\n" not in str(caught.value)


def test_the_clusters_of_the_documents_are_sound(tmp_path: Path) -> None:
    page = ROOT / "docs" / "clusters.md"
    blocks = re.findall(r"```yaml\n(cluster:.*?)```", page.read_text(), flags=re.DOTALL)
    types = {read(tmp_path, block).type for block in blocks}
    assert types == {"local", "address", "ssh", "slurm", "kubernetes"}


@pytest.mark.parametrize(
    ("walltime", "seconds"),
    [
        # The forms of sbatch's manual.
        ("90", 5400),
        ("90:30", 5430),
        ("08:00:00", 28800),
        ("2-12", 216000),
        ("2-12:30", 217800),
        ("2-12:30:10", 217810),
    ],
)
def test_walltimes_are_read_as_slurm_does(walltime: str, seconds: int) -> None:
    assert SlurmPoolOptions(walltime=walltime).walltime_s == seconds


def test_a_running_cluster_needs_its_address(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"yaml:4: cluster needs the field 'address', such as address: tcp://127"):
        read(tmp_path, "cluster:\n  type: address\n")
    with pytest.raises(ClusterError, match=r"address must be a scheduler's, such as tcp://127.0.0.1:8786, got ''"):
        Address(address="")


def test_every_module_of_a_type_is_a_type_of_its_name() -> None:
    assert cluster_types() == ["address", "kubernetes", "local", "slurm", "ssh"]
    assert [cluster_type(name).type for name in cluster_types()] == cluster_types()
    assert cluster_type("local") is Local


def test_an_installed_type_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="broken", value="collections:OrderedDict", group=registry.GROUP)
    monkeypatch.setattr(registry, "_installed", lambda: {"broken": entry})
    with pytest.raises(ClusterError, match=r"type 'broken' of .* must be a subclass of ClusterSpec .*OrderedDict"):
        cluster_type("broken")


@pytest.mark.parametrize("name", ["ssh", "slurm", "kubernetes"])
def test_types_that_leave_this_machine_are_encrypted(name: str) -> None:
    assert cluster_type(name).encrypted
    assert "cryptography" in cluster_type(name).packages
