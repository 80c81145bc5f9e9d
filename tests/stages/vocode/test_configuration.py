"""Configurations as plain data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.companions import parse, read_stats


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("config.json", '{"fmax": null, "upsample_rates": [8, 8]}', {"fmax": None, "upsample_rates": [8, 8]}),
        # Numbers that YAML 1.1 takes for text.
        ("c.yml", "lr: 1e-4\nn: 6E1\nz: -1e+3\n", {"lr": 1e-4, "n": 60.0, "z": -1000.0}),
        ("c.yml", "v: 1.0.0\nh: 1e\n", {"v": "1.0.0", "h": "1e"}),
        # One mapping over several documents.
        ("c.yaml", "a: 1\n---\nb: 2\n---\na: 3\n", {"a": 3, "b": 2}),
        # Tags are nothing but their plain values.
        ("args.yml", "!!python/object:argparse.Namespace\nngf: 32\npath: null\n", {"ngf": 32, "path": None}),
        (
            "c.yml",
            "d: !!python/tuple [1, 2]\nh: !mine {x: [1]}\ns: !x text",
            {"d": [1, 2], "h": {"x": [1]}, "s": "text"},
        ),
    ],
)
def test_settings_are_plain(name: str, text: str, settings: dict[str, object]) -> None:
    assert parse(name, text.encode()) == settings


def test_no_tag_runs_anything(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    found = parse("args.yml", f"a: !!python/object/apply:os.mkdir ['{trace}']\nb: !!python/name:os.mkdir ''")
    assert found == {"a": [str(trace)], "b": ""}
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("config.json", b"{'a': 1}", r"config.json: can't be read as JSON: Expecting property name"),
        ("config.yaml", b"a: [1", r"config.yaml: can't be read as YAML: while parsing"),
        ("config.yaml", b"\xff\xfe\x00", r"config.yaml: can't be read as YAML: 'utf-8'"),
        ("config.json", b"[1]", r"config.json: expected a mapping of settings, got list"),
        ("config.json", b"[" * 100_000, r"config.json: can't be read as JSON: maximum recursion depth"),
        ("config.yaml", b"[" * 2000, r"config.yaml: can't be read as YAML: "),
        ("config.json", b'{"n": ' + b"9" * 5000 + b"}", r"config.json: can't be read as JSON: Exceeds the limit"),
        ("config.yaml", b"a: !!bool x", r"config.yaml: can't be read as YAML: 'x'"),
        ("config.yaml", b"a: 2020-13-45", r"config.yaml: can't be read as YAML: month must be in 1..12"),
        ("config.yml", b"just text", r"config.yml: expected a mapping of settings, got str"),
    ],
)
def test_what_is_no_configuration_is_named(name: str, data: bytes, message: str) -> None:
    with pytest.raises(VocoderError, match=message):
        parse(name, data)


def saved(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def test_stats_of_numpy() -> None:
    found = read_stats("stats.npy", saved(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])))
    assert found["mean"].tolist() == [1.0, 2.0, 3.0]
    assert found["scale"].tolist() == [4.0, 5.0, 6.0]


def test_stats_of_hdf5() -> None:
    h5py = pytest.importorskip("h5py")
    file = io.BytesIO()
    with h5py.File(file, "w") as stats:
        stats["mean"], stats["scale"] = [1.0, 2.0], [3.0, 4.0]
    found = read_stats("stats.h5", file.getvalue())
    assert (found["mean"].tolist(), found["scale"].tolist()) == ([1.0, 2.0], [3.0, 4.0])


@pytest.mark.parametrize(
    ("name", "data"),
    [("stats.npy", b"\x93NUMPY"), ("stats.npy", saved([1.0, 2.0, 3.0])), ("stats.npy", saved([[None]]))],
)
def test_what_is_no_stats_is_named(name: str, data: bytes) -> None:
    with pytest.raises(VocoderError, match=r"stats.npy: expected a mean and a scale \(.npy of shape \(2, n_mels\)"):
        read_stats(name, data)
