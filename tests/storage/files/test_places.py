"""Paths and URLs mean what people write, wherever they are given."""

from __future__ import annotations

from pathlib import Path

import pytest

import melmill
from melmill.storage.errors import SourceError, StoreError
from melmill.storage.files.location import Location, folder_and_name
from melmill.storage.files.places import read_place
from melmill.storage.files.sources import SourceTree


def test_home_is_expanded_in_every_kind_of_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    home = str(tmp_path)
    assert Location("~/x").url == Location("file://~/x").url == f"{home}/x"
    assert SourceTree("~").url == home
    assert folder_and_name("~/a.npy") == (Location(home), "a.npy")
    with pytest.raises(StoreError, match=f"{home}/runs is not a store"):
        melmill.open("~/runs")
    with pytest.raises(melmill.PipelineError, match=f"'{home}/p.yaml' can't be read"):
        melmill.run("~/p.yaml")
    with pytest.raises(melmill.VocoderError, match=f"{home}/voc.pt"):
        melmill.load_vocoder("~/voc.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "must be a path or URL, got ''"),
        ("a\0b", r"must hold no control characters and be UTF-8, got 'a\\x00b'"),
        ("caf\udce9", "be UTF-8"),
        ("s3:/bucket", "write s3://bucket"),
        ("s4://bucket", r"unknown scheme 's4' \(did you mean s3://\?"),
        ("qqqqqq://bucket", r"unknown scheme 'qqqqqq' \(known: file, s3, gs, az"),
        ("a b://bucket", "unknown scheme 'a b'"),
        ("~nobody-of-this-name", "unknown user"),
    ],
)
def test_what_is_no_place_is_refused_wherever_it_is_given(place: str, message: str) -> None:
    for use in (Location, melmill.open, melmill.load_vocoder, folder_and_name, melmill.torch_dataset):
        with pytest.raises(melmill.Error, match=message):
            use(place)
    with pytest.raises(SourceError, match=f"no corpus at .*{message}"):
        SourceTree(place)


def test_a_url_that_its_file_system_cannot_take_is_refused() -> None:
    with pytest.raises(SourceError, match="no corpus at data://x"):
        list(SourceTree("data://x").walk())
    with pytest.raises(StoreError, match="can't read data://x"):
        melmill.open("data://x")


@pytest.mark.parametrize(
    "place", ["runs/a b#?%20", "/data/ü", "./~x", "c:x", "x~", "memory://a/~", "simplecache::s3://b/x"]
)
def test_other_places_stay_as_written(place: str) -> None:
    assert read_place(place) == place


def test_a_place_is_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for place in ("a #?%20ü/", "./a #?%20ü", f"file://{tmp_path}/a #?%20ü", f"{tmp_path}//a #?%20ü/"):
        assert Location(place).url == SourceTree(place).url == f"{tmp_path}/a #?%20ü"
    assert Location("link/x").url == f"{tmp_path}/link/x"
    assert Location("S3://bucket/x/").url == "s3://bucket/x"
    assert not Location("file://x").is_remote
