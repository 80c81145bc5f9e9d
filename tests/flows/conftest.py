"""A small corpus in LibriSpeech's layout, a pipeline over it, and the command line as a process."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile

from benchmarks.faults.comparing import fingerprint
from melmill.flows.cli import main
from melmill.stages import registry

ROOT = Path(__file__).parents[2]
SR = 16000

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
  gla:    {{uses: griffin_lim, from: mel, n_iter: 2}}
  admm:   {{uses: admm, from: mel, n_iter: 2}}
  scores: {{uses: score, from: [gla, admm], against: speech, metrics: [sc, scm]}}
  report: {{uses: aggregate, from: scores, baseline: gla, examples: 1}}
cluster: {{pools: {{cpu: {{workers: 2}}}}}}
"""
NODES = ["speech", "mel", "gla", "admm", "scores[gla]", "scores[admm]"]


@contextmanager
def packages_of(site: Path) -> Iterator[None]:
    """Find the packages of a folder in this process, and none of them afterwards."""
    sys.path.insert(0, str(site))
    registry._installed.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        registry._installed.cache_clear()
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or ROOT).is_relative_to(site):
                del sys.modules[name]


def voice(duration_s: float, f0: float, seed: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Return harmonics with a little noise, under an envelope like that of syllables."""
    t = np.arange(int(duration_s * SR)) / SR
    y = sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    y = y + 0.01 * np.random.default_rng(seed).standard_normal(t.size)
    return np.asarray(np.rint(6000 * y), dtype=np.int16)


def flac(y: np.ndarray[Any, np.dtype[np.int16]]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, y, SR, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def add_chapter(root: Path, subset: str, speaker: str, files: list[bytes]) -> list[Path]:
    folder = root / subset / speaker / "1"
    folder.mkdir(parents=True, exist_ok=True)
    start = len(list(folder.glob("*.flac")))
    paths = [folder / f"{speaker}-1-{start + i:04d}.flac" for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
        # The catalogue holds a file's time. Tests compare its bytes between corpora that were made
        # at different times.
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return paths


class Project:
    """A folder with a corpus and a pipeline."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "corpus"
        self.store = folder / "store"
        self.pipeline = folder / "pipeline.yaml"

    def write(self, text: str = PIPELINE, store: Path | None = None) -> None:
        self.pipeline.write_text(text.format(store=store or self.store, root=self.root))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "melmill", *arguments]

    def environment(self, extra: Path | None = None) -> dict[str, str]:
        paths = [str(ROOT)] + ([str(extra)] if extra else [])
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def melmill(self, *arguments: str, extra: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(extra),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def called(self, *arguments: str, extra: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in this process, which saves the imports of a new one.

        It finds the packages of the folder `extra`, as do the processes that it starts.
        """
        said, complained = io.StringIO(), io.StringIO()
        with (
            packages_of(extra) if extra else nullcontext(),
            patch.dict(os.environ, self.environment(extra) if extra else {}),
            chdir(self.folder),
            patch.object(sys, "argv", ["melmill", *arguments]),
            redirect_stdout(said),
            redirect_stderr(complained),
            pytest.raises(SystemExit) as left,
        ):
            main()
        assert isinstance(left.value.code, int)
        return subprocess.CompletedProcess(arguments, left.value.code, said.getvalue(), complained.getvalue())

    def run(self, *arguments: str, expect: int = 0, extra: Path | None = None) -> dict[str, Any]:
        """Run the pipeline in this process and its workers, and return what --json answers."""
        done = self.called("run", str(self.pipeline), "--json", *arguments, extra=extra)
        assert done.returncode == expect, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def bytes(self, store: Path | None = None) -> dict[str, str]:
        """Return a hash of every file of the store that must be the same after any run."""
        return fingerprint(store or self.store)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Make a folder with a file system of a given size; skip the test if none can be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def enlarge(disk: Path) -> None:
    """Give the file system of `small_disk` room for everything."""
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


@pytest.fixture(scope="session")
def corpus_files() -> dict[str, list[bytes]]:
    lengths = (0.9, 1.3, 1.1, 0.8, 1.6, 1.2, 0.7, 1.0)
    return {
        speaker: [flac(voice(length, f0 + 5 * i, seed=i)) for i, length in enumerate(lengths)]
        for speaker, f0 in (("11", 110.0), ("22", 190.0))
    }


def make_project(folder: Path, corpus_files: dict[str, list[bytes]], pipeline: str = PIPELINE) -> Project:
    made = Project(folder)
    for speaker, files in corpus_files.items():
        add_chapter(made.root, "dev-clean", speaker, files)
    made.write(pipeline)
    return made


@pytest.fixture
def project(tmp_path: Path, corpus_files: dict[str, list[bytes]]) -> Project:
    return make_project(tmp_path, corpus_files)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project after a serial run that nothing disturbed, to be read only."""
    made = make_project(tmp_path_factory.mktemp("finished"), corpus_files)
    made.run("--executor", "serial")
    return made


@pytest.fixture
def done(project: Project, finished: Project) -> Project:
    """Return a project with a finished serial run, to be changed."""
    shutil.copytree(finished.store, project.store)
    return project


@pytest.fixture(scope="session")
def undisturbed(finished: Project) -> dict[str, str]:
    """Return the bytes that a run makes which nothing disturbs."""
    return finished.bytes()
