"""Folders of exported files: files are whole or absent, and never replace those of others."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from melmill.storage.errors import StoreError
from melmill.storage.files.ledger import LEDGER, Exported, ExportFolder, Page
from melmill.storage.files.location import Location
from melmill.storage.records import StoredFile

ABOUT = {"node": "admm", "key": "k0", "format": "flac", "bits": 16}


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> ExportFolder:
    if request.param == "s3":
        return ExportFolder(Location(request.getfixturevalue("bucket")) / "out")
    url = str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"
    return ExportFolder(Location(url))


def exported(data: bytes) -> Exported:
    stored = StoredFile.of(data)
    return Exported(n_bytes=stored.n_bytes, sha256=stored.sha256, n_clipped=3)


def test_a_folder_is_of_one_export(folder: ExportFolder) -> None:
    folder.claim(ABOUT)
    folder.claim(dict(ABOUT))
    with pytest.raises(
        StoreError, match=r"holds another export \(key 'k0', not 'k1', bits 16, not 24\)\. Export to ano"
    ):
        folder.claim({**ABOUT, "key": "k1", "bits": 24})
    folder.location.replace(f"{LEDGER}/export.json", b"{")
    with pytest.raises(StoreError, match=r"export\.json can't be parsed"):
        folder.claim(ABOUT)


def test_the_ledger_remembers(folder: ExportFolder) -> None:
    assert folder.page("000000") == Page()
    page = Page(source="abc", files={"a/b.flac": exported(b"audio")})
    folder.write_page("000000", page)
    assert folder.page("000000") == page
    assert folder.page("000001") == Page()
    folder.location.replace(f"{LEDGER}/000000.json", b'{"files": 1}')
    assert folder.page("000000") == Page()


def test_a_file_is_whole_by_its_checksum(folder: ExportFolder) -> None:
    assert not folder.is_whole("a.flac", exported(b"audio"))
    assert folder.write("a.flac", b"audio", ours=False)
    assert folder.is_whole("a.flac", exported(b"audio"))
    for damaged in (b"audi", b"Audio", b""):
        folder.location.replace("a.flac", damaged)
        assert not folder.is_whole("a.flac", exported(b"audio"))


def test_what_somebody_else_put_there_is_left_alone(folder: ExportFolder) -> None:
    folder.location.replace("a.flac", b"a recording")
    with pytest.raises(StoreError, match=r"a\.flac exists and is not of this export, so it is left alone"):
        folder.write("a.flac", b"audio", ours=False)
    assert folder.location.read("a.flac") == b"a recording"
    assert not folder.write("a.flac", b"a recording", ours=False)
    assert folder.write("a.flac", b"audio", ours=True)
    assert folder.location.read("a.flac") == b"audio"


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path) -> None:
    folder = ExportFolder(Location(str(tmp_path)))
    (tmp_path / "a").mkdir()
    left = tmp_path / "a" / f".{uuid.uuid4().hex}.writing"
    others = [tmp_path / ".DS_Store", tmp_path / "a" / ".hidden.writing"]
    for path in (left, *others):
        path.write_bytes(b"x")
    folder.claim(ABOUT)
    assert not left.exists()
    assert all(path.exists() for path in others)
