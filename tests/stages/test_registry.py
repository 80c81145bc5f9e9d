"""What may be registered as a stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from melmill.stages import registry
from melmill.stages.contract import Report
from melmill.stages.numeric.errors import StageError


class Idle:
    """A stage that lacks the method for its work."""

    uses: ClassVar[str] = "idle"
    version: ClassVar[int] = 1
    inputs: ClassVar[dict[str, Any]] = {}

    def identity(self) -> dict[str, Any]:
        return {}

    def produces(self, inputs: object) -> Report:
        return Report()


# One row for each thing that is no stage.
@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (3, "3 is registered as a stage but is not one: it needs uses, version, inputs and produces"),
        (
            Idle,
            r"Idle'> is registered as a stage but has no method .*: it needs process, opened, ingest, train, reduce or "
            r"report",
        ),
    ],
)
def test_what_is_no_stage_is_named(monkeypatch: pytest.MonkeyPatch, loaded: object, message: str) -> None:
    monkeypatch.setattr(registry, "_installed", lambda: {"idle": SimpleNamespace(load=lambda: loaded)})
    with pytest.raises(StageError, match=message):
        registry.stage_class("idle")
