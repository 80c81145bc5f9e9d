"""The files of a corpus are listed in order and read, and never those outside the root."""

from __future__ import annotations

import errno
import os
import pickle
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import fsspec
import pytest

from melmill.storage.errors import SourceError, StoreError
from melmill.storage.files.location import Location
from melmill.storage.files.sources import SourceTree
from tests.objects.proxy import Proxy

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


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_an_archive_elsewhere_than_on_a_disk_is_refused(request: pytest.FixtureRequest, kind: str) -> None:
    if kind == "s3":
        root = f"{request.getfixturevalue('bucket')}/corpus.tar.gz"
        Location(root.rpartition("/")[0]).put("corpus.tar.gz", b"x")
    else:
        root = f"memory://{uuid.uuid4().hex}.zip"
        fsspec.filesystem("memory").pipe_file(root.removeprefix("memory:/"), b"x")
    with pytest.raises(SourceError, match=rf"no corpus at {root}: an archive is read on a local disk only, so copy it"):
        list(SourceTree(root).walk())


@pytest.mark.parametrize("path", ["x" * 300, "a\0b", "a.txt/b", "nothing"])
def test_names_that_no_file_has_are_of_none(tree: SourceTree, path: str) -> None:
    assert tree.files([path, "a.txt"]).keys() == {"a.txt"}


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


