"""Archives that are read in place: the same files as in the folder that they were made of."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from melmill.storage.errors import SourceError
from melmill.storage.files import archives
from melmill.storage.files.sources import SourceTree

CONTENTS = {"a/1.bin": b"one", "a/b/2.bin": np.random.default_rng(0).bytes(70_000), "é ü.txt": "ß".encode()}
TIME = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("MELMILL_CACHE", str(folder))
    archives._opened.cache_clear()
    return folder


def packed(path: Path, contents: dict[str, bytes] = CONTENTS) -> Path:
    kind = path.name.partition(".")[2]
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents.items():
                archive.writestr(zipfile.ZipInfo(name, (2020, 9, 13, 12, 26, 40)), data)
        return path
    target = io.BytesIO()
    mode: Any = f"w:{kind[4:].replace('zst', '')}"
    with tarfile.open(fileobj=target, mode=mode) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size, info.mtime = len(data), TIME
            tar.addfile(info, io.BytesIO(data))
    path.write_bytes(target.getvalue())
    if kind == "tar.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(target.getvalue())
    return path


KINDS = ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_root_may_be_an_archive(tmp_path: Path, kind: str) -> None:
    tree = SourceTree(str(packed(tmp_path / f"x.{kind}")))
    files = list(tree.walk())
    assert [(file.path, file.size_bytes) for file in files] == [
        (name, len(CONTENTS[name])) for name in sorted(CONTENTS)
    ]
    assert {file.mtime_ns for file in files} == {TIME * 10**9}
    for name, data in CONTENTS.items():
        assert tree.read(name) == data
        assert tree.head(name, 2) == data[:2]
    assert tree.folders() == ["a"]
    assert tree.folders("a") == ["b"]
    assert tree.files(["a/1.bin", "a/9.bin"]).keys() == {"a/1.bin"}
    with pytest.raises(FileNotFoundError):
        tree.read("a/9.bin")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_may_hold_archives(tmp_path: Path, kind: str) -> None:
    packed(tmp_path / f"x.{kind}")
    tree = SourceTree(str(tmp_path))
    members = [file.path for file in tree.members(f"x.{kind}")]
    assert members == [f"x.{kind}//{name}" for name in sorted(CONTENTS)]
    assert [tree.read(path) for path in members] == [CONTENTS[name] for name in sorted(CONTENTS)]
    # What follows says which part of a recording is meant.
    assert tree.read(f"x.{kind}//a/1.bin//#0+10:1") == b"one"


def test_a_compressed_tar_is_unpacked_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "x.tar.gz")
    assert SourceTree(str(path)).read("a/1.bin") == b"one"
    archives._opened.cache_clear()  # as in another process
    monkeypatch.setattr(archives, "_unpack", lambda *_: pytest.fail("it was unpacked again"))
    assert SourceTree(str(path)).read("a/1.bin") == b"one"
    archives._opened.cache_clear()
    monkeypatch.undo()
    monkeypatch.setenv("MELMILL_CACHE", str(cache))
    shutil.rmtree(cache)
    assert SourceTree(str(path)).read("a/1.bin") == b"one"


@pytest.mark.parametrize("kind", KINDS)
def test_another_archive_of_the_name_is_read_anew(tmp_path: Path, kind: str) -> None:
    path = packed(tmp_path / f"x.{kind}")
    assert SourceTree(str(path)).read("a/1.bin") == b"one"
    packed(path, {"a/1.bin": b"two", "more.txt": b"!"})
    os.utime(path, ns=(1, 1))
    assert SourceTree(str(path)).read("a/1.bin") == b"two"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path, kind: str, share: float, cache: Path) -> None:
    path = packed(tmp_path / f"x.{kind}")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    if kind == "tar" and share == 0.97:
        path.write_bytes(data[:-10240].rstrip(b"\0"))
    with pytest.raises(SourceError, match=rf"the archive {path} is cut off or damaged \(.*\): fetch it again"):
        list(SourceTree(str(path)).walk())
    assert not list(cache.glob("archives/*.part"))


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    for name in ("x.tar", "x.tar.gz", "x.zip", "x.tar.zst"):
        (tmp_path / name).write_bytes(b"<html>404</html>" * 100)
        with pytest.raises(SourceError, match="is cut off or damaged"):
            list(SourceTree(str(tmp_path / name)).walk())


def test_members_that_lead_out_are_passed_over(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", {"../evil": b"1", "/etc/evil": b"2", "a//b": b"3", "good": b"4"})
    files = list(SourceTree(str(path)).walk())
    assert [file.path for file in files if not file.problem] == ["good"]
    assert {file.problem for file in files if file.problem} == {
        "name that leads out of the archive, or is no plain path"
    }
    with pytest.raises(FileNotFoundError):
        SourceTree(str(tmp_path)).read("x.zip//../evil")


def test_links_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    (tmp_path / "link.bin").symlink_to("a.bin")
    os.link(tmp_path / "a.bin", tmp_path / "hard.bin")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.bin", "hard.bin", "link.bin"):
            tar.add(tmp_path / name, name)
    tree = SourceTree(str(tmp_path / "x.tar"))
    assert [file.path for file in tree.walk() if not file.problem] == ["a.bin", "hard.bin"]
    assert tree.read("hard.bin") == b"a"
    assert [file.path for file in tree.walk() if file.problem] == ["link.bin"]


def test_a_damaged_member_of_a_zip_is_that_members_fault(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip")
    data = bytearray(path.read_bytes())
    data[data.find(CONTENTS["a/b/2.bin"][:8]) + 100] ^= 255
    path.write_bytes(bytes(data))
    tree = SourceTree(str(path))
    assert tree.read("a/1.bin") == b"one"
    with pytest.raises(OSError, match="the member is damaged or can't be unpacked"):
        tree.read("a/b/2.bin")


def test_forked_processes_read_a_zip_side_by_side(tmp_path: Path) -> None:
    """They would share the place in the file that the first one opened, and read each other's bytes."""
    contents = {f"{i}.bin": np.random.default_rng(i).bytes(300_000) for i in range(2)}
    tree = SourceTree(str(packed(tmp_path / "x.zip", contents)))
    assert tree.read("0.bin") == contents["0.bin"]
    children = []
    for i in range(2):
        pid = os.fork()
        if not pid:
            try:
                os._exit(int(any(tree.read(f"{i}.bin") != contents[f"{i}.bin"] for _ in range(300))))
            finally:
                os._exit(2)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]


def test_what_a_killed_process_unpacked_is_removed(tmp_path: Path, cache: Path) -> None:
    path = packed(tmp_path / "x.tar.gz")
    list(SourceTree(str(path)).walk())
    (tar,) = cache.glob("archives/*.tar")
    tar.rename(tar.with_suffix(".4711.part"))
    archives._opened.cache_clear()
    assert SourceTree(str(path)).read("a/1.bin") == b"one"
    assert not list(cache.glob("archives/*.part"))


def test_without_room_it_says_so(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "x.tar.gz")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        SourceError, match=rf"there is no room to unpack {path} in {cache}/archives, after 0.0 GB: free some"
    ):
        list(SourceTree(str(path)).walk())
    assert not [one for one in cache.rglob("*") if one.suffix in (".tar", ".part")]


def test_processes_unpack_an_archive_once(tmp_path: Path, cache: Path) -> None:
    path = packed(tmp_path / "x.tar.gz")
    script = f"from melmill.storage.files.sources import SourceTree; print(SourceTree({str(path)!r}).read('a/1.bin'))"
    some = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(3)]
    assert [one.communicate()[0] for one in some] == [b"b'one'\n"] * 3
    assert len(list(cache.glob("archives/*.tar"))) == 1
