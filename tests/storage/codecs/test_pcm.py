"""Waveforms from FLAC streams: whole and in parts, compiled or by libsndfile, with or without numba."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from melmill.storage.codecs import pcm
from melmill.storage.codecs.pcm import decode_pcm, encode_pcm

ROOT = Path(__file__).parents[3]
Y = np.round(8000 * np.sin(np.arange(30000) / 30)).astype(np.int16)

# Prints for each number of streams whether numba was imported to decode them.
LOADS = """
import sys
from melmill.storage.codecs.pcm import decode_pcm
data = open(sys.argv[1], "rb").read()
for n in range(1, 150):
    assert decode_pcm(data, 30000, slice(29000, None)).tolist() == list(range(1000))
    if "numba" in sys.modules:
        print(n)
        break
"""


def test_compiled_code_decodes_what_was_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        pytest.fail("libsndfile was asked")

    data = encode_pcm(Y, 16000)
    monkeypatch.setattr(soundfile, "read", refuse)
    assert np.array_equal(decode_pcm(data, len(Y)), Y)
    for part in (slice(0, 1), slice(5, 29999), slice(12000, 13000), slice(29000, None)):
        assert np.array_equal(decode_pcm(data, len(Y), part), Y[part])


def test_an_empty_part_is_empty() -> None:
    assert decode_pcm(encode_pcm(Y, 16000), len(Y), slice(7, 7)).shape == (0,)


def test_libsndfile_decodes_streams_of_other_kinds() -> None:
    file = io.BytesIO()
    soundfile.write(file, Y, 16000, format="FLAC", subtype="PCM_S8")
    low = decode_pcm(file.getvalue(), len(Y))
    assert np.abs(low - Y).max() <= 256
    assert np.array_equal(decode_pcm(file.getvalue(), len(Y), slice(100, 200)), low[100:200])


def test_damage_is_left_to_libsndfile_and_told() -> None:
    data = bytearray(encode_pcm(Y, 16000))
    data[len(data) // 2] ^= 16
    with pytest.raises(RuntimeError):
        decode_pcm(bytes(data), len(Y))


def test_a_process_that_decodes_few_streams_needs_no_numba(tmp_path: Path) -> None:
    y = np.concatenate([np.zeros(29000, np.int16), np.arange(1000, dtype=np.int16)])
    (tmp_path / "x.flac").write_bytes(encode_pcm(y, 16000))
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(tmp_path / "x.flac")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == pcm._UNCOMPILED + 1
