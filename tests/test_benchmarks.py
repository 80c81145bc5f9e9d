"""Benchmarks are run by hand: that they can be is tested here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_module_imports(name: str) -> None:
    importlib.import_module(f"benchmarks.{name}")
