"""Files are written once, whole or not at all, and failures give clear errors."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from melmill.storage.errors import AlreadyThere, StoreError, StoreFull, StoreUnwritable
from melmill.storage.files.location import Location

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["local", "memory", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Return an empty folder: on the disk, behind fsspec, and in an object store."""
    if request.param == "s3":
        return Location(f"{request.getfixturevalue('bucket')}/store")
    return Location(str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}/store")


def test_put_writes_once(location: Location) -> None:
    location.put("a/b.json", b"one")
    location.put("a/b.json", b"one")
    with pytest.raises(AlreadyThere, match=r"a/b.json exists and holds other bytes than the 3 to be stored"):
        location.put("a/b.json", b"two")
    assert location.read("a/b.json") == b"one"


def test_replace_and_remove(location: Location) -> None:
    location.replace("x", b"one")
    location.replace("x", b"three")
    assert (location.read("x"), location.size("x"), location.exists("x")) == (b"three", 5, True)
    location.remove("x")
    location.remove("x")
    assert (location.size("x"), location.exists("x")) == (None, False)
    with pytest.raises(FileNotFoundError):
        location.read("x")


def test_parts_of_files(location: Location) -> None:
    location.put("a/x", bytes(range(100)))
    assert location.read_range("a/x", 10, 13) == bytes([10, 11, 12])
    assert location.read_range("a/x", 98, 200) == bytes([98, 99])
    assert location.read_range("a/x", -3) == bytes([97, 98, 99])
    assert location.read_range("a/x", -300) == bytes(range(100))
    with pytest.raises(FileNotFoundError):
        location.read_range("a/y", 0, 1)


def test_names_of_fanned_out_nodes(location: Location) -> None:
    folder = location / "admm[n_iter=10,start=pghi]" / "k.1"
    folder.put("data/c/0/0", b"x")
    assert (folder / "data").tree() == {"c/0/0": 1}
    assert location.folders() == ["admm[n_iter=10,start=pghi]"]
    folder.remove("data/c/0/0")
    assert folder.tree() == {}


def test_listing(location: Location) -> None:
    for name, size in {"a": 1, "b": 20, "c/d": 3, "c/e/f": 0}.items():
        location.put(name, b"x" * size)
    assert location.sizes() == {"a": 1, "b": 20}
    assert location.tree() == {"a": 1, "b": 20, "c/d": 3, "c/e/f": 0}
    assert location.folders() == ["c"]
    nowhere = location / "nowhere"
    assert (nowhere.sizes(), nowhere.tree(), nowhere.folders()) == ({}, {}, [])


def test_equal_and_picklable(location: Location) -> None:
    location.put("a", b"x")
    assert pickle.loads(pickle.dumps(location)).read("a") == b"x"
    assert Location(location.url + "/") == location == (location / "b" / "c").__class__(location.url)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location("runs/x") == Location(str(tmp_path / "runs/x")) == Location(f"file://{tmp_path}/runs/x")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_names_stay_inside(location: Location, name: str) -> None:
    with pytest.raises(StoreError, match=r"it must be relative, without '\.\.'"):
        location.put(name, b"")


def test_unknown_file_systems_are_named() -> None:
    with pytest.raises(StoreError, match=r"unknown scheme 'nosuch' .*got 'nosuch://bucket'"):
        Location("nosuch://bucket").sizes()


def test_leftovers_are_not_data(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    location.put("c/0", b"x")
    (tmp_path / "c/.0123.writing").write_bytes(b"half")
    assert location.tree() == {"c/0": 1}
    assert (location / "c").sizes() == {"0": 1}
    assert location.leftovers() == ["c/.0123.writing"]


@pytest.mark.parametrize("location", ["local", "s3"], indirect=True)
def test_one_of_many_writers_wins(location: Location) -> None:
    def write(i: int) -> bool:
        try:
            location.put("x", bytes([i]) * 1000)
        except AlreadyThere:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(40)))
    assert sum(won) == 1
    assert location.read("x") == bytes([won.index(True)]) * 1000
    assert location.tree() == {"x": 1000}
    assert location.leftovers() == []


