"""The codecs in Zarr: found by their names, strict about their arrays, and damage is seen."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.registry import get_codec_class

from melmill.storage.arrays import ArraySpec, decode, encode, metadata, shard_files, stored_codecs
from melmill.storage.catalogue import Catalogue
from melmill.storage.codecs.registered import FlacCodec, MelCodec
from melmill.storage.errors import DamagedData, StoreError

ROOT = Path(__file__).parents[3]
HALF = ArraySpec(dtype="float16", sr=16000, n_mels=8, n_fft=1024, hop_length=256, pad=512)
PCM = ArraySpec(dtype="int16", sr=16000)
FLOAT = ArraySpec(dtype="float32", sr=16000, n_mels=8, n_fft=1024, hop_length=256, pad=512)
SLOT_S = 4.0

READER = """
import sys, zarr
assert "melmill" not in sys.modules
{imports}
array = zarr.open_array(sys.argv[1], mode="r")
print(array.dtype, int(array[3]), int(array[999]))
"""


@pytest.mark.parametrize("codec", [FlacCodec, MelCodec])
def test_entry_points_name_the_codecs(codec: type[FlacCodec] | type[MelCodec]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    module, name = settings["project"]["entry-points"]["zarr.codecs"][codec.name].split(":")
    assert getattr(import_module(module), name) is codec
    assert get_codec_class(codec.name) is codec


def test_zarr_reads_a_waveform_without_melmills_reader(tmp_path: Path) -> None:
    y = np.arange(1000, dtype=np.int16)
    array = zarr.create_array(
        tmp_path / "a", shape=(1000,), chunks=(1000,), dtype="int16", serializer=FlacCodec(sample_rate=8000)
    )
    array[...] = y
    reader = READER.format(imports="import melmill.storage.codecs.registered\nassert 'numba' not in sys.modules")
    done = subprocess.run(
        [sys.executable, "-c", reader, str(tmp_path / "a")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "int16 3 999\n"


@pytest.mark.parametrize("sample_rate", [0, 1 << 20, "16000"])
def test_rates_that_flac_can_not_state_are_refused(sample_rate: Any) -> None:
    with pytest.raises(ValueError, match=r"melmill.flac.*sample_rate must be a number from 1 to 1048575, got"):
        FlacCodec(sample_rate=sample_rate)


@pytest.mark.parametrize(
    ("codec", "dtype", "shape"),
    [(FlacCodec(), "int32", (10,)), (FlacCodec(), "int16", (10, 2)), (MelCodec(), "float32", (10, 2))],
)
def test_arrays_of_another_kind_are_refused(codec: Any, dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"codec '{codec.name}': the array has dtype '{dtype}' .* expected"):
        zarr.create_array({}, shape=shape, chunks=shape, dtype=dtype, serializer=codec, compressors=[Crc32cCodec()])


@pytest.mark.parametrize("spec", [PCM, HALF, FLOAT], ids=["pcm", "mel", "float"])
@pytest.mark.parametrize("codecs", [1, 3])
def test_a_flipped_bit_is_seen(
    spec: ArraySpec,
    codecs: int,
    catalogue: Catalogue,
    arrays: Callable[..., dict[str, NDArray[Any]]],
) -> None:
    spec = ArraySpec.from_dict({**spec.as_dict(), "codecs": codecs})
    shard, slot_length = catalogue.shard(0), spec.slot_length(SLOT_S)
    files = encode(spec, slot_length, shard, arrays(spec, shard))
    ids = [one.utterance_id for one in shard.utterances]
    (name,) = shard_files(spec, shard)
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(files[name])
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(DamagedData, match="here: can't be decoded"):
            decode(spec, slot_length, shard, {name: bytes(data)}, ids, "here")
    for cut in (1, len(files[name]) // 2, len(files[name]) - 1):
        with pytest.raises(DamagedData, match="here: can't be decoded"):
            decode(spec, slot_length, shard, {name: files[name][:cut]}, ids, "here")


def test_versions_of_codecs() -> None:
    # Each version changed some types, and others keep the one before.
    assert (PCM.codecs, HALF.codecs) == (2, 2)
    others: list[dict[str, Any]] = [{"dtype": "float32", "n_mels": 8}, {"dtype": "float32"}, {"dtype": "float16"}]
    assert [ArraySpec(sr=16000, **other).codecs for other in others] == [3, 3, 3]
    assert [ArraySpec(sr=16000, codecs=2, **other).codecs for other in others] == [1, 1, 1]
    first = ArraySpec(dtype="int16", sr=16000, codecs=1)
    for spec in (PCM, HALF, first, *(ArraySpec(sr=16000, **other) for other in others)):
        assert ArraySpec.from_dict(spec.as_dict()) == spec
        assert stored_codecs(metadata(spec, spec.slot_length(SLOT_S), 1)) == spec.codecs
    assert "codecs" not in first.as_dict()
    with pytest.raises(StoreError, match="codecs must be a version from 1 to 3, got 4"):
        ArraySpec(dtype="int16", sr=16000, codecs=4)
