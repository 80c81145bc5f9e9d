"""A store with a finished run, and listening tests of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from melmill.flows.runs.listening.making import ListeningRequest, make_test
from melmill.stages.score.listeners.design import Design
from melmill.storage.store import Store
from tests.flows.conftest import Project


class Listening:
    """A store, and the tests that are made of it."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.store = folder, store

    def make(self, kind: str, n: int = 3, **fields: Any) -> Design:
        """Write a test to the folder of its kind."""
        store = Store.open(str(self.store))
        manifest = store.latest_manifest()
        assert manifest is not None
        request = ListeningRequest(kind=kind, n=n, **{"nodes": ("gla", "admm"), **fields})
        return make_test(store, manifest, request, str(self.folder / kind))

    def page(self, kind: str) -> str:
        return (self.folder / kind / "index.html").as_uri()

    def result(self, design: Design, listener: str, answers: dict[str, Any], name: str = "") -> Path:
        """Write a result as a page saves it."""
        path = self.folder / f"{name or listener}.json"
        listed = [{"trial": trial, **answer} for trial, answer in answers.items()]
        fields = {"format": 1, "test": design.test_id, "listener": listener, "started_at": "", "finished_at": "x"}
        path.write_text(json.dumps({**fields, "answers": listed}))
        return path

    def rated(self, design: Design, listener: str, of: Mapping[str, float], name: str = "") -> Path:
        """Write a result of a MUSHRA test that rates each system with the same number on every page."""
        answers = {
            trial.name: {"ratings": {token: of[system] for token, system in trial.stimuli.items()}}
            for trial in design.trials
        }
        return self.result(design, listener, answers, name)


@pytest.fixture
def listening(tmp_path: Path, finished: Project) -> Listening:
    shutil.copytree(finished.store, tmp_path / "store")
    return Listening(tmp_path, tmp_path / "store")
