"""FLAC streams of ours, read by libFLAC: nothing lost, the same bytes everywhere, damage seen."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from melmill.storage.codecs.flac import BLOCK, N_TAPS, encode_flac
from melmill.storage.codecs.pcm import decode_pcm, encode_pcm

ROOT = Path(__file__).parents[3]
Samples = NDArray[np.int16]


def speech_like(n_samples: int, scale: float = 3000.0) -> Samples:
    """Return noise with two resonances: whole numbers from whole numbers, the same on any machine."""
    noise = np.random.default_rng(0).integers(-500, 500, n_samples)
    y = [0, 0]
    for one in noise:
        y.append(int(one) + (y[-1] * 1800 - y[-2] * 950) // 1024)
    return (np.array(y[2:]) * scale / max(map(abs, y))).astype(np.int16)


def noise(n_samples: int) -> Samples:
    return np.random.default_rng(1).integers(-32768, 32768, n_samples).astype(np.int16)


def spikes(n_samples: int) -> Samples:
    """Return silence with two samples of full scale, whose Rice codes are long."""
    y = np.zeros(n_samples, dtype=np.int16)
    y[n_samples // 3], y[2 * n_samples // 3] = 32767, -32768
    return y


SHAPES = {
    "silence": np.zeros(3 * BLOCK, dtype=np.int16),
    "a constant": np.full(BLOCK + 5, -7, dtype=np.int16),
    "noise of full scale": noise(2 * BLOCK + 100),
    "the worst square wave": np.tile(np.array([32767, -32768], dtype=np.int16), BLOCK),
    "a square wave of full scale": np.repeat(np.tile(np.array([32767, -32768], dtype=np.int16), 40), 256),
    "spikes": spikes(2 * BLOCK),
    "speech, whole blocks": speech_like(4 * BLOCK),
    "speech, loud": speech_like(BLOCK, 32767.0),
    "speech, the last bit": speech_like(2 * BLOCK, 1.5),
    "a ramp": np.arange(-BLOCK, BLOCK, dtype=np.int16),
    "more than 127 blocks": np.tile(speech_like(BLOCK), 130),
    "more than 2047 blocks": np.zeros(2050 * BLOCK + 1, dtype=np.int16),
}


@pytest.mark.parametrize("y", SHAPES.values(), ids=SHAPES)
def test_libflac_reads_what_was_written(y: Samples) -> None:
    data = encode_flac(y, 22050)
    decoded, sr = soundfile.read(io.BytesIO(data), dtype="int16")
    assert sr == 22050
    np.testing.assert_array_equal(decoded, y)
    # A few bytes a block more than the samples, at most.
    assert len(data) <= y.nbytes + 42 + 24 * -(-len(y) // BLOCK)


@pytest.mark.parametrize("n", [1, 2, 7, N_TAPS, 15, 16, 17, 31, 32, 100, 4094, 4095, 4097, 8191, 8193, 12288])
def test_odd_lengths(n: int) -> None:
    for y in (speech_like(n), noise(n)):
        np.testing.assert_array_equal(decode_pcm(encode_pcm(y, 16000), n), y)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 9000),
    st.integers(0, 15),
    st.randoms(use_true_random=False),
    hnp.arrays(np.int16, st.integers(0, 40), elements=st.integers(-32768, 32767)),
)
def test_any_samples(n: int, bits: int, rng: Any, some: Samples) -> None:
    """Sums of noise of any level, with any samples at its beginning."""
    steps = np.random.default_rng(rng.randrange(2**32)).integers(-(2**bits), 2**bits, n)
    y: Samples = np.clip(np.cumsum(steps) if rng.random() < 0.5 else steps, -32768, 32767).astype(np.int16)
    y[: len(some)] = some[:n]
    np.testing.assert_array_equal(decode_pcm(encode_pcm(y, 16000), n), y)


def test_speech_takes_no_more_than_five_per_cent_more_than_libflac() -> None:
    y = speech_like(16 * BLOCK)
    file = io.BytesIO()
    soundfile.write(file, y, 16000, format="FLAC", subtype="PCM_16")
    assert len(encode_flac(y, 16000)) < 1.05 * len(file.getvalue())


def test_the_bytes_are_those_of_every_machine() -> None:
    """Fixed once: another compiler, processor or library must not change them."""
    digest = hashlib.sha256(encode_flac(speech_like(5 * BLOCK + 77), 16000)).hexdigest()
    assert digest == "8959221d907dae8e1197c51974a7c9df23cf2fd6ee68b36e9d5ed6cfa9f2c507"


def test_plain_x86_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/storage/codecs'); import hashlib, test_flac as t\n"
        "print(hashlib.sha256(t.encode_flac(t.speech_like(5 * t.BLOCK + 77), 16000)).hexdigest())"
    )
    env = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(encode_flac(speech_like(5 * BLOCK + 77), 16000)).hexdigest()


def test_another_number_of_samples_is_refused() -> None:
    with pytest.raises(ValueError, match=r"samples of shape \(100,\), expected \(99,\)"):
        decode_pcm(encode_pcm(speech_like(100), 16000), 99)


@pytest.mark.parametrize("data", [b"", b"fLaC", b"\0" * 1000])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(RuntimeError):
        decode_pcm(data, 100)
