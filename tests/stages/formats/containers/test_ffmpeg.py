"""Formats that take the extra `av`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from melmill.stages.errors import PackageMissing
from melmill.stages.formats.audio import decode, read_header
from melmill.stages.formats.containers import ffmpeg
from melmill.stages.numeric.errors import Unusable
from tests.stages.formats.containers.made import as_floats, by_ffmpeg, by_libsndfile, ffmpeg_decoded, noisy_tone

# Container, codec, rate, channels, and the samples that may come out of 40,000.
KINDS = [
    ("ipod", "aac", 44100, 2, (40000, 41024)),  # .m4a
    ("ipod", "alac", 16000, 1, (40000, 40000)),
    ("mp4", "aac", 16000, 1, (40000, 41024)),
    ("adts", "aac", 16000, 1, (40960, 42100)),  # .aac: nothing says the encoder's delay
    ("asf", "wmav2", 44100, 1, (38000, 42000)),  # .wma
    ("webm", "libopus", 48000, 2, (40000, 40000)),
    ("webm", "libvorbis", 16000, 1, (40000, 40000)),
    ("matroska", "flac", 16000, 1, (40000, 40000)),
    ("wv", "wavpack", 16000, 1, (40000, 40000)),
    ("ac3", "ac3", 48000, 2, (40000, 42000)),
    ("eac3", "eac3", 48000, 1, (40000, 42000)),
    ("tta", "tta", 16000, 1, (40000, 40000)),
    ("amr", "libopencore_amrnb", 8000, 1, (40000, 40160)),
]
LOSSLESS = {"alac", "flac", "wavpack", "tta"}


def made(container: str, codec: str, sr: int, n_channels: int) -> bytes:
    return by_ffmpeg(noisy_tone(n_channels=n_channels), sr, container, codec)


@pytest.mark.parametrize(("container", "codec", "sr", "n_channels", "lengths"), KINDS)
def test_samples_are_those_of_ffmpeg(
    container: str, codec: str, sr: int, n_channels: int, lengths: tuple[int, int]
) -> None:
    data = made(container, codec, sr, n_channels)
    assert ffmpeg.format_of(data)
    y, header = decode(data)
    assert (header.sr, header.n_channels, header.n_samples) == (sr, n_channels, len(y))
    assert read_header(data, len(data)) == header
    assert lengths[0] <= len(y) <= lengths[1]
    np.testing.assert_array_equal(as_floats(y), ffmpeg_decoded(data))
    if codec in LOSSLESS:
        assert y.dtype == np.int16
        assert np.array_equal(y, noisy_tone(n_channels=n_channels))


def test_opus_in_webm_loses_the_whole_delay_of_the_encoder() -> None:
    data = by_ffmpeg(noisy_tone(), 16000, "webm", "libopus")
    y, header = decode(data)
    assert (header.sr, len(y)) == (48000, 120000)
    tone = np.sin(0.05 / 3 * np.arange(len(y)))
    lags = [float(np.dot(y[1000:90000, 0], tone[1000 + lag : 90000 + lag])) for lag in (-208, 0, 208)]
    assert max(lags) == lags[1]


@pytest.mark.parametrize(("container", "codec", "sr", "n_channels", "_lengths"), KINDS)
def test_a_cut_file_is_never_whole(
    container: str, codec: str, sr: int, n_channels: int, _lengths: tuple[int, int]
) -> None:
    data = made(container, codec, sr, n_channels)
    with pytest.raises(Unusable, match=r"truncated|not decodable"):
        decode(data[: int(0.7 * len(data)) - 3])


def test_a_cut_mp4_with_its_index_in_front_is_told_with_both_lengths(tmp_path: Path) -> None:
    data = by_ffmpeg(noisy_tone(), 44100, "ipod", "aac", path=tmp_path / "a.m4a", movflags="faststart")
    with pytest.raises(Unusable, match=r"^file is truncated.*: header says \d+,\d+ samples, .*\d,\d\d\d"):
        decode(data[: int(0.8 * len(data))])


def test_without_the_package_no_file_is_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: False)
    with pytest.raises(PackageMissing, match=r"^reading WavPack needs the package av: pip install 'melmill\[av\]'$"):
        decode(b"wvpk" + bytes(100))


def test_a_broken_installation_is_no_fault_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "is_installed", lambda: True)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError):
        decode(b"wvpk" + bytes(100))


@pytest.mark.parametrize("head", [b"wvpk", b"\0\0\0\x20ftypM4A ", b"\x1a\x45\xdf\xa3", b"#!AMR\n", b"\xff\xf1\x50\x80"])
def test_damage_is_told(head: bytes) -> None:
    pytest.importorskip("av", reason="FFmpeg reads these")
    with pytest.raises(Unusable, match=r"not decodable as|holds no|truncated"):
        decode(head + bytes(range(1, 200)))


def test_a_video_without_sound_is_told() -> None:
    av = pytest.importorskip("av", reason="FFmpeg reads these")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    with pytest.raises(Unusable, match=r"^holds no audio stream$"):
        decode(file.getvalue())


def test_libsndfile_reads_what_it_can() -> None:
    for kind, subtype in (("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), ("WAV", "PCM_16")):
        assert ffmpeg.format_of(by_libsndfile(noisy_tone(), kind, subtype)) == ""


def test_flac_without_its_head_is_no_aac() -> None:
    data = by_libsndfile(noisy_tone(), "FLAC", "PCM_16")
    frames = data[data.index(b"\xff\xf8") :]
    assert ffmpeg.format_of(frames) == ""
    with pytest.raises(Unusable):
        decode(frames)


@pytest.mark.parametrize(
    ("container", "codec", "sr"), [("wv", "wavpack", 16000), ("tta", "tta", 16000), ("adts", "aac", 44100)]
)
def test_damage_is_never_concealed(container: str, codec: str, sr: int) -> None:
    data = bytearray(made(container, codec, sr, 1))
    for at in range(len(data) // 2, len(data) // 2 + 200):
        data[at] ^= 0x55
    with pytest.raises(Unusable):
        decode(bytes(data))
