"""Fixtures that tests of every layer use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.objects.serving import bucket, object_proxy, object_server, proxy

__all__ = ["bucket", "object_proxy", "object_server", "proxy", "real_data"]

DEFAULT = Path(__file__).parents[2] / "shared"


def pytest_configure() -> None:
    """Let ctrl-C reach the tests and what they start: a shell has what runs in its background ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder that holds ``corpora/`` and ``golden/``, or skip the test saying so."""
    folder = Path(os.environ.get("MELMILL_REAL_DATA", DEFAULT))
    if not (folder / "corpora" / "LibriSpeech").is_dir():
        pytest.skip(f"no real corpora at {folder}: set MELMILL_REAL_DATA to the folder that holds corpora/")
    return folder
