"""Certificates: how they are made and checked, and that every side asks for them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from distributed import Client

from melmill.cluster.authority import make_folder, temporary
from melmill.cluster.connect import connected
from melmill.cluster.contract import Pool
from melmill.cluster.credentials import Tls, load_credentials
from melmill.cluster.errors import ClusterError
from melmill.cluster.types.address import Address
from melmill.cluster.types.local import Local
from melmill.flows.cli.group import cli
from tests.cluster.processes import environment, free_port, python, server, wait_until


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    make_folder(folder, 10)
    return folder


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    make_folder(folder, 10)
    return folder


def flags(folder: Path) -> list[str]:
    return [f"--tls-ca-file={folder}/ca.pem", f"--tls-cert={folder}/cert.pem", f"--tls-key={folder}/key.pem"]


@pytest.fixture(scope="module")
def scheduler(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a real scheduler with a worker.

    Both let in only those who hold our certificates.
    """
    folder = tmp_path_factory.mktemp("scheduler")
    port = free_port()
    address, log = f"tls://127.0.0.1:{port}", folder / "log"
    command = python("-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard", *flags(ours))
    settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    worker = python("-m", "distributed.cli.dask_worker", address, "--nthreads=1", "--no-dashboard", *flags(ours))
    with (
        server(command, log, lambda: b"Scheduler at" in log.read_bytes(), settings),
        server(worker, folder / "worker", lambda: b"Registered to" in (folder / "worker").read_bytes()),
    ):
        yield address


def test_the_command_makes_an_authority_and_then_certificates_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    first = CliRunner().invoke(cli, ["cluster", "certs", str(folder)])
    assert first.exit_code == 0, first.output
    assert "key of the new authority; keep it to yourself" in first.output
    assert f"use it with cluster: {{security: {folder}}}" in first.output
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert modes == {"ca.pem": "0o644", "ca-key.pem": "0o600", "cert.pem": "0o644", "key.pem": "0o600"}
    assert folder.stat().st_mode & 0o077 == 0
    before = load_credentials(str(folder))
    assert CliRunner().invoke(cli, ["cluster", "certs", str(folder)]).exit_code == 0
    after = load_credentials(str(folder))
    assert after.ca == before.ca
    assert after.key != before.key
    # Both are of one authority.
    assert (folder / "key.pem.old").read_text() == before.key
    load_credentials(Tls(ca=str(folder / "ca.pem"), cert=str(folder / "cert.pem.old"), key=str(folder / "key.pem.old")))


def test_half_an_authority_is_not_completed(tmp_path: Path) -> None:
    make_folder(tmp_path, 10)
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(ClusterError, match=r"holds ca.pem alone, half of an authority"):
        make_folder(tmp_path, 10)


def test_bad_certificates_are_told_before_anything_starts(ours: Path, theirs: Path, tmp_path: Path) -> None:
    good = Tls(ca=str(ours / "ca.pem"), cert=str(ours / "cert.pem"), key=str(ours / "key.pem"))
    load_credentials(good)
    old = tmp_path / "old"
    old.mkdir()
    make_folder(old, 0)
    password = tmp_path / "password.pem"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", good.key, "-out", str(password), "-passout", "pass:secret"], check=True
    )
    cases: list[tuple[Tls | str, str]] = [
        (replace(good, ca="/no/ca.pem"), "security: ca '/no/ca.pem' can't be read: No such file"),
        (replace(good, ca=good.key), "is not a certificate"),
        (replace(good, key=str(theirs / "key.pem")), "are not a certificate and its key .*MISMATCH"),
        (replace(good, ca=str(theirs / "ca.pem")), "is refused by peers that trust .*theirs.*/ca.pem"),
        (replace(good, key=str(password)), "has a password, which no worker can enter"),
        (str(old), "is refused by peers that trust .*: certificate has expired"),
    ]
    for security, message in cases:
        with pytest.raises(ClusterError, match=message) as caught:
            load_credentials(security)
        assert "melmill cluster certs" in str(caught.value)


