"""The files of a corpus are listed in order and read, and never those outside the root."""

from __future__ import annotations

import os
import pickle
import time
import uuid
from pathlib import Path

import fsspec
import pytest

from melmill.storage.errors import SourceError
from melmill.storage.files.location import Location
from melmill.storage.files.sources import SourceTree

FILES = {"a-b/x.flac": b"12345", "a/y.flac": b"", "a/z/w.txt": b"text", "a.txt": b"1", "README": b"read me"}


@pytest.fixture(params=["local", "memory", "s3"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> SourceTree:
    """Return a small corpus: on the disk, behind fsspec, and in an object store."""
    if request.param == "s3":
        bucket = request.getfixturevalue("bucket")
        for name, data in FILES.items():
            Location(bucket).put(name, data)
        return SourceTree(bucket)
    root = str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    system, path = fsspec.core.url_to_fs(root)
    for name, data in FILES.items():
        system.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        system.pipe_file(f"{path}/{name}", data)
    return SourceTree(root)


def test_files_come_sorted_by_path(tree: SourceTree) -> None:
    assert [(file.path, file.size_bytes) for file in tree.walk()] == [
        (name, len(FILES[name])) for name in sorted(FILES)
    ]


def test_reading(tree: SourceTree) -> None:
    assert {file.path: tree.read(file.path) for file in tree.walk()} == FILES
    assert tree.head("README", 4) == b"read"
    assert tree.head("README", 400) == b"read me"
    assert pickle.loads(pickle.dumps(tree)).read("a.txt") == b"1"


def test_folders(tree: SourceTree) -> None:
    assert tree.folders() == ["a", "a-b"]
    assert tree.folders("a") == ["z"]


def test_a_missing_file_is_not_a_missing_corpus(tree: SourceTree) -> None:
    with pytest.raises(FileNotFoundError):
        tree.read("a/nothing.flac")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret"])
def test_paths_stay_inside(tree: SourceTree, path: str) -> None:
    with pytest.raises(SourceError, match="leads out of it: expected a path below its root"):
        tree.read(path)


def test_a_root_that_is_gone_is_told(tmp_path: Path) -> None:
    tree = SourceTree(str(tmp_path / "not mounted"))
    for use in (lambda: list(tree.walk()), lambda: tree.read("a.flac"), lambda: tree.head("a", 1), tree.folders):
        with pytest.raises(SourceError, match=r"no corpus at .*not mounted: it does not exist. Check the path"):
            use()
    with pytest.raises(SourceError, match="no corpus at nosuch://x"):
        list(SourceTree("nosuch://x").walk())


def test_a_change_shows_in_the_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.utime(tmp_path / "a", ns=(1, 1_700_000_000_123_456_789))
    assert [file.mtime_ns for file in SourceTree(str(tmp_path)).walk()] == [1_700_000_000_123_456_789]


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x").write_bytes(b"1")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/linked").symlink_to(tmp_path / "real")
    (tmp_path / "corpus/up").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus/broken").symlink_to(tmp_path / "nowhere")
    tree = SourceTree(str(tmp_path / "corpus"))
    assert [file.path for file in tree.walk()] == ["broken", "linked/x"]
    with pytest.raises(FileNotFoundError):
        tree.read("broken")


def test_many_files_are_listed_fast(tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / f"{folder}").mkdir()
        for i in range(250):
            (tmp_path / f"{folder}/{i}").touch()
    begin = time.perf_counter()
    assert sum(1 for _ in SourceTree(str(tmp_path)).walk()) == 5000
    # LibriSpeech has 300,000 files. A slow and busy machine lists them in a minute.
    assert time.perf_counter() - begin < 1.0
