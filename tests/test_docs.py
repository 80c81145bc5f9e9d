"""What the documents say of the code is what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from melmill.flows.cli.group import cli
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load
from melmill.stages.contract import Item, UtteranceStage, Waveform
from melmill.stages.numeric.presets import preset_names
from melmill.stages.registry import stage_names
from melmill.stages.score.registry import METRICS
from melmill.stages.score.status import Status
from melmill.storage.utterance import Utterance
from tests.stages.vocode.families import test_hifigan, test_waveglow
from tests.stages.vocode.tiny import saved, tensors

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PIPELINES = sorted([ROOT / "pipeline.yaml", *ROOT.glob("flows/*.yaml"), *ROOT.glob("benchmarks/*.yaml")])


def test_every_metric_and_status_is_explained() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    for metric in METRICS.values():
        for part in (metric.name, metric.column, metric.says, metric.limits, metric.reference):
            assert part in text, (metric.name, part)
    for status in Status:
        assert f"`{status.value}`" in text


def yaml_blocks() -> dict[str, str]:
    """Return every YAML block of the documents by its file and line."""
    found = {}
    for document in DOCUMENTS:
        text = document.read_text()
        for block in re.finditer(r"^```ya?ml\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
            line = 1 + text.count("\n", 0, block.start(1))
            found[f"{document.name}:{line}"] = block[1]
    return found


def completed(block: str) -> str:
    """Return a pipeline of a block that may be its nodes alone, or some of its fields."""
    text = f"stages:\n{block}" if block.startswith(" ") else block
    usual = {"name": "x", "store": "x", "stages": "{speech: {uses: librispeech, root: x}}"}
    return text + "".join(f"{field}: {value}\n" for field, value in usual.items() if field not in yaml.safe_load(text))


def write_vocoders(folder: Path) -> None:
    """Write checkpoints of the README's names and mels: small ones with random weights."""
    config = test_hifigan.CONFIG | {
        "upsample_rates": [16, 16], "upsample_kernel_sizes": [32, 32], "num_mels": 80, "n_fft": 1024, "hop_size": 256,
        "win_size": 1024, "sampling_rate": 22050, "fmax": 8000,
    }  # fmt: skip
    hifigan = folder / "checkpoints" / "UNIVERSAL_V1"
    hifigan.mkdir(parents=True)
    (hifigan / "g_02500000").write_bytes(saved({"generator": tensors(test_hifigan.shapes(config))}))
    (hifigan / "config.json").write_text(json.dumps(config))
    sizes = test_waveglow.Sizes(n_mels=80, hop=256)
    (folder / "checkpoints" / "waveglow.pt").write_bytes(saved({"state_dict": test_waveglow.random_state(sizes)}))
    network = sizes.config["waveglow_config"]
    (folder / "checkpoints" / "waveglow.json").write_text(json.dumps({"waveglow_config": network}))


@pytest.mark.parametrize("where", yaml_blocks())
def test_every_yaml_block_of_the_documents_is_sound(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vocoders(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(completed(yaml_blocks()[where]))
    assert build_graph(load(Path("pipeline.yaml")))


def test_the_readme_pipeline_fans_out(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(name: .*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    nodes = build_graph(load(path))
    assert "best[quality=good]" in nodes
    assert len(nodes["report"].inputs["from"]) == 5


def test_the_readme_stage_works() -> None:
    (code,) = re.findall(r"```python\n(from collections.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec", dont_inherit=True), namespace)
    stage = namespace["Gain"](gain_db=20.0)
    assert isinstance(stage, UtteranceStage)
    source = Waveform(sr=16000, dtype="int16", corpus=True)
    product = stage.produces({"from": [source]})
    y = np.array([-1638, 0, 1638], dtype=np.int16)
    utterance = Utterance(
        utterance_id="a", subset="", speaker_id="", chapter_id="", text="", path="a.flac", size_bytes=1, mtime_ns=1,
        source_sr=16000, source_n_samples=3, sr=16000, n_samples=3,
    )  # fmt: skip
    item = Item(utterance=utterance, inputs={"from": y}, seed=0)
    (outcome,) = stage.process([item], {"from": source}, product)
    assert outcome.array is not None
    assert outcome.array.dtype == np.float32
    np.testing.assert_allclose(outcome.array, [-0.5, 0, 0.5], atol=1e-3)


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


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_pipelines_that_ship_are_sound(path: Path) -> None:
    assert build_graph(load(path))