def listed(root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the paths of the files that can be taken, and what is wrong with others."""
    files = list(SourceTree(str(root)).walk())
    return [file.path for file in files if not file.problem], {
        file.path: file.problem for file in files if file.problem
    }


def test_names_of_any_characters_are_taken(tmp_path: Path) -> None:
    names = [
        "a\nb",
        "a\tb",
        "\x1b[31m",
        "#%?*[x]",
        "CON",
        "~",
        "$HOME",
        "a\\b",
        " ",
        "x ",
        "e\u0301",
        "é",
        "A",
        "n" * 255,
    ]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    tree = SourceTree(str(tmp_path))
    assert {file.path: tree.read(file.path) for file in tree.walk()} == {name: name.encode() for name in names}
    assert SourceTree(f"file://{tmp_path}").read("#%?*[x]") == b"#%?*[x]"


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "to_pipe.wav").symlink_to("pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "there").symlink_to("back")
    (tmp_path / "back").symlink_to("there")
    with socket.socket(socket.AF_UNIX) as sock, chdir(tmp_path):
        sock.bind("socket.wav")
    (tmp_path / "good.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    taken, problems = listed(tmp_path)
    assert taken == ["good.wav"]
    loop = "link that can't be followed (Too many levels of symbolic links)"
    assert problems == {
        "pipe.wav": "named pipe",
        "to_pipe.wav": "named pipe",
        "zero.wav": "device",
        "socket.wav": "socket",
        **dict.fromkeys(("loop.wav", "there", "back"), loop),
    }
    tree = SourceTree(str(tmp_path))
    for name, kind in (("pipe.wav", "a named pipe"), ("zero.wav", "a device"), ("folder.wav", "")):
        with pytest.raises(OSError, match=f"it is {kind}, not a file" if kind else "Is a directory"):
            tree.read(name)


def test_names_that_are_not_utf_8_are_named(tmp_path: Path) -> None:
    for name in (b"caf\xe9.wav", b"d\xe9/x.wav"):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "café.wav").touch()
    taken, problems = listed(tmp_path)
    assert taken == ["café.wav"]
    assert problems == dict.fromkeys(("caf\\xe9.wav", "d\\xe9/x.wav"), "name that is not UTF-8 (rename it)")


@pytest.fixture
def emptied(tmp_path: Path) -> Iterator[Path]:
    """Return a folder whose content is removed by a program that has no limit on depth."""
    yield tmp_path
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def test_folders_are_followed_to_any_depth(emptied: Path) -> None:
    tmp_path, deep = emptied, "/".join("d" * 1500)
    with chdir(tmp_path):
        for name in deep.split("/"):
            Path(name).mkdir()
            os.chdir(name)
        Path("x.wav").touch()
    assert listed(tmp_path) == ([f"{deep}/x.wav"], {})
    with chdir(tmp_path / "d"):
        for _ in range(20):
            Path("e" * 250).mkdir()
            os.chdir("e" * 250)
    ((path, problem),) = listed(tmp_path)[1].items()
    assert path.startswith("d/eee")
    assert problem == "folder that can't be listed (File name too long)"


@pytest.mark.parametrize(("number", "mended"), [(errno.EACCES, True), (errno.EIO, False)])
def test_a_folder_without_permission_is_named_and_a_sick_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, mended: bool
) -> None:
    for name in ("a/x.wav", "b/y.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scandir = os.scandir

    def scan(path: str) -> Any:
        if path.endswith("/a"):
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    if mended:
        assert listed(tmp_path) == (["b/y.wav"], {"a/": "folder that can't be listed (Permission denied)"})
    else:
        with pytest.raises(SourceError, match=r"can't list .*/a: Input/output error"):
            listed(tmp_path)


def test_objects_of_odd_keys_are_read(bucket: str, proxy: Proxy) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=proxy.url)
    keys = [
        "x/a b#?%20&+=.wav",
        "x/%2F.wav",
        "x/ü.wav",
        "x/u\u0308.wav",
        "x/[1]*.wav",
        "x/😀.wav",
        "x/~.wav",
        "x/a .wav ",
    ]
    for key in keys:
        client.put_object(Bucket=bucket[5:], Key=key, Body=key.encode())
    tree = SourceTree(f"{bucket}/x")
    assert {f"x/{file.path}": tree.read(file.path).decode() for file in tree.walk()} == {key: key for key in keys}


def test_many_files_are_listed_fast(tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / f"{folder}").mkdir()
        for i in range(250):
            (tmp_path / f"{folder}/{i}").touch()
    begin = time.perf_counter()
    assert sum(1 for _ in SourceTree(str(tmp_path)).walk()) == 5000
    # LibriSpeech has 300,000 files. A slow and busy machine lists them in a minute.
    assert time.perf_counter() - begin < 1.0


# Keys that S3 takes, and how a plan shows them.
IMPOSSIBLE = {
    "c/a//x.flac": "a//x.flac",
    "c//x.flac": "/x.flac",
    "c/a/../x.flac": "a/../x.flac",
    "c/./x.flac": "./x.flac",
    "c/a/y//": "a/y//",
    "c/bell\x07.flac": "bell\\x07.flac",
    "c/del\x7f.flac": "del\\x7f.flac",
}


def put_keys(bucket: str, proxy: Proxy, *keys: str) -> None:
    """Put objects that hold their keys, whatever these are."""
    import boto3

    client = boto3.client("s3", endpoint_url=proxy.url)
    for key in keys:
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=key.encode())


@pytest.mark.parametrize("key", IMPOSSIBLE)
def test_a_key_that_cannot_be_a_path_is_passed_over(bucket: str, proxy: Proxy, key: str) -> None:
    composed, decomposed = "caf\u00e9.flac", "cafe\u0301.flac"
    kept = ["a/x.flac", composed, decomposed, "100%2F.flac", "z.flac"]
    put_keys(bucket, proxy, key, *(f"c/{name}" for name in kept), "c/", "c/folder.flac/")
    tree = SourceTree(f"{bucket}/c")
    found = list(tree.walk())
    assert {file.path: file.problem for file in found if file.problem} == {
        IMPOSSIBLE[key]: "key that can't be a path: it has an empty part, '.', '..' or a control character "
        "(rename the object)"
    }
    read = {file.path: tree.read(file.path).decode() for file in found if not file.problem}
    assert read == {name: f"c/{name}" for name in kept}
    assert "a" in tree.folders()


def test_without_the_package_that_lists_all_keys_one_is_told(
    bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_keys(bucket, proxy, "c/a//x.flac", "c/z.flac")
    monkeypatch.setitem(sys.modules, "boto3", None)
    text = (
        f"can't list {bucket}/c: the key 'c/a//x.flac' of an object there can't be a path: it has an empty part, '.', "
        "'..' or a control character. Rename or remove that object. Or pip install boto3: then it is passed over."
    )
    with pytest.raises(StoreError, match=f"^{re.escape(text)}$"):
        list(SourceTree(f"{bucket}/c").walk())


def test_what_stands_for_a_folder_is_no_file(bucket: str, proxy: Proxy) -> None:
    """Consoles make empty objects whose keys end with a slash, which listings may leave out."""
    place = Location(bucket)
    place.put("c/x.flac", b"recording")
    place.put("c/empty.txt", b"")
    import boto3

    client = boto3.client("s3", endpoint_url=proxy.url)
    for key in ("c/", "c/folder.flac/", "c/x.flac/"):
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"")
    found = {file.path: file.size_bytes for file in SourceTree(f"{bucket}/c").walk()}
    assert found == {"empty.txt": 0, "x.flac": 9}
