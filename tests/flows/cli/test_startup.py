"""A command that computes nothing imports nothing that computes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import Project

HEAVY = ("dask", "distributed", "librosa", "matplotlib", "numba", "pandas", "pyarrow.dataset", "scipy", "torch", "zarr")

# Runs a command, then says which of the packages are loaded.
COMMAND = f"""
import json, sys
from melmill.flows.cli import main
try:
    main()
finally:
    print(json.dumps([name for name in {HEAVY} if name in sys.modules]), file=sys.stderr)
"""


def loaded_after(project: Project, *arguments: str) -> tuple[str, list[str]]:
    """Run a command in a new process; return what it printed, and the heavy packages that it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--help",), "Take a speech corpus to mel spectrograms"),
        (("run", "{pipeline}", "--store", "{store}"), "nothing to run: all 43 tasks are done"),
        (("plan", "{pipeline}"), "0 of 43 tasks to run"),
        (("status", "{store}"), "done"),
    ],
)
def test_a_command_without_work_loads_no_heavy_package(
    finished: Project, arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    # A run leaves a record, and other tests read the store too.
    store = shutil.copytree(finished.store, tmp_path / "store")
    places = {"pipeline": finished.pipeline, "store": store}
    said, loaded = loaded_after(finished, *(one.format(**places) for one in arguments))
    assert says in said
    assert loaded == []


def test_a_touched_corpus_is_planned_without_a_heavy_package(done: Project) -> None:
    """Times that changed are laid over the catalogue, as are the retired rows of a file that is gone."""
    first, *others = sorted(done.root.rglob("*.flac"))
    first.unlink()
    for path in others:
        path.touch()
    done.run("--executor", "serial", "--follow")
    said, loaded = loaded_after(done, "run", str(done.pipeline))
    assert "nothing to run" in said
    assert loaded == []


def test_work_loads_what_it_needs(project: Project) -> None:
    """The list of heavy packages is of names that a run does load."""
    _, loaded = loaded_after(project, "run", str(project.pipeline), "--executor", "serial", "--until", "scores")
    assert {"zarr", "scipy", "numba"} <= set(loaded)
