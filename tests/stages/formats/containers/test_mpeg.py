"""MPEG audio whose header estimates its length, or that is cut or damaged."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from melmill.stages.formats.audio import decode, read_header
from melmill.stages.formats.containers.mpeg import Frame, content_of, frame_at
from melmill.stages.numeric.errors import Unusable
from tests.stages.formats.containers.made import by_ffmpeg, by_libsndfile, ffmpeg_decoded, noisy_tone


def bare(sr: int = 16000, n_channels: int = 1, *, variable: bool = True) -> bytes:
    """Return an MP3 without a Xing frame."""
    y = noisy_tone(n_channels=n_channels)
    return by_ffmpeg(y, sr, "mp3", "libmp3lame", variable=variable, write_xing="0", id3v2_version="0")


def frames(data: bytes) -> list[tuple[int, Frame]]:
    """Return the frames of an MP3 that begins with one, by following their sizes."""
    found, at = [], 0
    while (frame := frame_at(data, at)) is not None:
        found.append((at, frame))
        at += frame.size
    return found


def tagged(data: bytes, name: bytes, n_frames: int, n_bytes: int = 0) -> bytes:
    """Put a frame in front that says how many others there are, by Xing or Fraunhofer."""
    header = bytes([data[0], data[1] | 1, data[2] & 0x0F | 0xC0, data[3]])
    frame = frame_at(header, 0)
    assert frame is not None
    side = (17 if frame.n_channels == 1 else 32) if frame.version == 3 else (9 if frame.n_channels == 1 else 17)
    if name == b"VBRI":
        body = bytes(32) + name + bytes(6) + n_bytes.to_bytes(4, "big") + n_frames.to_bytes(4, "big")
    else:
        body = bytes(side) + name + (3).to_bytes(4, "big") + n_frames.to_bytes(4, "big") + n_bytes.to_bytes(4, "big")
    return (header + body).ljust(frame.size, b"\0") + data


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize("n_channels", [1, 2])
# MPEG-2.5, MPEG-2 and MPEG-1, with and without padded frames.
@pytest.mark.parametrize("sr", [8000, 11025, 16000, 22050, 32000, 44100, 48000])
def test_an_mp3_without_a_first_frame_that_counts_is_read_to_its_end(sr: int, n_channels: int, variable: bool) -> None:
    data = bare(sr, n_channels, variable=variable)
    y, header = decode(data)
    reference = ffmpeg_decoded(data)
    assert len(y) == header.n_samples == read_header(data, len(data)).n_samples == len(reference) >= 40000
    np.testing.assert_allclose(y, reference, atol=1e-5)


@pytest.mark.parametrize("kbits", ["32k", "320k"])
def test_extreme_bit_rates_are_read_to_their_end(kbits: str) -> None:
    data = by_libsndfile(noisy_tone(), "MP3", "MPEG_LAYER_III", 44100)
    music = data[frames(data)[1][0] :]
    rate = {"32k": 0x10, "320k": 0xE0}[kbits]
    one = bytes([music[0], music[1] | 1, rate | music[2] & 0x0C, music[3]])
    frame = frame_at(one, 0)
    assert frame is not None
    silent = one + bytes(frame.size - 4)
    y, header = decode(50 * silent + music)
    assert len(y) == header.n_samples == (50 + len(frames(music))) * frame.n_samples


@pytest.mark.parametrize("sr", [16000, 24000, 44100])
def test_layer_two_is_read_to_its_end(sr: int) -> None:
    data = by_ffmpeg(noisy_tone(), sr, "mp2", "mp2")
    y, _ = decode(data)
    np.testing.assert_allclose(y, ffmpeg_decoded(data), atol=1e-4)


def test_what_libsndfile_reads_right_keeps_its_samples() -> None:
    constant = bare(44100, 2, variable=False)
    whole = by_libsndfile(noisy_tone(), "MP3", "MPEG_LAYER_III")
    for data in (constant, whole, b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + whole, whole + b"TAG" + bytes(125)):
        y, _ = decode(data)
        before, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        assert np.array_equal(y, before)
    assert len(decode(whole)[0]) == 40000


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        bytes(500),  # padding
        b"TAG" + bytes(125),  # ID3v1
        b"APETAGEX" + b"".join(n.to_bytes(4, "little") for n in (2000, 42, 1, 1 << 31)) + bytes(8) + bytes(42),
        b"LYRICSBEGINla la000006LYRICS200",
    ],
)
@pytest.mark.parametrize("before", [b"", b"ID3\x03\0\0\0\0\0\x7f" + b"\xff\xfb\x90\x64" * 31 + bytes(3)])
def test_tags_are_no_audio(before: bytes, behind: bytes) -> None:
    data = bare()
    y, _ = decode(before + data + behind)
    assert np.array_equal(y, decode(data)[0])


@pytest.mark.parametrize("name", [b"Xing", b"Info", b"VBRI"])
def test_a_first_frame_that_counts_is_believed_where_it_is_right(name: bytes) -> None:
    data = bare(22050)
    n_frames = len(frames(data))
    _, header = decode(tagged(data, name, n_frames))
    # libsndfile leaves out the decoder's delay of 529 samples where Xing's frame is there.
    assert n_frames * 576 - header.n_samples == (0 if name == b"VBRI" else 529)
    with pytest.raises(
        Unusable, match=rf"header says {(n_frames + 9) * 576:,} samples, the file holds {n_frames * 576:,}"
    ):
        decode(tagged(data, name, n_frames + 9))


def test_a_first_frame_that_counts_too_few_hides_nothing() -> None:
    data = bare(22050)
    whole, _ = decode(tagged(data, b"Xing", len(frames(data))))
    assert np.array_equal(decode(tagged(data, b"Xing", 20))[0], whole)


def test_a_first_frame_may_count_itself() -> None:
    data = bare(22050)
    n_frames, n_bytes = len(frames(data)), len(tagged(data, b"Xing", 1))
    whole, _ = decode(tagged(data, b"Xing", n_frames, n_bytes))
    assert np.array_equal(decode(tagged(data, b"Xing", n_frames + 1, n_bytes))[0], whole)
    with pytest.raises(Unusable, match="file is truncated"):
        decode(tagged(data, b"Xing", n_frames + 1, n_bytes + 100))


def test_joined_files_are_all_read() -> None:
    first = by_libsndfile(noisy_tone(30000), "MP3", "MPEG_LAYER_III")
    second = by_libsndfile(noisy_tone(20000), "MP3", "MPEG_LAYER_III")
    y, header = decode(first + b"TAG" + bytes(125) + second)
    assert header.n_samples == 50000
    assert np.array_equal(y, np.concatenate([decode(first)[0], decode(second)[0]]))


def test_joined_files_of_two_rates_are_not_mixed() -> None:
    files = [by_libsndfile(noisy_tone(30000), "MP3", "MPEG_LAYER_III", sr) for sr in (16000, 24000)]
    with pytest.raises(Unusable, match="30,000 samples of 16,000 Hz with 1 channels, 30,000 samples of 24,000 Hz"):
        decode(files[0] + files[1])


def test_a_cut_inside_a_frame_is_told_with_both_lengths() -> None:
    data = bare()
    at, _ = frames(data)[40]
    for stop in (at + 1, at + 3, at + 30):
        with pytest.raises(Unusable, match=rf"{41 * 576:,} samples begin, {40 * 576:,} are whole$"):
            decode(data[:stop])
    assert len(decode(data[:at])[0]) == 40 * 576


@pytest.mark.parametrize("cut", [1, 1000, 3000])
def test_a_cut_mp3_that_says_its_length_is_told_with_both_lengths(cut: int) -> None:
    data = by_libsndfile(noisy_tone(), "MP3", "MPEG_LAYER_III")
    with pytest.raises(Unusable, match=r"^file is truncated: header says 41,472 samples, the file holds \d\d,\d\d\d$"):
        decode(data[:-cut])


def test_a_damaged_frame_is_told_with_both_lengths() -> None:
    data = bare()
    at, _ = frames(data)[40]
    n_samples = len(frames(data)) * 576
    expected = rf"at byte {at:,} of .* no frame begins; {n_samples:,} samples begin, {n_samples - 576:,} are whole$"
    with pytest.raises(Unusable, match=f"^file is damaged: {expected}"):
        decode(data[:at] + b"\0" + data[at + 1 :])
    with pytest.raises(Unusable, match=r"^file is damaged"):
        decode(data[:at] + data[at + 30 :])


def test_a_damaged_frame_whose_size_is_right_keeps_the_length() -> None:
    data = bytearray(bare())
    at, frame = frames(bytes(data))[40]
    data[at + 30 : at + frame.size] = bytes(frame.size - 30)
    assert len(decode(bytes(data))[0]) == len(frames(bytes(data))) * 576


def test_other_bytes_are_left_out_only_where_the_first_frame_vouches_for_the_rest() -> None:
    data = bare(22050)
    at, n_frames = frames(data)[40][0], len(frames(data))
    whole, _ = decode(tagged(data, b"Xing", n_frames, len(tagged(data, b"Xing", 1))))
    between = data[:at] + b"no frame" + data[at:]
    assert np.array_equal(decode(tagged(between, b"Xing", n_frames, len(tagged(data, b"Xing", 1))))[0], whole)
    with pytest.raises(Unusable, match=r"^file is damaged: at byte .* no frame begins; "):
        decode(tagged(between, b"Xing", n_frames, len(tagged(data, b"Xing", 1)) + 7))


def test_a_damaged_first_frame_is_not_passed_over() -> None:
    data = by_libsndfile(noisy_tone(), "MP3", "MPEG_LAYER_III")
    with pytest.raises(Unusable, match=r"^file is damaged: the frame at byte 0 is not followed by another; "):
        decode(data[:30] + b"x" + data[30:])


def test_the_free_format_is_refused() -> None:
    data = bare()
    with pytest.raises(Unusable, match="MP3 of the free format, whose frames have no size: encode it again"):
        decode(data[:2] + bytes([data[2] & 0x0F]) + data[3:])


def test_no_frames_are_no_content() -> None:
    assert content_of(b"ID3\x04\0\0\0\0\0\x0a" + bytes(400)) is None
    with pytest.raises(Unusable, match="not decodable as audio"):
        decode(b"ID3\x04\0\0\0\0\0\x0a" + bytes(400))
