"""Keys never change by accident: a store that somebody has must stay valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load

ROOT = Path(__file__).parents[3]
KEYS: dict[str, dict[str, str]] = json.loads((ROOT / "tests" / "data" / "keys" / "keys.json").read_text())


@pytest.mark.parametrize("path", KEYS)
def test_products_have_the_places_that_they_have_had(path: str) -> None:
    """Compare with what edition 0.1 answered; a deliberate change raises a stage's version and is in the changelog."""
    nodes = build_graph(load(ROOT / path)).values()
    assert {node.name: f"{node.folder}/{node.key}" for node in nodes} == KEYS[path]
