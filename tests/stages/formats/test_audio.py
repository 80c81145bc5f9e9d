"""Headers and samples of audio files."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from melmill.flac import HEAD_BYTES as FLAC_HEAD_BYTES
from melmill.stages.formats.audio import _doubt, _n_decoded, decode, read_header, tells
from melmill.stages.formats.containers.content import Piece
from melmill.stages.formats.containers.ogg import checksum, page_at
from melmill.stages.numeric.errors import Unusable


def encode(y: NDArray[Any], sr: int = 16000, kind: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, y, sr, format=kind, subtype=subtype)
    return file.getvalue()


def with_length(flac: bytes, n_samples: int) -> bytes:
    """Edit the 36 bits of STREAMINFO that say the length."""
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | n_samples
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]


def noise(n_samples: int = 20000, n_channels: int = 1) -> NDArray[np.int16]:
    drawn = np.random.default_rng(0).integers(-8000, 8000, (n_samples, n_channels))
    return drawn.astype(np.int16)


@pytest.mark.parametrize(
    ("kind", "subtype", "sr", "n_channels"),
    [
        ("FLAC", "PCM_16", 16000, 1),  # LibriSpeech
        ("FLAC", "PCM_24", 48000, 2),  # studio material
        ("FLAC", "PCM_S8", 8000, 8),  # the edges of STREAMINFO's fields
        ("FLAC", "PCM_16", 655350, 1),  # the highest rate of FLAC
        ("WAV", "PCM_16", 22050, 1),
        ("WAV", "FLOAT", 44100, 2),
        ("OGG", "VORBIS", 44100, 1),
    ],
)
def test_header_says_what_soundfile_says(kind: str, subtype: str, sr: int, n_channels: int) -> None:
    data = encode(noise(5000, n_channels), sr, kind, subtype)
    header = read_header(data[:FLAC_HEAD_BYTES] if kind == "FLAC" else data, len(data))
    info = soundfile.info(io.BytesIO(data))
    assert (header.sr, header.n_samples, header.n_channels) == (sr, 5000, n_channels)
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (sr, 5000, n_channels, header.subtype)
    assert header.believable


@pytest.mark.real
def test_header_agrees_with_soundfile_on_real_files(real_data: Path) -> None:
    paths = sorted((real_data / "corpora" / "LibriSpeech").rglob("*.flac"))
    assert len(paths) == 204
    for path in paths:
        data = path.read_bytes()
        header = read_header(data[:FLAC_HEAD_BYTES], len(data))
        y, sr = soundfile.read(io.BytesIO(data), dtype="int16")
        assert (header.sr, header.n_samples) == (sr, len(y))
        assert np.array_equal(decode(data)[0][:, 0], y)


@pytest.mark.parametrize(
    ("n_samples", "doubt"),
    [
        (2**31 - 1, "claims 2,147,483,647 samples in"),  # what broken writers leave behind
        (2**36 - 1, "claims 68,719,476,735 samples in"),  # all bits of the field: 137 GB if allocated
    ],
)
def test_implausible_length_is_not_believed(n_samples: int, doubt: str) -> None:
    data = with_length(encode(noise()), n_samples)
    header = read_header(data[:FLAC_HEAD_BYTES], len(data))
    assert not header.believable
    assert doubt in header.doubt
    with pytest.raises(Unusable, match=doubt):
        decode(data)


def test_highly_compressed_silence_is_believed() -> None:
    data = encode(np.zeros(16000 * 600, dtype=np.int16))
    assert read_header(data[:FLAC_HEAD_BYTES], len(data)).believable


@pytest.mark.parametrize(
    ("subtype", "n_channels"), [("PCM_U8", 1), ("PCM_16", 2), ("PCM_24", 1), ("PCM_32", 1), ("FLOAT", 2), ("DOUBLE", 1)]
)
@pytest.mark.parametrize("kind", ["WAV", "WAVEX"])
def test_a_wav_header_is_told_by_its_first_bytes(kind: str, subtype: str, n_channels: int) -> None:
    data = encode(noise(5000, n_channels), 22050, kind, subtype)
    assert tells(data[:200])
    header = read_header(data[:200], len(data))
    info = soundfile.info(io.BytesIO(data))
    assert (header.sr, header.n_samples, header.n_channels) == (22050, 5000, n_channels)
    assert (info.samplerate, info.frames, info.channels, info.subtype) == (22050, 5000, n_channels, header.subtype)


@pytest.mark.parametrize(
    ("kind", "subtype", "patch"),
    [
        ("WAV", "ULAW", b""),  # coded samples
        # written to a pipe: its size was never filled in
        ("WAV", "PCM_16", b"\xff\xff\xff\xff"),
        ("WAV", "PCM_16", b"\xd3\xff\xff\xff"),
        ("WAV", "PCM_16", b"\xff\xff\xff\x7f"),
        ("WAV", "PCM_16", b"\x00\xf0\xff\x7f"),  # by sox
        ("WAV", "PCM_16", b"\xd4\xff\xff\x7f"),
        ("OGG", "VORBIS", b""),
    ],
)
def test_other_headers_need_the_whole_file(kind: str, subtype: str, patch: bytes) -> None:
    data = encode(noise(5000), 44100, kind, subtype)
    if patch:
        at = data.index(b"data") + 4
        data = data[:at] + patch + data[at + 4 :]
    assert not tells(data)
    y, header = decode(data)
    assert header == read_header(data, len(data))
    assert header.n_samples == len(y) == 5000


def test_a_wav_cut_short_is_truncated() -> None:
    data = encode(noise(5000), kind="WAV")[:-2000]
    with pytest.raises(Unusable, match=r"^file is truncated: header says 5,000 samples, the file holds 4,000$"):
        decode(data)


@pytest.mark.parametrize("claimed", [40002, 80000, 60_000_000, 0x7FFE0000, 0x90000000])
def test_a_size_past_the_end_of_a_wav_is_not_believed(claimed: int) -> None:
    data = encode(noise(20000), kind="WAV")
    assert read_header(data, len(data)).believable
    header = read_header(data[:40] + claimed.to_bytes(4, "little") + data[44:], len(data))
    assert not header.believable
    assert f"{claimed // 2:,} samples" in header.doubt


def test_only_flac_and_whole_wav_headers_are_told_by_first_bytes() -> None:
    data = encode(noise(), kind="WAV")
    with pytest.raises(
        ValueError, match="only FLAC, plain WAV and SPHERE are read from their first bytes, got 42 of 40044"
    ):
        read_header(data[:42], len(data))


@pytest.mark.parametrize(
    ("kind", "subtype", "dtype", "tolerance"),
    [
        ("FLAC", "PCM_16", np.int16, 0),  # bit for bit
        ("WAV", "PCM_16", np.int16, 0),
        ("WAV", "PCM_U8", np.int16, 256),  # one step of 8 bits
        ("FLAC", "PCM_24", np.float32, 0),  # float32 holds 24 bits
        ("WAV", "FLOAT", np.float32, 0),
    ],
)
def test_decoded_samples(kind: str, subtype: str, dtype: type, tolerance: int) -> None:
    given = noise(3000, 2) / np.float32(32768) if subtype == "FLOAT" else noise(3000, 2)
    y, header = decode(encode(given, 16000, kind, subtype))
    assert y.dtype == dtype
    assert (header.sr, header.n_channels) == (16000, 2)
    scale = 1 if dtype is np.int16 else 32768
    np.testing.assert_allclose(y * scale, noise(3000, 2), rtol=0, atol=tolerance)


def damage(data: bytes, how: str) -> bytes:
    middle = len(data) // 2
    return {
        "empty": b"",
        "text": b"<html>not found</html>",
        "cut in the header": data[:30],
        "cut in the middle": data[:middle],
        "last byte missing": data[:-1],
        "flipped bits": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
        "claims more": with_length(data, 30000),
        "claims less": with_length(data, 10000),
        "other checksum": data[:26] + bytes([data[26] ^ 1]) + data[27:],
        "no rate": data[:18] + bytes(8) + data[26:],
    }[how]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", r"^file is empty \(0 bytes\)$"),
        ("text", r"^not decodable as audio: Format not recognised. It starts with b'<html>no'$"),
        ("cut in the header", r"^file is truncated: it ends inside its FLAC header \(30 bytes\)$"),
        ("cut in the middle", r"^file is truncated or damaged: header says 20,000 samples, (7|8|9),\d\d\d decoded$"),
        ("last byte missing", r"^file is truncated or damaged: header says 20,000 samples, 1\d,\d\d\d decoded$"),
        ("flipped bits", r"^file is truncated or damaged: header says 20,000 samples, (7|8|9),\d\d\d decoded$"),
        ("claims more", r"^file is truncated or damaged: header says 30,000 samples, (19,\d\d\d|20,000) decoded$"),
        ("claims less", r"^the 10,000 samples decoded differ from the checksum in the FLAC header"),
        ("other checksum", r"^the 20,000 samples decoded differ from the checksum in the FLAC header"),
        ("no rate", r"^header says 0 Hz, a recording has 1,000 to 1,048,575 Hz: mend the header or encode it again$"),
    ],
)
def test_bad_file_gives_its_reason(how: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        decode(damage(encode(noise()), how))


def with_rate(kind: str, subtype: str, sr: int) -> bytes:
    """Encode noise and edit the rate that the header says."""

    def packed(rate: int) -> bytes:
        if kind == "AIFF":  # an 80-bit float: exponent and mantissa with its leading 1
            return struct.pack(">HQ", 16382 + rate.bit_length(), rate << 64 - rate.bit_length()) if rate else bytes(10)
        return struct.pack({"AU": ">I", "CAF": ">d"}.get(kind, "<I"), rate)

    data = encode(noise(3000), 16000, kind, subtype)
    if kind == "FLAC":
        field = int.from_bytes(data[18:26], "big") & (1 << 44) - 1 | sr << 44
        return data[:18] + field.to_bytes(8, "big") + data[26:]
    at = data.index(packed(16000))
    return data[:at] + packed(sr) + data[at + len(packed(sr)) :]


@pytest.mark.parametrize("sr", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "ULAW"),
        ("WAVEX", "FLOAT"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AU", "PCM_16"),
        ("CAF", "PCM_16"),
        ("AIFF", "PCM_16"),
    ],
)
def test_a_rate_that_no_recording_has_is_not_believed(kind: str, subtype: str, sr: int) -> None:
    with pytest.raises(Unusable, match=r"header says .*\d Hz.* a recording has 1,000 to 1,048,575 Hz"):
        decode(with_rate(kind, subtype, sr))


@pytest.mark.parametrize("sr", [0, 1, 999])
def test_a_rate_of_flac_that_no_recording_has_is_not_believed(sr: int) -> None:
    with pytest.raises(Unusable, match=f"^header says {sr} Hz, a recording has"):
        decode(with_rate("FLAC", "PCM_16", sr))


def test_a_rate_of_ogg_that_no_recording_has_is_not_believed() -> None:
    data = with_rate("OGG", "VORBIS", 0)
    first = page_at(data, 0)
    assert first is not None
    crc = checksum(data[:22] + bytes(4) + data[26 : first.size])
    with pytest.raises(Unusable, match=r"^not decodable as audio"):
        decode(data[:22] + crc + data[26:])


@pytest.mark.parametrize("subtype", ["DWVW_16", "DWVW_24"])
def test_codecs_that_can_not_be_sought_in_are_read_in_order(subtype: str) -> None:
    data = encode(noise(5000) / 32768.0, kind="AIFF", subtype=subtype)
    y, header = decode(data)
    assert header.n_samples == len(y) == 5000
    np.testing.assert_allclose(y[:, 0] * 32768, noise(5000)[:, 0], rtol=0, atol=1)


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_flac_of_every_width_is_compared_with_its_checksum(subtype: str, n_channels: int) -> None:
    data = encode(noise(5000, n_channels), subtype=subtype)
    assert len(decode(data)[0]) == 5000
    with pytest.raises(Unusable, match=r"^the 5,000 samples decoded differ from the checksum in the FLAC header"):
        decode(data[:41] + bytes([data[41] ^ 1]) + data[42:])


def test_counting_what_is_left_believes_no_header() -> None:
    data = with_length(encode(noise()), 0)[:-3000]
    made_up = with_length(data, 2**36 - 1)
    # libsndfile says so many samples, of which there is no room for an array.
    assert 0 < _n_decoded((Piece(made_up),)) < 20000


def test_a_length_below_zero_is_not_believed() -> None:
    assert "header says -5 samples" in _doubt(16000, -5, 1000)
