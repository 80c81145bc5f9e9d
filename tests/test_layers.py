"""The layers of docs/design.md, read from the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import structure
from tests.nightly import NIGHTLY

ROOT = Path(__file__).parents[1]
LAYERS = ("cluster", "flows", "stages", "storage")

# Modules that lie below all layers.
BELOW = (
    "melmill.compiling",
    "melmill.errors",
    "melmill.flac",
    "melmill.flac_frames",
    "melmill.pcm",
    "melmill.safetensors",
    "melmill.vector",
)

# What a layer may import besides itself and these. Numbers know nothing of stages.
ALLOWED = {
    "cluster": set[str](),
    "flows": {"melmill.cluster", "melmill.stages", "melmill.storage", "melmill"},
    "stages": {"melmill.storage.utterance"},
    "stages/numeric": set[str](),
    "storage": set[str](),
}

# Packages that only these layers know.
OWNERS = {
    "zarr": ("storage",),
    "pyarrow": ("storage",),
    "fsspec": ("storage",),
    "obstore": ("storage",),
    "dask": ("cluster",),
    "asyncssh": ("cluster",),
    "cryptography": ("cluster",),
    "dask_jobqueue": ("cluster",),
    "kr8s": ("cluster",),
    "click": ("flows",),
    "rich": ("flows",),
    "yaml": ("flows", "stages"),  # some vocoders keep their configuration as YAML inside the weights
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_it_may(layer: str) -> None:
    allowed = {f"melmill.{layer.replace('/', '.')}", *BELOW, *ALLOWED[layer]}
    assert len(modules(layer)) > 2
    for path in modules(layer):
        for name in imports(path):
            if name.split(".")[0] == "melmill":
                assert any(name == ok or name.startswith(f"{ok}.") for ok in allowed), f"{path} imports {name}"


def test_packages_are_known_to_their_layers() -> None:
    for layer in LAYERS:
        for path in modules(layer):
            for name in imports(path):
                owners = OWNERS.get(name.split(".")[0], LAYERS)
                assert layer in owners, f"{path} imports {name}, which is {' and '.join(owners)}'s business"


def test_only_storage_opens_files() -> None:
    excused = {
        "stages/ingest/demo/corpus.py",  # writes a corpus folder
        "stages/invert/priors/__init__.py",  # reads what comes with melmill
        "stages/numeric/presets.py",  # reads what comes with melmill
        "stages/report/views/templates.py",  # reads the templates of pages
        "flows/runs/listening/page.py",  # reads its own template
        "stages/report/budget/page.py",  # likewise
        "flows/runs/scheduling/files.py",  # reads the files that a CronJob carries
        "stages/score/networks/weights.py",  # hashes what other packages carry
        "stages/score/recogniser.py",  # hands a command WAV files in a scratch folder
        # keys are no data: they have modes and stay off every store
        "cluster/authority.py",
        "cluster/credentials.py",
        "cluster/process.py",  # asks the kernel about this process
        "flows/exchange/identify/blind.py",  # reads the network that comes with melmill
        "flows/watching/log.py",  # a log goes where asked
        "flows/pipeline/spec.py",  # a pipeline is a file that a person names
        "flows/runs/trends/page.py",  # reads its own template
        "flows/watching/serving/site.py",  # reads its own templates
        "flows/runs/gate.py",  # rules are a file that a person names
        "flows/cli/show.py",  # scores and drawings go where asked
        "flows/cli/setup/init.py",  # a pipeline goes where asked
    }
    for layer in ("cluster", "flows", "stages"):
        for path in modules(layer):
            if str(path.relative_to(ROOT)) in excused:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                    assert name not in {"open", "read_bytes", "write_bytes", "read_text", "write_text"} or _opens_store(
                        node
                    ), f"{path}:{node.lineno} opens a file"


def _opens_store(node: ast.Call) -> bool:
    """Tell whether a call is Store.open, or av.open, which gets bytes."""
    return (
        isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"Store", "av"}
    )


def test_no_modules_import_each_other() -> None:
    trees = structure.modules(ROOT)
    assert len(trees) > 100
    assert structure.cycles({name: structure.imports(name, trees) for name in trees}) == []


def test_cycles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert structure.cycles(graph) == [["b", "c"]]


@pytest.mark.parametrize("layer", LAYERS)
def test_folders_hold_about_a_dozen(layer: str) -> None:
    for folder in {path.parent for path in modules(layer)}:
        entries = sorted(child.name for child in folder.iterdir() if child.name not in ("__init__.py", "__pycache__"))
        assert len(entries) <= 16, f"{folder} holds {entries}"


def test_modules_and_functions_stay_small() -> None:
    for layer in (*LAYERS, "tests", "benchmarks"):
        for path in modules(layer):
            assert path.read_text().count("\n") <= 600, f"{path} is too long"
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                    size = (body[-1].end_lineno or 0) - body[0].lineno + 1
                    assert size <= 60, f"{path}:{node.lineno} {node.name} has {size} lines"


@pytest.mark.parametrize("entry", NIGHTLY)
def test_nightly_tests_exist(entry: str) -> None:
    path, _, name = entry.partition("::")
    text = (ROOT / path).read_text()
    assert not name or f"def {name.partition('[')[0]}" in text


def test_the_root_of_the_errors_imports_nothing() -> None:
    assert list(imports(ROOT / "melmill" / "errors.py")) == ["__future__.annotations"]