def test_a_local_cluster_can_be_encrypted(ours: Path) -> None:
    with connected(Local(security=str(ours), pools={"cpu": Pool()})) as cluster:
        assert cluster.client.scheduler.address.startswith("tls://127.0.0.1:")
        (worker,) = cluster.client.scheduler_info(n_workers=-1)["workers"]
        assert worker.startswith("tls://127.0.0.1:")
        assert cluster.client.submit(sum, [1, 2], resources={"pool-cpu": 1}).result() == 3


def test_who_has_the_certificate_is_let_in(scheduler: str, ours: Path) -> None:
    spec = Address(address=scheduler, security=str(ours), pools={"cpu": Pool()})
    with connected(spec) as cluster:
        assert cluster.client.submit(sum, [1, 2]).result() == 3
        assert cluster.slots("cpu") == 1
        assert not list(cluster.take_notes())


@pytest.mark.parametrize(
    ("encrypted", "whose", "message"),
    [
        (
            True,
            "theirs",
            "no scheduler answers at 'tls://.*: check that it is up and that its certificate is of the same",
        ),
        (True, None, "lets nobody in without a certificate: add security: DIR"),
        (False, None, "no scheduler answers at 'tcp://"),
        (False, "ours", "with security the address is encrypted, got 'tcp://.*: write tls://host:port"),
    ],
)
def test_a_client_without_the_certificate_is_refused(
    scheduler: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    encrypted: bool,
    whose: str | None,
    message: str,
) -> None:
    monkeypatch.setattr("melmill.cluster.types.address.CONNECT_TIMEOUT_S", 2)
    spec = Address(
        address=scheduler if encrypted else scheduler.replace("tls", "tcp"),
        security=whose and str(request.getfixturevalue(whose)),
        pools={"cpu": Pool()},
    )
    with pytest.raises(ClusterError, match=message) as caught, connected(spec):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("intruder", [pytest.param("another's certificate", marks=pytest.mark.slow), "no certificate"])
def test_a_worker_without_the_certificate_is_refused(
    scheduler: str, ours: Path, theirs: Path, tmp_path: Path, intruder: str
) -> None:
    options = flags(theirs) if intruder == "another's certificate" else []
    address = scheduler if options else scheduler.replace("tls", "tcp")
    command = python("-m", "distributed.cli.dask_worker", address, "--name=intruder", "--no-nanny", "--no-dashboard")
    with Client(scheduler, security=load_credentials(str(ours)).security()) as client:
        with (tmp_path / "log").open("wb") as log:
            worker = subprocess.Popen(
                [*command, "--death-timeout=3", *options], stdout=log, stderr=log, env=environment()
            )
        wait_until(lambda: worker.poll() is not None, "the intruder gives up")
        assert [worker["name"] != "intruder" for worker in client.scheduler_info(n_workers=-1)["workers"].values()] == [
            True
        ]
    # The connection reached the scheduler, which refused it.
    assert "Registered to" not in (tmp_path / "log").read_text()


def test_temporary_certificates_are_new_each_time() -> None:
    assert temporary().ca != temporary().ca


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melmill.cluster.errors.find_spec", lambda name: None)
    done = CliRunner().invoke(cli, ["cluster", "certs", "x"])
    assert isinstance(done.exception, ClusterError)
    assert str(done.exception) == (
        "melmill cluster certs needs the package 'cryptography', which is not installed: pip install 'melmill[tls]'"
    )


def test_certificates_are_read_without_the_package_that_makes_them(ours: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from melmill.cluster.connect import check_available\n"
        "from melmill.cluster.types.local import Local\n"
        "check_available(Local(security=sys.argv[1]))\n"
    )
    subprocess.run(python("-c", program, str(ours)), env=environment(), check=True)


def test_a_scheduler_that_blames_late_is_told_of(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    address = f"tcp://127.0.0.1:{port}"
    command = python("-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard")
    worker = python("-m", "distributed.cli.dask_worker", address, "--nthreads=1", "--no-dashboard")
    with (
        server(command, log, lambda: b"Scheduler at" in log.read_bytes()),
        server(worker, tmp_path / "worker", lambda: b"Registered to" in (tmp_path / "worker").read_bytes()),
        connected(Address(address=address, pools={"cpu": Pool()})) as cluster,
    ):
        (advice,) = cluster.take_notes()
    assert "a task on 4 workers before it says that they died (allowed-failures 3)" in advice
    assert advice.endswith("start it with DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0")
