"""Clusters of Slurm jobs, with a real Slurm of one node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from melmill.cluster.connect import connected
from melmill.cluster.contract import Pool
from melmill.cluster.credentials import Tls
from melmill.cluster.errors import ClusterError
from melmill.cluster.launchers.pooled import wanted_workers
from melmill.cluster.types.slurm import Slurm, SlurmOptions, SlurmPool, SlurmPoolOptions
from tests.cluster.conftest import on
from tests.cluster.one_node_slurm import slurm
from tests.cluster.processes import needs, wait_until
from tests.flows.conftest import Project


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    needs("munged", "slurmctld", "slurmd", "sbatch", root=True)
    with slurm(tmp_path_factory.mktemp("slurm")):
        yield


def jobs() -> dict[str, str]:
    """Return the names of the jobs that wait or run, by number."""
    listed = subprocess.run(["squeue", "--noheader", "--format=%A %j"], capture_output=True, text=True, check=True)
    return dict(line.split() for line in listed.stdout.splitlines())


def workers(client: Client) -> set[str]:
    """Return the addresses of the workers that the scheduler knows."""
    return set(client.scheduler_info(n_workers=-1)["workers"])


def spec(folder: Path, **pools: SlurmPool) -> Slurm:
    return Slurm(slurm=SlurmOptions(log_folder=str(folder / "logs"), host="127.0.0.1"), pools=pools)


@pytest.mark.parametrize(
    ("tasks", "workers"),
    [
        (0, 2),  # no work: the fewest
        (5, 3),  # two threads each
        (1000, 8),  # never more than declared
    ],
)
def test_a_pool_grows_with_its_work(tasks: int, workers: int) -> None:
    assert wanted_workers(Pool(workers=8, min_workers=2, threads=2), tasks) == workers


def test_a_job_script_says_what_was_declared(tmp_path: Path) -> None:
    from dask_jobqueue.slurm import SLURMJob

    pool = SlurmPool(
        threads=2,
        memory="4GiB",
        resources={"GPU": 1},
        slurm=SlurmPoolOptions(walltime="08:00:00", partition="gpu", account="speech", directives=("--gres=gpu:1",)),
    )
    options = SlurmOptions(log_folder=f"{tmp_path}/it's", prologue=("module load cuda",), python="/opt/my python")
    tls = Tls(ca="/tls/ca.pem", cert="/tls/cert.pem", key="/tls/key.pem")
    made = Slurm(slurm=options, pools={"gpu": pool})
    job: Any = SLURMJob
    script: str = job("tls://10.0.0.1:8786", name="gpu-0", **made.job_options("gpu", tls)).job_script()
    for line in (
        "#SBATCH -J melmill-gpu",
        "#SBATCH -p gpu",
        "#SBATCH -A speech",
        "#SBATCH --cpus-per-task=2",
        "#SBATCH --mem=4G",
        "#SBATCH -t 08:00:00",
        "#SBATCH --gres=gpu:1",
        "export NUMBA_NUM_THREADS=1",
        "module load cuda",
    ):
        assert line in script.splitlines(), line
    (command,) = [line for line in script.splitlines() if "dask_worker" in line]
    assert command.startswith("'/opt/my python' -m distributed.cli.dask_worker tls://10.0.0.1:8786 --name gpu-0")
    assert "--resources pool-gpu=2,GPU=1 --preload melmill.cluster.workers" in command
    assert "--tls-ca-file /tls/ca.pem --tls-cert /tls/cert.pem --tls-key /tls/key.pem" in command
    # Five minutes before the end at the latest. Slurm does not give a warning.
    assert "--lifetime 28200s --lifetime-stagger 300s" in command
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_importing_the_launcher_leaves_ctrl_c_alone() -> None:
    program = (
        "import signal; before = signal.getsignal(signal.SIGINT); import melmill.cluster.launchers.slurm; "
        "raise SystemExit(signal.getsignal(signal.SIGINT) is not before)"
    )
    from tests.cluster.processes import environment, python

    assert subprocess.run(python("-c", program), env=environment(), check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("one_node")
def test_a_pipeline_on_slurm_makes_the_bytes_of_a_serial_run(project: Project, undisturbed: dict[str, str]) -> None:
    project.write(
        on(
            f"{{type: slurm, slurm: {{log_folder: {project.folder}/logs, host: 127.0.0.1}}, pools: {{"
            'cpu: {workers: 2, memory: 1GiB, slurm: {partition: cpu, walltime: "10"}}, '
            'large: {workers: 1, memory: 1GiB, slurm: {partition: gpu, walltime: "10", directives: ["--gres=gpu:1"]}}}}'
        ).replace("n_iter: 2", "n_iter: 2, pool: large")
    )
    answer = project.run()
    assert answer["tasks"]["failed"] == 0
    assert project.bytes() == undisturbed
    wait_until(lambda: not jobs(), "the jobs end")
    assert not list((project.folder / "logs").glob(".tls-*"))


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("one_node")
def test_pools_grow_shrink_and_survive_a_cancelled_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.cluster.launchers.pooled.CHECK_EVERY_S", 0.5)
    monkeypatch.setattr("melmill.cluster.launchers.pooled.IDLE_S", 1.0)
    small = SlurmPoolOptions(walltime="10", partition="cpu")
    pools = {
        "cpu": SlurmPool(memory="1GiB", slurm=small),
        "gpu": SlurmPool(
            workers=2, min_workers=0, memory="1GiB", resources={"GPU": 1}, slurm=replace(small, partition="gpu")
        ),
    }
    with connected(spec(tmp_path, **pools)) as cluster:
        client = cluster.client
        (first,) = jobs()
        wait_until(lambda: cluster.slots("cpu") == 1, "the fewest workers come up")
        assert cluster.slots("gpu") == 0
        # Work for the other pool.
        cluster.adapt({"cpu": 1, "gpu": 9})
        partition = client.submit(os.getenv, "SLURM_JOB_PARTITION", resources={"pool-gpu": 1}, pure=False)
        assert partition.result(60) == "gpu"
        wait_until(lambda: cluster.slots("gpu") == 2, "the pool grows to what was declared")
        cluster.adapt({"cpu": 1, "gpu": 0})
        wait_until(lambda: list(jobs().values()) == ["melmill-cpu"], "the idle pool shrinks to nothing")
        # A job that someone cancels.
        before = workers(client)
        subprocess.run(["scancel", first], check=True)
        wait_until(lambda: jobs().keys() - {first}, "another job takes its place")
        wait_until(lambda: workers(client) - before, "its worker comes up")
        assert f"Slurm job {first} of pool 'cpu' has ended: submitting another" in list(cluster.take_notes())
        assert client.submit(os.getpid, resources={"pool-cpu": 1}, pure=False, key="after").result(60) > 0
    wait_until(lambda: not jobs(), "all jobs are cancelled", 10)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("one_node")
def test_jobs_that_can_not_work_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed.scheduler import NoValidWorkerError

    monkeypatch.setattr("melmill.cluster.launchers.pooled.CHECK_EVERY_S", 0.2)
    pool = SlurmPool(memory="1GiB", slurm=SlurmPoolOptions(walltime="10"))
    broken = spec(tmp_path, cpu=pool)
    broken = replace(broken, slurm=replace(broken.slurm, python="/no/such/python"))
    with connected(broken) as cluster:
        waiting = cluster.client.submit(os.getpid, resources={"pool-cpu": 1}, pure=False)
        with pytest.raises(NoValidWorkerError):
            waiting.result(60)
        (text,) = cluster.take_notes()
        assert text.startswith("3 Slurm jobs of pool 'cpu' in a row ended before their worker was up: see the newest")
    assert "/no/such/python" in next((tmp_path / "logs").glob("melmill-cpu-*.err")).read_text()


@pytest.mark.cluster
@pytest.mark.usefixtures("one_node")
def test_a_refused_job_is_one_line(tmp_path: Path) -> None:
    pool = SlurmPool(memory="1GiB", slurm=SlurmPoolOptions(walltime="10", partition="nowhere"))
    message = "Slurm refused a job of melmill-cpu: .*invalid partition specified: nowhere"
    with pytest.raises(ClusterError, match=message) as caught, connected(spec(tmp_path, cpu=pool)):
        pass
    assert "\n" not in str(caught.value)


def test_without_slurm_the_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    pool = SlurmPool(memory="1GiB", slurm=SlurmPoolOptions(walltime="10"))
    with pytest.raises(ClusterError, match="needs the program 'sbatch'"), connected(spec(tmp_path, cpu=pool)):
        pass
