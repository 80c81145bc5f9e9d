"""Containers whose header says the size of the samples: right, too large, or unknown."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from melmill.stages.formats.audio import decode, read_header, tells
from melmill.stages.numeric.errors import Unusable
from tests.stages.formats.containers.made import by_libsndfile, noisy_tone

N = 20000
ALL = [
    ("WAV", "PCM_16"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "MS_ADPCM"),
    ("WAV", "GSM610"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("W64", "IMA_ADPCM"),
    ("AIFF", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("AIFF", "FLOAT"),
    ("AIFF", "ULAW"),
    ("AU", "PCM_16"),
    ("AU", "ULAW"),
    ("AU", "FLOAT"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("NIST", "PCM_16"),
    ("NIST", "ULAW"),
]


def made(kind: str, subtype: str = "PCM_16", n_channels: int = 1) -> bytes:
    return by_libsndfile(noisy_tone(N, n_channels), kind, subtype)


@pytest.mark.parametrize(("kind", "subtype"), ALL)
def test_a_whole_file_is_whole(kind: str, subtype: str) -> None:
    y, header = decode(made(kind, subtype))
    # Coders of blocks fill the last one.
    assert N <= len(y) == header.n_samples < N + 1024
    if subtype == "PCM_16":
        assert np.array_equal(y, noisy_tone(N))


@pytest.mark.parametrize(("kind", "subtype"), ALL)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_cut_file_is_told_with_both_lengths(kind: str, subtype: str, kept: float) -> None:
    data = made(kind, subtype)
    with pytest.raises(
        Unusable,
        match=r"^file is truncated: header says [\d,]+ (samples|bytes of samples), the file holds [\d,]+$",
    ):
        decode(data[: int(kept * len(data))])


def test_lengths_are_samples_of_all_channels() -> None:
    for kind in ("WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST"):
        with pytest.raises(Unusable, match=r"header says 20,000 samples, the file holds 19,999$"):
            decode(made(kind, n_channels=2)[:-2])


def patched(data: bytes, at: int, field: bytes) -> bytes:
    return data[:at] + field + data[at + len(field) :]


def unknown_size(kind: str, size: int) -> bytes:
    """Put a size where a writer that could not go back left one."""
    data = made(kind)
    wide = size if size > 0xFFFFFFFF else size | 0xFFFFFFFF << 32 if size == 0xFFFFFFFF else size
    if kind == "WAV":
        return patched(patched(data, 40, struct.pack("<I", size)), 4, struct.pack("<I", size))
    if kind == "RF64":
        return patched(data, data.index(b"ds64") + 8, struct.pack("<QQQ", wide, wide, wide))
    if kind == "W64":
        return patched(data, data.index(b"data") + 16, struct.pack("<Q", wide))
    if kind == "AU":
        return patched(data, 8, struct.pack(">I", size))
    if kind == "CAF":
        return patched(data, data.index(b"data") + 4, struct.pack(">Q", wide))
    at, sound = data.index(b"COMM"), data.index(b"SSND")
    return patched(patched(data, at + 10, struct.pack(">I", size)), sound + 4, struct.pack(">I", size))


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AU", "CAF", "AIFF"])
@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF])
def test_a_size_that_means_unknown_is_what_the_file_holds(kind: str, size: int) -> None:
    if kind in ("RF64", "W64", "CAF") and 0 < size < 0xFFFFFFFF:
        size = 2**63 - 1
    y, _ = decode(unknown_size(kind, size))
    # libsndfile's CAF has other chunks behind the samples' room.
    assert np.array_equal(y[:N], noisy_tone(N))
    assert len(y) == N


def test_what_sox_writes_to_a_pipe_as_aiff_is_what_the_file_holds() -> None:
    data = made("AIFF")
    at, sound = data.index(b"COMM"), data.index(b"SSND")
    n_samples = 0x7F000000 // 2
    data = patched(data, at + 10, struct.pack(">I", n_samples))
    y, _ = decode(patched(data, sound + 4, struct.pack(">I", 2 * n_samples + 8)))
    assert np.array_equal(y, noisy_tone(N))


def test_an_empty_wav_with_more_chunks_is_empty() -> None:
    data = made("WAV")
    more = b"LIST" + struct.pack("<I", 20) + b"INFO" + b"ISFT" + struct.pack("<I", 8) + b"Lavf61\0\0"
    with pytest.raises(Unusable, match="header says 0 samples"):
        decode(patched(data[:40], 4, struct.pack("<I", 36 + len(more) + 8)) + bytes(4) + more)


def test_chunks_behind_the_samples_are_no_audio() -> None:
    data = made("WAV", "ULAW")
    y, _ = decode(data + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert np.array_equal(y, decode(data)[0])


def test_joined_wav_files_are_not_read_as_the_first() -> None:
    with pytest.raises(Unusable, match="holds WAV files one after another, the first of 20,000 samples: split it"):
        decode(made("WAV") + made("WAV"))


def test_mpeg_in_wav_is_counted() -> None:
    mp3 = by_libsndfile(noisy_tone(N), "MP3", "MPEG_LAYER_III")
    described = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16000, 4000, 1, 0, 12, 1, 2, 144, 1, 0)
    wav = b"WAVEfmt " + struct.pack("<I", len(described)) + described + b"data" + struct.pack("<I", len(mp3)) + mp3
    y, _ = decode(b"RIFF" + struct.pack("<I", len(wav)) + wav)
    assert np.array_equal(y, decode(mp3)[0])


@pytest.mark.parametrize("coding", ["pcm,embedded-shorten-v2.00", "ulaw,embedded-shorten-v1.09"])
def test_compressed_sphere_is_refused_with_a_remedy(coding: str) -> None:
    head = f"NIST_1A\n   1024\nsample_count -i 100\nsample_coding -s{len(coding)} {coding}\nend_head\n"
    with pytest.raises(Unusable, match=rf"SPHERE file is compressed, its sample_coding is '{coding}': decompress it"):
        decode(head.encode().ljust(1024) + b"ajkg" + bytes(200))


@pytest.mark.parametrize(("subtype", "n_channels"), [("PCM_16", 1), ("PCM_16", 2), ("ULAW", 1), ("PCM_24", 1)])
def test_the_first_bytes_of_a_sphere_file_tell_its_header(subtype: str, n_channels: int) -> None:
    data = made("NIST", subtype, n_channels)
    assert tells(data[:2000])
    header = read_header(data[:2000], len(data))
    assert (header.sr, header.n_samples, header.n_channels, header.subtype) == (16000, N, n_channels, subtype)
    assert header == read_header(data, len(data))
    assert read_header(data[:2000], len(data) - 900).doubt.startswith("file is truncated: header says 20,000 samples")


def test_a_sphere_file_need_not_say_its_length() -> None:
    data = made("NIST")
    line = next(line for line in data[:1024].split(b"\n") if line.startswith(b"sample_count"))
    y, _ = decode(data.replace(line, b";".ljust(len(line))))
    assert np.array_equal(y, noisy_tone(N))


@pytest.mark.parametrize("kind", ["CAF", "W64"])
@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF])
def test_a_field_of_64_bits_has_no_placeholder_of_32(kind: str, size: int) -> None:
    data = made(kind)
    at, form = (data.index(b"data") + 4, ">Q") if kind == "CAF" else (data.index(b"data") + 16, "<Q")
    with pytest.raises(
        Unusable, match=r"^file is truncated: header says 1,073,7\d\d,\d\d\d|2,147,4\d\d,\d\d\d samples"
    ):
        decode(patched(data, at, struct.pack(form, size)))


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_rf64_is_as_long_as_its_ds64_chunk_says(size: int) -> None:
    data = made("RF64")
    at = data.index(b"data") + 4
    y, _ = decode(patched(data + b"LIST" + struct.pack("<I", 4) + b"INFO", at, struct.pack("<I", size)))
    assert np.array_equal(y, noisy_tone(N))


def test_rf64_without_its_ds64_chunk_is_damaged() -> None:
    data = made("RF64")
    at = data.index(b"ds64")
    without = data[:at] + data[at + 8 + struct.unpack("<I", data[at + 4 : at + 8])[0] :]
    with pytest.raises(Unusable, match=r"^RF64 header is damaged: it lacks its ds64 chunk"):
        decode(without)


def test_an_empty_data_chunk_before_the_samples_is_none() -> None:
    data = made("WAV", "ULAW")
    at = data.index(b"fact")
    y, _ = decode(data[:at] + b"data" + bytes(4) + data[at:] + b"fLaC\0\0\0\x22....")
    assert np.array_equal(y, decode(data)[0])
