"""The wheel and the sdist hold the whole package, and the wheel works away from the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

pytest.importorskip("pyproject_hooks", reason='building needs the dev extra: pip install "melmill[dev]"')

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = SETTINGS["project"]["version"]
FOLDERS = {"melmill": "melmill", **SETTINGS["tool"]["setuptools"]["package-dir"]}
# Files for clusters that a person copies from the repository.
NOT_INSTALLED = ROOT / "cluster" / "deploy"


def sources() -> Iterator[tuple[str, Path]]:
    """Yield every file that belongs in the package, by its name in the package."""
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and NOT_INSTALLED not in path.parents:
                yield f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}", path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an sdist of the tree, and a wheel that was built from that sdist."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    made = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(tree)]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return made


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel in it; third-party packages are those of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    (site,) = folder.glob("lib/python3.*/site-packages")
    shared = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--force-reinstall"]
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), *install, str(wheel)]
    subprocess.run(command, check=True, timeout=120)
    return folder


def optional_modules() -> set[str]:
    """Return the top-level modules of what only an extra installs."""
    extras = {name: words for name, words in SETTINGS["project"]["optional-dependencies"].items() if name != "dev"}
    names = {re.split("[^A-Za-z0-9_-]", word)[0].lower() for words in extras.values() for word in words} - {"melmill"}
    return {module for module, packages in packages_distributions().items() if names & {p.lower() for p in packages}}


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """Return a working directory outside the tree."""
    assert ROOT not in tmp_path.parents
    return tmp_path


def call(installed: Path, program: str, *arguments: str, cwd: Path) -> str:
    """Run a program of the environment and return its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [installed / "bin" / program, *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_package_is_declared() -> None:
    packages = {Path(name).parent.as_posix().replace("/", ".") for name, _ in sources() if name.endswith(".py")}
    assert SETTINGS["tool"]["setuptools"]["packages"] == sorted(packages)


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {name: path.read_bytes() for name, path in sources()}
    assert held.keys() == wanted.keys()
    assert [name for name in wanted if held[name] != wanted[name]] == []
    # Some of each kind, so that an empty tree proves nothing.
    assert {
        "melmill/py.typed",
        "melmill/flows/evaluate.yaml",
        "melmill/stages/report/page.html.j2",
        "melmill/stages/report/page.css",
        "melmill/stages/report/page.js",
        "melmill/stages/vocode/shipped/melmill-16k/weights.pt",
    } <= held.keys()


def test_the_sdist_is_named_after_the_version(distributions: Path) -> None:
    assert sorted(path.name for path in distributions.iterdir()) == [
        f"melmill-{VERSION}-py3-none-any.whl",
        f"melmill-{VERSION}.tar.gz",
    ]


def test_the_command_says_its_version(installed: Path, away: Path) -> None:
    assert call(installed, "melmill", "--version", cwd=away).strip() == f"melmill, version {VERSION}"


def test_the_package_is_imported_from_the_environment(installed: Path, away: Path) -> None:
    code = "import melmill, melmill.flows as flows; print(melmill.__version__, melmill.__file__, flows.__file__)"
    version, *files = call(installed, "python", "-c", code, cwd=away).split()
    assert version == VERSION
    for file in files:
        assert Path(file).is_relative_to(installed)


PIPELINE = """\
name: demo
store: runs/demo
stages:
  speech: {uses: librispeech, root: data/demo/LibriSpeech, subsets: [test-clean], sr: 16000}
  mel:    {uses: extract, from: speech, preset: paper}
  gla:    {uses: griffin_lim, from: mel, n_iter: 2}
  voc:    {uses: vocoder, from: mel, checkpoint: melmill-16k}
  scores: {uses: score, from: [gla, voc], against: speech, metrics: [scm]}
  report: {uses: aggregate, from: scores}
"""


@pytest.fixture(scope="module")
def demo(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory outside the tree, with the demo corpus and a pipeline over it."""
    pytest.importorskip("espeakng_loader", reason='the demo corpus needs eSpeak NG: pip install "melmill[demo]"')
    folder = tmp_path_factory.mktemp("demo")
    call(installed, "melmill", "fetch", "demo", "data/demo", cwd=folder)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    return folder


def test_the_demo_is_ingested(installed: Path, demo: Path) -> None:
    said = call(installed, "melmill", "run", "--executor", "serial", "--until", "speech", cwd=demo)
    assert "0 failed" in said
    assert "0 quarantined" in said


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
from melmill.flows.cli import main
main()
"""


def test_no_extra_is_needed(installed: Path, demo: Path) -> None:
    """A run without what only extras install; None in sys.modules is a module that is missing."""
    missing = optional_modules()
    assert {"cryptography", "asyncssh", "bokeh", "espeakng_loader"} <= missing
    options = ["--executor", "serial", "--until", "speech", "--store", "runs/bare"]
    assert "0 failed" in call(installed, "python", "-c", WITHOUT, ",".join(missing), "run", *options, cwd=demo)


@pytest.mark.slow  # An installation compiles its numerical code anew.
def test_the_demo_is_vocoded_scored_and_reported(installed: Path, demo: Path) -> None:
    said = call(installed, "melmill", "run", "--executor", "serial", cwd=demo)
    assert "0 failed" in said
    page = (demo / said.rsplit("report: ", 1)[1].strip()).read_text()
    assert "<style>" in page
    assert "<audio" in page
