"""A small corpus and a product of it, new for every test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.arrays import ArraySpec
from melmill.storage.catalogue import Catalogue
from melmill.storage.files.location import Location
from melmill.storage.product import Facts, ProductDescription, ProductFolder, ShardContents
from melmill.storage.store import Manifest, NodeEntry, Store
from melmill.storage.utterance import Shard, Utterance

SR = 16000
SHARD_DURATION_S = 4.0
MEL = ArraySpec(dtype="float32", sr=SR, n_mels=8, n_fft=1024, hop_length=256, pad=512)
PCM = ArraySpec(dtype="int16", sr=SR)
ALIGNED = MelSpec(n_mels=4, log="ln", floor=1e-5)


def _utterance(utterance_id: str, n_samples: int, **fields: Any) -> Utterance:
    facts: dict[str, Any] = {
        "subset": "dev",
        "speaker_id": utterance_id[0],
        "chapter_id": "1",
        "text": "A WORD",
        "path": f"dev/{utterance_id}.flac",
        "size_bytes": 2 * n_samples,
        "mtime_ns": 1,
        "source_sr": SR,
        "source_n_samples": n_samples,
        "sr": SR,
    }
    return Utterance(utterance_id=utterance_id, n_samples=n_samples, **facts | fields)


def _description(array: ArraySpec | None, **fields: Any) -> ProductDescription:
    facts: dict[str, Any] = {
        "node": "mel",
        "key": "k1",
        "kind": "mel" if array and array.n_mels else "waveform" if array else "scores",
        "stage": "extract",
        "version": 1,
        "parameters": {"preset": "paper", "clip": [0.0, 1.0]},
        "inputs": {"from": [("speech", "k0")]},
        "shard_duration_s": SHARD_DURATION_S,
        "catalogue": ("speech", "k0"),
        "array": array,
        "sr": SR,
    }
    return ProductDescription(**facts | fields)


def _arrays(spec: ArraySpec, shard: Shard, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng([seed, shard.index])
    values = {u.utterance_id: rng.uniform(-1.0, 1.0, spec.shape(u)) for u in shard.utterances}
    scale = 32767 if spec.dtype == "int16" else 1
    return {name: (scale * array).astype(spec.dtype) for name, array in values.items()}


def _ramp(n_samples: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Return a waveform whose values are the positions of its samples."""
    return (1 + np.arange(n_samples) // 8).astype(np.int16)


def _frames(n_samples: int) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Return a mel whose values are the numbers of its frames."""
    return np.tile(np.arange(1 + n_samples // MEL.hop_length, dtype=np.float16), (4, 1))


@pytest.fixture(scope="session")
def utterance() -> Callable[..., Utterance]:
    """Return a maker of utterances: ``utterance(id, n_samples, **fields)``."""
    return _utterance


@pytest.fixture(scope="session")
def describe() -> Callable[..., ProductDescription]:
    """Return a maker of descriptions: ``describe(array, **fields)``."""
    return _description


@pytest.fixture(scope="session")
def arrays() -> Callable[..., dict[str, NDArray[Any]]]:
    """Return a maker of random arrays: ``arrays(spec, shard, seed=0)``."""
    return _arrays


@pytest.fixture(scope="session")
def mel_spec() -> ArraySpec:
    """Return a layout of small mels."""
    return MEL


@pytest.fixture(scope="session")
def pcm_spec() -> ArraySpec:
    """Return a layout of 16-bit waveforms."""
    return PCM


@pytest.fixture(scope="session")
def facts() -> Facts:
    """Return the facts of an attempt."""
    return Facts(
        compute_s=1.5, started_at="2024-01-01T00:00:00+00:00", host="here", attempt=1, versions={"numpy": "2.0"}
    )


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Return twelve utterances of 0.5 to 3.2 s and one of 9 s in shards of 4 s."""
    short = [_utterance(f"{'abc'[i % 3]}-{i}", 8000 + 3601 * i) for i in range(12)]
    return Catalogue.empty(SR, SHARD_DURATION_S).extended([*short, _utterance("long", 9 * SR)])


@pytest.fixture
def folder(tmp_path: Path, catalogue: Catalogue) -> ProductFolder:
    """Return a prepared product of mels with no shard done."""
    made = ProductFolder(Location(str(tmp_path)) / "mel" / "k1")
    made.prepare(_description(MEL), catalogue.n_slots)
    return made


@pytest.fixture
def full(folder: ProductFolder, catalogue: Catalogue, facts: Facts) -> ProductFolder:
    """Return a product of mels with every shard done."""
    for index in range(catalogue.n_shards):
        shard = catalogue.shard(index)
        folder.commit(shard, ShardContents(arrays=_arrays(MEL, shard)), facts)
    return folder


def _aligned(path: Path, catalogue: Catalogue, facts: Facts) -> Store:
    made = Store.create(str(path), "test")
    pcm = ArraySpec(dtype="int16", sr=16000)
    mel = ArraySpec(dtype="float16", sr=16000, n_mels=4, n_fft=1024, hop_length=MEL.hop_length, pad=512)
    made.write_catalogue("speech", "k0", catalogue)
    folders = {"speech": made.product("speech", "k0"), "mel": made.product("mel", "k1")}
    folders["speech"].prepare(_description(pcm, node="speech", key="k0", kind="utterances"), catalogue.n_slots)
    folders["mel"].prepare(_description(mel, mel=ALIGNED.as_dict()), catalogue.n_slots)

    def both(shard: Shard) -> tuple[dict[str, Any], dict[str, Any]]:
        audio = {u.utterance_id: _ramp(u.n_samples) for u in shard.utterances}
        return audio, {name: _frames(len(y)) for name, y in audio.items()}

    for index in range(catalogue.n_shards):
        audio, mels = both(catalogue.shard(index))
        folders["speech"].commit(catalogue.shard(index), ShardContents(arrays=audio), facts)
        folders["mel"].commit(catalogue.shard(index), ShardContents(arrays=mels), facts)
    nodes = {
        name: NodeEntry(
            folder=name,
            key=folder.description.key,
            kind=folder.description.kind,
            stage="x",
            catalogues=(("speech", "k0"),),
        )
        for name, folder in folders.items()
    }
    made.publish_run("r1", Manifest(run_id="r1", project="test", started_at="2024", nodes=nodes))
    return made


@pytest.fixture
def aligned_store(tmp_path: Path, catalogue: Catalogue, facts: Facts) -> Store:
    """Return a store of audio and mels of one run, whose values are their positions."""
    return _aligned(tmp_path / "store", catalogue, facts)


@pytest.fixture(scope="session")
def aligned() -> Callable[..., Store]:
    """Return a maker of such stores: ``aligned(path, catalogue, facts)``."""
    return _aligned


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of one megabyte."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"can't mount a tmpfs: {made.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)
