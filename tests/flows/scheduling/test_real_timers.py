"""Schedules that cron and systemd themselves call, each in namespaces of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flows.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

# Both call it at the beginning of the next minute.
EVERY = "* * * * *"
TELL = "cat > told.json"

CRON = """
set -e
mount -t tmpfs tmpfs /var/spool/cron && mkdir -m 1730 /var/spool/cron/crontabs
mount -t tmpfs tmpfs /etc/cron.d
mount -t tmpfs tmpfs /run
crontab out/melmill-test.cron
exec {cron} -f
"""
SYSTEMD = """
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/systemd /run/systemd/system
mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd || mount -t cgroup2 cgroup2 /sys/fs/cgroup
cp out/melmill-test.service out/melmill-test.timer /run/systemd/system
# Nothing of this machine is started: neither what units need by default, nor its network.
for unit in melmill-test.service melmill-test.timer; do
    mkdir /run/systemd/system/$unit.d
    printf '[Unit]\\nDefaultDependencies=no\\n' >/run/systemd/system/$unit.d/alone.conf
done
printf '[Service]\\nEnvironment=PYTHONPATH={path}\\n' >>/run/systemd/system/melmill-test.service.d/alone.conf
ln -s /dev/null /run/systemd/system/network-online.target
printf '[Unit]\\nDefaultDependencies=no\\nRequires=melmill-test.timer\\n' >/run/systemd/system/alone.target
export container=docker
exec {systemd} --system --unit=alone.target --log-target=console --show-status=0
"""


@contextmanager
def alone(project: Project, script: str) -> Iterator[None]:
    """Run a script as process 1 of namespaces of its own; skip the test where there can be none."""
    spaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--uts", "--ipc", "--net", "--kill-child"]
    tried = subprocess.run([*spaces, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    log = (project.folder / "timer.log").open("w")
    process = subprocess.Popen([*spaces, "sh", "-c", script], cwd=project.folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        log.close()


def wait_for(project: Project, file: str) -> str:
    path, end = project.folder / file, time.monotonic() + 400
    while not path.exists() or not path.read_text():
        assert time.monotonic() < end, (project.folder / "timer.log").read_text()[-2000:]
        time.sleep(0.2)
    time.sleep(0.5)
    return path.read_text()


def scheduled(project: Project, kind: str) -> None:
    """Make a schedule whose run fails, so that its command is called."""
    project.root.rename(project.folder / "gone")
    arguments = ["--kind", kind, "--every", EVERY, "--notify", TELL, "--executor", "serial", "-o", "out"]
    done = project.called("schedule", "pipeline.yaml", *arguments)
    assert done.returncode == 0, done.stderr


def check(project: Project) -> None:
    message = json.loads(wait_for(project, "told.json"))
    assert (message["event"], message["exit_code"], message["schedule"]) == ("failed", 2, "test")
    assert str(project.root) in message["error"]


@pytest.mark.skipif(shutil.which("cron") is None or os.geteuid() != 0, reason="needs cron, and root to start it")
def test_cron_calls_it(done: Project) -> None:
    scheduled(done, "cron")
    path = done.folder / "out" / "melmill-test.cron"
    # A package that is installed needs no such line.
    path.write_text(f"PYTHONPATH={done.environment()['PYTHONPATH']}\n{path.read_text()}")
    with alone(done, CRON.format(cron=shutil.which("cron"))):
        check(done)
    assert "failed, exit code 2" in (done.folder / "melmill-test.log").read_text()


SYSTEMD_PROGRAM = Path("/lib/systemd/systemd")


@pytest.mark.skipif(not SYSTEMD_PROGRAM.exists() or os.geteuid() != 0, reason="needs systemd, and root to start it")
def test_systemd_calls_it(done: Project) -> None:
    scheduled(done, "systemd")
    with alone(done, SYSTEMD.format(systemd=SYSTEMD_PROGRAM, path=done.environment()["PYTHONPATH"])):
        check(done)