@pytest.mark.parametrize("location", ["local", "s3"], indirect=True)
def test_of_several_files_those_that_others_wrote_are_told(location: Location) -> None:
    location.put("a/0", b"same")
    location.put("b/0", b"other")
    assert location.put_all({"a/0": b"same", "b/0": b"ours", "c/1/0": b"new"}) == ["b/0"]
    assert {name: location.read(name) for name in location.tree()} == {"a/0": b"same", "b/0": b"other", "c/1/0": b"new"}
    assert location.put_all({}) == []
    assert location.leftovers() == []


def test_files_are_flushed_before_they_have_names_and_folders_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, flushed = os.fsync, []

    def observed(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        folder = path if path.is_dir() else path.parent
        # A folder is worth flushing once its new files have their names.
        names = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
        flushed.append((str(folder.relative_to(tmp_path)), path.is_dir(), names))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", observed)
    Location(str(tmp_path)).put_all({"a/0": b"x", "b/2/0": b"y"})
    assert sorted(flushed[:2]) == [("a", False, []), ("b/2", False, [])]
    assert sorted(flushed[2:]) == [
        (".", True, ["a", "b"]), ("a", True, ["0"]), ("b", True, ["2"]), ("b/2", True, ["0"]),
    ]  # fmt: skip


def test_more_files_than_a_process_may_open_are_written(tmp_path: Path) -> None:
    files = {f"data/c/{number}": str(number).encode() for number in range(600)}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
    try:
        assert Location(str(tmp_path)).put_all(files) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def _put_all(location: Location, name: str, data: bytes) -> None:
    location.put_all({"small": b"x", name: data})


@pytest.mark.parametrize("write", [Location.put, Location.replace, _put_all])
def test_a_full_disk_is_told_and_leaves_nothing(full_disk: Path, write: Callable[..., None]) -> None:
    location = Location(str(full_disk))
    location.put("kept", b"x")
    with pytest.raises(StoreFull, match=r"can't write .*big: No space left on device. Free some room"):
        write(location, "big", b"x" * 2_000_000)
    assert location.tree() == {"kept": 1}
    assert location.leftovers() == []


def test_a_file_size_limit_counts_as_full(tmp_path: Path) -> None:
    # In a child, because the limit holds for the whole process.
    code = f"""
import resource, signal
from melmill.storage.errors import StoreFull
from melmill.storage.files.location import Location
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
try:
    Location({str(tmp_path)!r}).put("big", b"x" * 2000)
except StoreFull as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "can't write" in done.stdout
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden files count


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system that can't be written, holding the file ``kept``."""
    (tmp_path / "kept").write_bytes(b"x")
    made = subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"can't mount: {made.stderr.decode().strip()}")
    subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda location: location.put("new", b"y"),
        lambda location: location.put("a/new", b"y"),
        lambda location: location.put_all({"new": b"y", "other": b"z"}),
        lambda location: location.replace("kept", b"y"),
        lambda location: location.remove("kept"),
        lambda location: (location / "a").make(),
    ],
    ids=["put", "put below", "put all", "replace", "remove", "make"],
)
def test_a_read_only_store_is_told(read_only: Path, change: Callable[[Location], None]) -> None:
    with pytest.raises(StoreUnwritable, match=r"can't \w+ .*: Read-only file system"):
        change(Location(str(read_only)))
    assert Location(str(read_only)).read("kept") == b"x"


def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    # In a child of the user nobody, because root may write anywhere.
    tmp_path.chmod(0o555)
    code = f"""
import os
from melmill.storage.files.location import Location
if os.getuid() == 0:
    os.setuid(65534)
try:
    Location({str(tmp_path)!r}).put("x", b"x")
except ValueError as error:
    print(type(error).__name__, error)
"""
    tmp_path.parent.chmod(0o755)
    tmp_path.parent.parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("StoreUnwritable can't write")
    assert os.strerror(errno.EACCES) in done.stdout


def test_a_file_system_without_links_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(link: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(link))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StoreUnwritable, match=r"the file system has no hard links, which safe writes need"):
        Location(str(tmp_path)).put("x", b"data")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - hidden files count


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StoreUnwritable, match=r"can't write .*a/b: "):
        Location(str(tmp_path)).put("a/b", b"x")
