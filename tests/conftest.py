"""Fixtures that tests of every layer use."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.nightly import NIGHTLY
from tests.objects.serving import bucket, object_proxy, object_server, proxy

__all__ = ["bucket", "object_proxy", "object_server", "proxy", "real_data"]

DEFAULT = Path(__file__).parents[2] / "shared"
# A file system in memory, where Linux has one. Containers may have a very small one.
IN_MEMORY = Path("/dev/shm")
ROOM_BYTES = 6 * 2**30
TEMPORARY = "PYTEST_DEBUG_TEMPROOT"


def pytest_configure() -> None:
    """Let ctrl-C reach the tests and what they start: a shell has what runs in its background ignore it.

    Temporary folders lie in memory, where there is room. Stores flush each file, for which a disk
    takes milliseconds.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM_BYTES:
        os.environ.setdefault(TEMPORARY, str(IN_MEMORY))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `NIGHTLY`."""
    for item in items:
        if item.nodeid.startswith(NIGHTLY):
            item.add_marker("nightly")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder that holds ``corpora/`` and ``golden/``, or skip the test saying so."""
    folder = Path(os.environ.get("MELMILL_REAL_DATA", DEFAULT))
    if not (folder / "corpora" / "LibriSpeech").is_dir():
        pytest.skip(f"no real corpora at {folder}: set MELMILL_REAL_DATA to the folder that holds corpora/")
    return folder
