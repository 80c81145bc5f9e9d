"""Fixtures of the vocoders' tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.stages.vocode.tiny import Golden


@pytest.fixture
def golden(real_data: Path) -> Callable[[str], Golden]:
    """Return what gives the official answers of a case, by its name."""
    return partial(Golden, real_data)
