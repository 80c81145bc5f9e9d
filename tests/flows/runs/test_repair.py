"""A damaged catalogue is rebuilt from the corpus, or nothing is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.faults.damage import cut, flip
from tests.flows.conftest import Project, add_chapter, make_project

PIPELINE = """\
name: test
store: {store}
shard_duration_s: 3
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech}}
cluster: {{pools: {{cpu: {{workers: 1}}}}}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus_files: dict[str, list[bytes]]) -> Project:
    """Return a project whose corpus came in two parts, all done."""
    made = make_project(tmp_path_factory.mktemp("whole"), corpus_files, PIPELINE)
    made.run("--executor", "serial")
    add_chapter(made.root, "dev-clean", "33", corpus_files["11"][:5])
    made.run("--executor", "serial")
    return made


@pytest.fixture
def grown(whole: Project, tmp_path: Path) -> Project:
    """Return a copy of it."""
    copy = Project(tmp_path)
    shutil.copytree(whole.store, copy.store)
    shutil.copytree(whole.root, copy.root)
    copy.write(PIPELINE)
    return copy


def part(project: Project, index: int) -> Path:
    (path,) = project.store.glob(f"speech/*/catalogue/part-{index:06d}.parquet")
    return path


def scramble(path: Path) -> None:
    flip(path, 0.05)


@pytest.mark.parametrize("damage", [cut, scramble, Path.unlink])
def test_the_last_part_is_rebuilt(grown: Project, damage: Callable[[Path], None]) -> None:
    before = grown.bytes()
    damage(part(grown, 1))
    refused = grown.called("run", str(grown.pipeline))
    assert refused.returncode == 2
    assert "Run `melmill repair`" in refused.stderr
    without = grown.called("repair", str(grown.store))
    assert without.returncode == 2
    assert "`melmill repair STORE --pipeline FILE`" in without.stderr
    done = grown.called("repair", str(grown.store), "--pipeline", str(grown.pipeline))
    assert done.returncode == 0, done.stderr
    assert grown.bytes() == before
    assert grown.called("verify", str(grown.store)).returncode == 0
    assert grown.run("--executor", "serial")["tasks"]["run"] == 0


def test_a_corpus_that_changed_proves_nothing(grown: Project) -> None:
    cut(part(grown, 1))
    before = grown.bytes()
    file = grown.root / "dev-clean" / "33" / "1" / "33-1-0003.flac"
    whole = file.read_bytes()
    file.write_bytes((grown.root / "dev-clean" / "22" / "1" / "22-1-0003.flac").read_bytes())
    done = grown.called("repair", str(grown.store), "--pipeline", str(grown.pipeline))
    assert done.returncode == 2
    assert "can't be made of the corpus as it is now: dev-clean/33/1/33-1-0003.flac has changed" in done.stderr
    file.unlink()
    done = grown.called("repair", str(grown.store), "--pipeline", str(grown.pipeline))
    assert done.returncode == 2
    assert "can't be made of the corpus as it is now" in done.stderr
    assert grown.bytes() == before
    # put back, though newer, it is the same corpus
    file.write_bytes(whole)
    os.utime(file)
    done = grown.called("repair", str(grown.store), "--pipeline", str(grown.pipeline))
    assert done.returncode == 0, done.stderr
    assert grown.run("--executor", "serial")["tasks"]["run"] == 0


def test_another_pipeline_is_no_help(grown: Project) -> None:
    scramble(part(grown, 1))
    other = grown.folder / "other.yaml"
    other.write_text(grown.pipeline.read_text().replace("shard_duration_s: 3", "shard_duration_s: 4"))
    done = grown.called("repair", str(grown.store), "--pipeline", str(other))
    assert done.returncode == 2
    assert "no node of the pipeline makes speech/" in done.stderr
