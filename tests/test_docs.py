"""What the documents say of the code is what the code says; tests/docs has the tables that are made from it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

from melmill.flows.cli.group import cli
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.spec import load
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset_names
from melmill.stages.registry import stage_names
from tests.flows.test_predictors import export
from tests.priors import random_prior
from tests.stages.vocode.families import test_hifigan, test_waveglow
from tests.stages.vocode.tiny import saved, tensors

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PIPELINES = sorted([ROOT / "pipeline.yaml", *ROOT.glob("flows/*.yaml"), *ROOT.glob("benchmarks/*.yaml")])


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
    corpus = {"speech": "{uses: librispeech, root: x}", "mel": "{uses: extract, from: speech}"}
    usual = {"name": "x", "store": "x", "stages": f"{{speech: {corpus['speech']}}}"}
    text = block
    if block.startswith("rules:"):  # a file of rules, which a gate takes as a field
        rules = "".join(f"    {line}\n" for line in block.splitlines())
        block = (
            "  gla:    {uses: griffin_lim, from: mel}\n  admm:   {uses: admm, from: mel}\n"
            "  scores: {uses: score, from: [gla, admm], against: speech, metrics: [estoi, pesq_wb]}\n"
            f"  gate:\n    uses: gate\n    from: scores\n    baseline: nightly\n{rules}"
        )
    if block.startswith(" "):  # nodes, which may read others of their page
        nodes = yaml.safe_load(block)
        others = (f"  {name}: {node}\n" for name, node in corpus.items() if name not in nodes)
        text = f"stages:\n{block}{''.join(others)}"
    return text + "".join(f"{field}: {value}\n" for field, value in usual.items() if field not in yaml.safe_load(text))


def write_vocoders(folder: Path) -> None:
    """Write checkpoints of the documents' names and mels: small ones with random weights."""
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


def write_features(folder: Path) -> None:
    """Write an alignment and statistics of the documents' names."""
    (folder / "data" / "aligned").mkdir(parents=True)
    (folder / "data" / "aligned" / "a.lab").write_text("0 10000000 a\n")
    (folder / "exported").mkdir()
    np.savez(folder / "exported" / "statistics.npz", mean=np.zeros(100), std=np.ones(100))


@pytest.mark.parametrize("where", yaml_blocks())
def test_every_yaml_block_of_the_documents_is_sound(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vocoders(tmp_path)
    export(tmp_path / "utmos22.ts")
    write_features(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "speech16k.safetensors").write_bytes(random_prior(MelSpec()).encoded())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(completed(yaml_blocks()[where]))
    assert build_graph(load(Path("pipeline.yaml")))


@pytest.mark.parametrize("document", ["README.md", "docs/pipelines.md"])
def test_the_pipeline_of_the_documents_fans_out(document: str, tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(name: .*?)```", (ROOT / document).read_text(), flags=re.DOTALL)
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    nodes = build_graph(load(path))
    assert "best[quality=good]" in nodes
    assert len(nodes["report"].inputs["from"]) == 5


def test_every_extra_is_on_the_page_of_installing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "start.md").read_text()
    for extra in project["optional-dependencies"].keys() - {"dev"}:
        assert f"`{extra}`" in page, extra


def test_every_entry_point_of_the_examples_is_in_the_table() -> None:
    page = (ROOT / "docs" / "extending.md").read_text()
    table, _, examples = page.partition("\n## ")
    groups = re.findall(r'^\[project\.entry-points\."(.+)"\]', examples, flags=re.MULTILINE)
    assert len(groups) > 4
    assert set(groups) <= set(re.findall(r"`(melmill\.\w+)` \|", table))


def test_the_pythons_that_were_tried_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = re.findall(r"^melmill was tried with Python (.*)\.$", (ROOT / "docs/start.md").read_text(), flags=re.M)
    tried = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert re.findall(r"3\.\d+", line) == tried


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_commands_and_links_of_the_documents_exist() -> None:
    commands = cli.list_commands(click.Context(cli))
    for document in DOCUMENTS:
        text = document.read_text()
        shell = "".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE))
        for command in re.findall(r"`melmill ([a-z]+)", text) + re.findall(r"^melmill ([a-z]+)", shell, flags=re.M):
            assert command in commands, f"{document.name}: melmill {command}"
        for link in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
        for source in re.findall(r'(?:src|srcset)="([^"]+)"', text):
            assert (document.parent / source).exists(), f"{document.name}: {source}"


def test_modules_and_folders_that_the_documents_name_exist() -> None:
    named = 0
    for document in DOCUMENTS:
        for path in re.findall(
            r"`((?:flows|stages|storage|cluster|tests|benchmarks|docs)/[\w./-]*)`", document.read_text()
        ):
            named += 1
            # NAME stands for a name of the reader's own.
            assert path.endswith("/NAME.py") or (ROOT / path).exists(), f"{document.name}: {path}"
        for module in re.findall(r"python -m (benchmarks\.\w+|docs\.[\w.]+)", document.read_text()):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or path.is_dir(), f"{document.name}: {module}"
    assert named > 20


def test_stages_and_presets_are_listed() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for name in stage_names():
        assert f"`{name}`" in changelog, name
    assert len(preset_names()) >= 20


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_pipelines_that_ship_are_sound(path: Path) -> None:
    assert build_graph(load(path))
