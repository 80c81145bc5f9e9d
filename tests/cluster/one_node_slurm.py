"""A Slurm cluster of one node, this machine, under the user who runs the tests."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster.processes import find, free_port, server, wait_until

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
KillWait=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=60 State=UP
PartitionName=gpu Nodes={host} MaxTime=60 State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Run munged, slurmctld and slurmd in the block.

    Slurm's commands find them by the environment variable SLURM_CONF.
    """
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(
        SLURM_CONF.format(host=host, folder=folder, controller_port=free_port(), node_port=free_port())
    )
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\nIgnoreSystemd=yes\n")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        with ExitStack() as stack:
            for command, log, ready in _daemons(folder):
                stack.enter_context(server(command, folder / log, ready))
            wait_until(lambda: "idle" in _nodes(), f"the node is idle: {_log_of(folder)}")
            yield
    finally:
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _daemons(folder: Path) -> Iterator[tuple[list[str], str, Callable[[], object]]]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    files = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file", "log-file")]
    programs = {name: find(name) or name for name in ("munged", "slurmctld", "slurmd")}
    seed = f"--seed-file={folder}/munge.seed"
    yield (
        [programs["munged"], "--foreground", "--force", f"--key-file={key}", seed, *files],
        "munged.out",
        (folder / "munge.socket").exists,
    )
    yield [programs["slurmctld"], "-D"], "slurmctld.out", lambda: _answers(["scontrol", "ping"])
    yield [programs["slurmd"], "-D"], "slurmd.out", lambda: _answers(["scontrol", "ping"])


def _answers(command: list[str]) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and "UP" in done.stdout


def _nodes() -> str:
    return subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False).stdout


def _log_of(folder: Path) -> str:
    logs = [folder / "slurmctld.log", folder / "slurmd.log"]
    return "\n".join(log.read_text()[-1000:] for log in logs if log.exists())
