"""Every worked example of docs/extending.md works as a package of somebody else's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r'^```\w+ title="(?P<name>[^"]+)"\n(?P<text>.*?)^```', flags=re.DOTALL | re.MULTILINE)


def sections() -> dict[str, dict[str, str]]:
    """Return the files of each section of the page that has some, by its heading."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {
        heading: {block["name"]: block["text"] for block in BLOCK.finditer(text)}
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {heading: files for heading, files in found.items() if files}


@pytest.mark.parametrize("heading", sections())
def test_an_example_works_as_another_package(heading: str, tmp_path: Path) -> None:
    files = sections()[heading]
    package = tmp_path / "package"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert {"pyproject.toml", "try.py", "output"} <= set(files), f"{heading}: its files are {sorted(files)}"
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--target", site, package], check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "TQDM_DISABLE": "1"}
    work = tmp_path / "work"
    work.mkdir()
    for name, text in files.items():
        if name.endswith(".yaml"):
            (work / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-P", package / "try.py"],
        cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == files["output"].strip()
