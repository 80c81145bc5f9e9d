"""An object store in a process of its own, a proxy in front of it, and empty buckets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from melmill.storage.files import objects
from tests.objects.proxy import Proxy, proxied

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
# Port on this machine of a running server that accepts the keys below.
OTHER_SERVER = os.environ.get("MELMILL_OBJECT_SERVER", "")
# No other text that a test may find contains it.
ACCESS_KEY, SECRET_KEY = "AKIDOFTHETESTS", "w2Lz-the-secret-of-the-tests-8QbT"


@contextmanager
def served() -> Iterator[int]:
    """Yield the port of a server, which is a process that ends with the block.

    If ``MELMILL_OBJECT_SERVER`` is set, yield the port in it.
    """
    if OTHER_SERVER:
        yield int(OTHER_SERVER)
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-m", "tests.objects.moto_process", str(port)], cwd=ROOT)
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def object_server() -> Iterator[int]:
    """Return the port of a server that lives as long as the session."""
    with served() as port:
        yield port


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "the server of objects has ended"
            assert time.monotonic() < deadline, "the server of objects does not answer"
            time.sleep(0.05)
        else:
            return


@pytest.fixture(scope="session")
def object_proxy(object_server: int) -> Iterator[Proxy]:
    """Return the proxy through which all tests reach the server."""
    with proxied(object_server) as proxy:
        yield proxy


@pytest.fixture
def proxy(object_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """Return the proxy, with the environment pointing at it.

    Attempts are as many as usual, with shorter pauses between them.
    """
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(objects, "BACKOFF", (timedelta(milliseconds=1), timedelta(milliseconds=20)))
    monkeypatch.setattr(objects, "PAUSE_S", 0.001)
    objects.forget_clients()
    return object_proxy


@contextmanager
def directly(port: int) -> Iterator[None]:
    """Bypass the proxy in the block, where much is written and nothing is counted."""
    before = os.environ["AWS_ENDPOINT_URL"]
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    objects.forget_clients()
    try:
        yield
    finally:
        os.environ["AWS_ENDPOINT_URL"] = before
        objects.forget_clients()


@pytest.fixture
def bucket(proxy: Proxy) -> str:
    """Return the URL of a new bucket."""
    import boto3

    name = f"test-{uuid.uuid4().hex}"
    boto3.client("s3", endpoint_url=proxy.url).create_bucket(Bucket=name)
    return f"s3://{name}"
