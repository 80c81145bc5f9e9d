"""Files of the numbers of bands, in the forms in which recipes keep them."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import melmill
from melmill.stages.extract.stage import Extract
from melmill.stages.formats.statistics import read_statistics
from melmill.stages.numeric.errors import ParameterError, Unusable

MEAN, STD = np.linspace(-4, -1, 80), np.linspace(0.5, 2, 80)


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


COUNT = 100.0
FILES = {
    "stats.npy": npy(np.stack([MEAN, STD])),
    "scale_stats.npy": npy({"mel_mean": MEAN, "mel_std": STD, "audio_config": {"sample_rate": 22050}}),
    "gcmvn_stats.npz": npz(mean=MEAN, std=STD),
    "feats_stats.npz": npz(count=COUNT, sum=MEAN * COUNT, sum_square=(STD**2 + MEAN**2) * COUNT),
    "bounds.json": json.dumps({"spec_min": list(MEAN - STD), "spec_max": list(MEAN + STD)}).encode(),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_recipes_are_read(name: str) -> None:
    mean, std = read_statistics(name, FILES[name])
    assert mean is not None
    assert std is not None
    np.testing.assert_allclose(mean, MEAN)
    np.testing.assert_allclose(std, STD)


class Evil:
    """Pickle as a call that must never be made."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('unpickled')",)


BAD = [
    ("stats.npy", npy(np.zeros(80)), r"its shape is \(80,\)"),
    ("stats.npy", b"", "expected a mean and a deviation"),
    ("stats.npz", npz(foo=MEAN), "it holds 'foo'"),
    ("stats.npz", b"PK", "expected a mean and a deviation"),
    ("stats.wav", b"RIFF", "its suffix is .wav"),
    ("stats.json", b"[1, 2]", "it holds a list"),
    ("stats.json", b'{"mean": [NaN], "std": [1]}', "1 numbers of 'mean' are not finite"),
    ("stats.npy", npy({"mel_mean": Evil()}), "holds no numbers|expected"),
]


@pytest.mark.parametrize(("name", "data", "message"), BAD)
def test_other_files_are_refused(name: str, data: bytes, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        read_statistics(name, data)


def test_a_stage_has_the_numbers_and_not_the_name(tmp_path: Path) -> None:
    for name in ("stats.npy", "gcmvn_stats.npz"):
        (tmp_path / name).write_bytes(FILES[name])
    stages = [
        Extract(preset="parallel_wavegan_stats", stats=str(tmp_path / name))
        for name in FILES
        if (tmp_path / name).exists()
    ]
    assert stages[0].identity() == stages[1].identity()
    assert stages[0].spec == melmill.preset("parallel_wavegan").normalised(MEAN, STD)
    assert melmill.preset("parallel_wavegan_stats", stats=tmp_path / "stats.npy") == stages[0].spec
    (tmp_path / "stats.npy").unlink()
    assert pickle.loads(pickle.dumps(stages[0])).spec == stages[0].spec  # a worker reads no file


def test_missing_numbers_and_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="stats is missing: the mels of 'coqui_stats' are normalised"):
        Extract(preset="coqui_stats")
    with pytest.raises(ParameterError, match="must be a file that exists"):
        Extract(preset="coqui_stats", stats=str(tmp_path / "no.npy"))
    (tmp_path / "few.npy").write_bytes(npy(np.ones((2, 3))))
    with pytest.raises(ParameterError, match="one number for each of 80 bands, got 3"):
        Extract(preset="coqui_stats", stats=str(tmp_path / "few.npy"))
    with pytest.raises(ParameterError, match="excludes stats"):
        Extract(preset="coqui_stats", stats=str(tmp_path / "few.npy"), band_mean=tuple(MEAN))
