"""What the documents say of the code is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melmill.flows.cli import cli
from melmill.flows.graph import build_graph
from melmill.flows.spec import load
from melmill.stages.dsp.presets import preset_names
from melmill.stages.metrics.registry import METRICS
from melmill.stages.metrics.status import Status
from melmill.stages.registry import stage_names

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_metric_and_status_is_explained() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    for metric in METRICS.values():
        for part in (metric.name, metric.column, metric.says, metric.limits, metric.reference):
            assert part in text, (metric.name, part)
    for status in Status:
        assert f"`{status.value}`" in text


def test_the_readme_pipeline_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(name: .*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    nodes = build_graph(load(path))
    assert "admm[n_iter=50]" in nodes
    assert len(nodes["report"].inputs["from"]) == 5


def test_commands_and_links_of_the_documents_exist() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        for command in re.findall(r"`melmill ([a-z]+)", text) + re.findall(
            r"^melmill ([a-z]+)", text, flags=re.MULTILINE
        ):
            assert command in cli.commands, f"{document.name}: melmill {command}"
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_stages_and_presets_are_listed() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for name in stage_names():
        assert f"`{name}`" in changelog, name
    assert len(preset_names()) >= 20


@pytest.mark.parametrize(
    "path", sorted([ROOT / "pipeline.yaml", *(ROOT / "flows").glob("*.yaml")]), ids=lambda p: p.name
)
def test_pipelines_that_ship_are_sound(path: Path) -> None:
    assert build_graph(load(path))
