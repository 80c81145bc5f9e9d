"""FLAC whose header does not say its length."""

from __future__ import annotations

import numpy as np
import pytest

from melmill.flac import stream_info
from melmill.stages.formats.audio import decode, read_header, tells
from melmill.stages.formats.containers.flac import n_samples_by_frames, with_length
from melmill.stages.numeric.errors import Unusable
from tests.stages.formats.containers.made import by_ffmpeg, by_libsndfile, noisy_tone


def unfinished(n_samples: int, subtype: str = "PCM_16", n_channels: int = 1) -> bytes:
    """Return FLAC as a writer to a pipe leaves it: without a length and a checksum."""
    data = with_length(by_libsndfile(noisy_tone(n_samples, n_channels), "FLAC", subtype), 0)
    return data[:26] + bytes(16) + data[42:]


@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("n_samples", [1, 15, 255, 300, 4096, 4097, 20000, 4096 * 130])
def test_a_length_that_is_not_said_is_counted(n_samples: int, n_channels: int) -> None:
    data = unfinished(n_samples, n_channels=n_channels)
    assert not tells(data[:4096])
    y, header = decode(data)
    assert header.n_samples == read_header(data, len(data)).n_samples == n_samples
    assert np.array_equal(y, noisy_tone(n_samples, n_channels))


def test_numbers_of_three_bytes_are_read() -> None:
    silence = by_libsndfile(np.zeros(4096 * 2100 + 5, np.int16), "FLAC", "PCM_16", 48000)
    assert n_samples_by_frames(silence) == 4096 * 2100 + 5


def test_a_tag_behind_the_last_frame_is_no_audio() -> None:
    assert len(decode(unfinished(20000) + b"TAG" + bytes(125))[0]) == 20000
    assert len(decode(b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + unfinished(20000))[0]) == 20000


def test_frames_of_any_kind_tell_their_number() -> None:
    data = by_ffmpeg(noisy_tone(50000, 2), 44100, "flac", "flac")
    assert n_samples_by_frames(data) == stream_info(data).n_samples == 50000


@pytest.mark.parametrize("cut", [1, 100, 9000])
def test_a_cut_is_told_where_no_length_is_said(cut: int) -> None:
    with pytest.raises(Unusable, match=r"its header says no length, and its last frame is not whole; \d+,\d+ samples"):
        decode(unfinished(20000)[:-cut])


def test_a_length_below_that_of_the_frames_hides_nothing() -> None:
    data = with_length(unfinished(20000), 10000)
    with pytest.raises(Unusable, match=r"^file is damaged: header says 10,000 samples, its frames hold 20,000$"):
        decode(data)


def test_joined_files_are_not_read_as_the_first() -> None:
    data = by_libsndfile(noisy_tone(20000), "FLAC", "PCM_16")
    with pytest.raises(Unusable, match="holds 2 FLAC files one after another, the first of 20,000 samples: split it"):
        decode(data + data)


def test_an_empty_stream_is_empty() -> None:
    with pytest.raises(Unusable, match="header says 0 samples, so the file is empty"):
        decode(unfinished(20000)[:42])
