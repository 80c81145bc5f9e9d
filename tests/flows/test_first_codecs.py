"""A store of the version that knew Blosc alone: read, verified, extended and mended in its own codecs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

import melmill
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.presets import preset
from melmill.storage.store import Store
from melmill.storage.verify import repair, verify

ROOT = Path(__file__).parents[2]
SAVED = ROOT / "tests" / "data" / "first_codecs"
FOLDERS = ("speech", "mel", "half")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Return a folder with the store, its corpus and its pipeline."""
    shutil.copytree(SAVED, tmp_path / "first", copy_function=shutil.copy2)
    return tmp_path / "first"


def run(first: Path) -> dict[str, Any]:
    summary = melmill.run(
        first / "pipeline.yaml",
        set={"speech.root": str(first / "LibriSpeech")},
        store=str(first / "store"),
        executor="serial",
    )
    return summary.as_dict()


def stored(first: Path, part: str = "data/c") -> dict[str, bytes]:
    """Return the files of data by their names in the store."""
    found = [path for path in (first / "store").rglob("*") if path.is_file()]
    names = {str(path.relative_to(first / "store")): path for path in found}
    return {name: path.read_bytes() for name, path in names.items() if part in name}


def mark(first: Path) -> int:
    return int(json.loads((first / "store" / "melmill.json").read_text())["format"])


def codecs(first: Path) -> dict[str, str]:
    """Return what the metadata of each folder say of their codecs."""
    paths = (first / "store").glob("*/*/data/zarr.json")
    return {path.parents[2].name: json.dumps(json.loads(path.read_text())["codecs"]) for path in paths}


def test_what_is_stored_is_read(first: Path) -> None:
    store = melmill.open(str(first / "store"))
    for path in sorted((first / "LibriSpeech").rglob("*.flac")):
        y, _ = soundfile.read(path, dtype="int16")
        np.testing.assert_array_equal(store["speech"][path.stem], y)
        np.testing.assert_allclose(store["mel"][path.stem], mel_spectrogram(y, preset("paper")), atol=1e-6)
        assert store["half"][path.stem].dtype == np.float16
        folder, shard = store["half"].folder, store["half"].catalogue.shard(0)
        for name, M in folder.read_arrays(shard).items():
            np.testing.assert_array_equal(store["half"][name], M)
    assert verify(Store.open(str(first / "store"))) == []


def test_nothing_is_computed_again(first: Path) -> None:
    before = stored(first, "")
    assert run(first)["tasks"]["run"] == 0
    after = stored(first, "")
    assert {name: after[name] for name in before} == before
    assert mark(first) == 1


def test_it_grows_in_its_own_codecs(first: Path) -> None:
    before = stored(first)
    folder = first / "LibriSpeech/dev-clean/1/2"
    y, sr = soundfile.read(folder / "1-2-0000.flac", dtype="int16")
    soundfile.write(folder / "1-2-0004.flac", y[::-1], sr, subtype="PCM_16")
    (folder / "1-2.trans.txt").open("a").write("1-2-0004 A WORD\n")
    assert run(first)["tasks"]["run"] == 3
    assert {name: data for name, data in stored(first).items() if name in before} == before
    assert all("blosc" in chain and "melmill" not in chain for chain in codecs(first).values())
    assert mark(first) == 1
    np.testing.assert_array_equal(melmill.open(str(first / "store"))["speech"]["1-2-0004"], y[::-1])
    assert verify(Store.open(str(first / "store"))) == []


def test_new_products_beside_it_take_the_new_codecs(first: Path) -> None:
    before = stored(first)
    pipeline = yaml.safe_load((first / "pipeline.yaml").read_text())
    pipeline["stages"]["other"] = {"uses": "extract", "from": "speech", "preset": "tacotron2", "dtype": "float16"}
    pipeline["stages"]["floats"] = {"uses": "extract", "from": "speech", "preset": "tacotron2"}
    (first / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    assert run(first)["tasks"]["run"] == 6
    assert {name: data for name, data in stored(first).items() if name in before} == before
    chains = codecs(first)
    assert "melmill.mel" in chains.pop("other")
    assert "lz4" in chains.pop("floats")
    assert all("melmill" not in chain and "zstd" in chain for chain in chains.values())
    # A melmill that knows none of them must refuse the store.
    assert mark(first) == 4
    store = melmill.open(str(first / "store"))
    assert store["other"]["1-2-0002"].dtype == np.float16


@pytest.mark.parametrize("lost", ["data/c/1*", "records/000001.json", "node.json", "data/zarr.json"])
def test_what_is_lost_is_made_anew_to_the_byte(first: Path, lost: str) -> None:
    """Also where the description is lost, which says what the codecs are: the array's metadata say so too."""
    before = {name: data for name, data in stored(first, "").items() if "runs/" not in name}
    for folder in FOLDERS:
        (one,) = (first / "store" / folder).glob("*")
        for path in [*one.glob(lost)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    repair(Store.open(str(first / "store")), verify(Store.open(str(first / "store"))))
    run(first)
    after = stored(first, "")
    # Records hold times, packs hold records.
    names = {name for name in before if "records/" not in name}
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    assert verify(Store.open(str(first / "store"))) == []
    assert mark(first) == 1


def test_a_killed_run_goes_on_in_the_old_codecs(first: Path) -> None:
    before = stored(first)
    for path in (first / "store").glob("*/*/records/*.json"):
        path.unlink()
    for path in (first / "store").glob("*/*/data/c/*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    places = ["--set", f"speech.root={first / 'LibriSpeech'}", "--store", str(first / "store")]
    victim = subprocess.Popen(
        [sys.executable, "-m", "melmill", "run", str(first / "pipeline.yaml"), *places, "--executor", "serial"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list((first / "store").glob("*/*/records/*.json"))) < 2:
        assert victim.poll() is None
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    run(first)
    # A file that was being written counts for nothing.
    assert {name: data for name, data in stored(first).items() if not name.endswith(".writing")} == before
