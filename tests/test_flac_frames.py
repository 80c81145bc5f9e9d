"""FLAC frames in compiled code: the samples of libsndfile, or nothing."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from melmill.flac import stream_info
from melmill.flac_frames import _Frames, _plain_stream, _read_predictor, decoded, decoded_part
from melmill.vector import LANES
from tests.stages.formats.containers.made import by_ffmpeg, noisy_tone

Y = NDArray[np.int16]


def whole(data: bytes) -> Y:
    """Return the samples of a file that must be decoded."""
    y = decoded(data)
    assert y is not None
    return y


def encoded(y: Y, level: float = 0.625) -> bytes:
    """Return FLAC of libsndfile at a compression level from 0 to 1: libFLAC's 0 to 8."""
    file = io.BytesIO()
    soundfile.write(file, y, 16000, format="FLAC", subtype="PCM_16", compression_level=level)
    return file.getvalue()


def walk(n_samples: int) -> Y:
    """Return a smooth signal that long predictors fit well."""
    steps = np.random.default_rng(1).normal(0, 1, n_samples)
    smooth = np.convolve(np.cumsum(steps), np.hanning(64), mode="same")
    return np.asarray(20000 * smooth / np.abs(smooth).max(), dtype=np.int16)


def clicks(n_samples: int) -> Y:
    """Return silence with clicks of full scale: numbers far above the others of their partition."""
    y = np.zeros(n_samples, dtype=np.int16)
    y[::997], y[500::1009] = 32767, -32768
    return y


def noise(n_samples: int) -> Y:
    return np.random.default_rng(2).integers(-32768, 32768, n_samples).astype(np.int16)


SIGNALS: dict[str, Callable[[int], Y]] = {
    "tone": lambda n: noisy_tone(n)[:, 0],
    "walk": walk,
    "clicks": clicks,
    "noise, stored as it is": noise,
    "silence, a constant": lambda n: np.zeros(n, dtype=np.int16),
    "low bits that are all 0": lambda n: (noise(n) >> 5 << 5).astype(np.int16),
    "ramp, of fixed differences": lambda n: (np.arange(n) % 20000).astype(np.int16),
}


@pytest.mark.parametrize("level", [0.0, 0.3, 0.625, 1.0])
@pytest.mark.parametrize("signal", SIGNALS)
def test_samples_are_those_that_were_encoded(signal: str, level: float) -> None:
    # Frames of 4096 samples, and 16 at a time: less than one, one, some, 16 and 17 of them.
    for n_samples in (17, 4096, 20000, 4096 * 16, 4096 * 16 + 40):
        y = SIGNALS[signal](n_samples)
        assert np.array_equal(whole(encoded(y, level)), y)


def test_other_encoders_and_block_sizes_are_read() -> None:
    for sr in (8000, 16000, 22050, 96000):
        data = by_ffmpeg(noisy_tone(50000), sr, "flac", "flac")
        assert np.array_equal(whole(data), noisy_tone(50000)[:, 0]), stream_info(data)


@pytest.mark.parametrize("cut", [1, 2, 100, 3000])
def test_files_that_are_cut_or_longer_are_left_to_libsndfile(cut: int) -> None:
    data = encoded(walk(20000))
    assert decoded(data[:-cut]) is None
    assert decoded(data + bytes(cut)) is None


def test_a_flipped_bit_of_a_frame_never_passes() -> None:
    data = encoded(walk(5000), 1.0)
    start = len(data) - len(data.partition(b"\xff\xf8")[2]) - 2
    assert decoded(data) is not None
    for at in range(start, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        assert decoded(bytes(damaged)) is None, at


def test_noise_behind_a_header_does_no_harm() -> None:
    rng = np.random.default_rng(3)
    data = encoded(walk(70000))
    head = data[: len(data) - len(data.partition(b"\xff\xf8")[2]) + 14]
    for _ in range(300):
        assert decoded(head + rng.bytes(int(rng.integers(0, 20000)))) is None


def test_coefficients_that_end_behind_the_file_are_not_read() -> None:
    numbers, sizes = np.zeros(32 * LANES, np.int32), np.full(LANES, 32, np.int64)
    frames = _Frames(numbers, numbers, numbers, sizes, sizes, sizes)
    # Width and shift take 9 bits. Then 32 coefficients of one bit follow.
    ends = [_read_predictor(np.zeros(64, np.uint8), 0, end, 0, 0, frames) for end in (40, 41)]
    assert ends == [-1, 41]


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("n_samples", [100, 4096, 4097, 8192, 140 * 4096, 140 * 4096 + 11])
def test_a_part_has_the_samples_of_the_whole(n_samples: int, level: float) -> None:
    y = walk(n_samples)
    data, rng = encoded(y, level), np.random.default_rng(4)
    ends = {0, 1, 4095, 4096, 4097, 127 * 4096, 128 * 4096 + 1, n_samples - 12, n_samples - 1, n_samples}
    places = sorted({end for end in ends if 0 <= end <= n_samples} | set(rng.integers(0, n_samples, 8).tolist()))
    for start in places:
        for stop in (place for place in places if place > start):
            part = decoded_part(data, start, stop)
            assert part is not None
            assert np.array_equal(part, y[start:stop]), (start, stop)


def test_a_part_outside_the_file_is_none() -> None:
    data = encoded(walk(5000))
    for start, stop in ((-1, 5), (5, 5), (6, 5), (4999, 5001)):
        assert decoded_part(data, start, stop) is None


def test_a_part_is_proven_by_its_own_frames() -> None:
    y = walk(10 * 4096)
    data = encoded(y, 1.0)
    frames = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xf8" and data[at + 4] < 10]
    starts = {data[at + 4]: at for at in reversed(frames)}
    damaged = bytearray(data)
    damaged[(starts[3] + starts[4]) // 2] ^= 4
    part = decoded_part(bytes(damaged), 5 * 4096 + 7, 6 * 4096)
    assert part is not None
    assert np.array_equal(part, y[5 * 4096 + 7 : 6 * 4096])
    assert decoded_part(bytes(damaged), 3 * 4096 + 4000, 5 * 4096) is None
    assert decoded(bytes(damaged)) is None


def test_sums_that_may_not_fit_need_the_checksum_of_all_samples() -> None:
    data = encoded(walk(5000))
    without = data[:26] + bytes(16) + data[42:]
    limits = [stream.limit for stream in map(_plain_stream, (data, without)) if stream]
    assert limits == [1 << 31, (1 << 16) - 1]
    assert np.array_equal(whole(without), walk(5000))
    # Four coefficients of 15 bits, the lowest: their sum is 65,536. Then three of them.
    bits = "1110" + "00000" + 4 * ("1" + 14 * "0")
    coded = np.frombuffer(int(bits.ljust(512, "0"), 2).to_bytes(64, "big"), np.uint8)
    numbers = np.zeros(32 * LANES, np.int32)
    for order, limit, end in ((4, 65535, -1), (4, 65536, 69), (3, 65535, 54)):
        sizes = np.full(LANES, order, np.int64)
        frames = _Frames(numbers, numbers, numbers, sizes, sizes, sizes)
        assert _read_predictor(coded, 0, 512, 0, limit, frames) == end


@pytest.mark.parametrize(("n_channels", "subtype"), [(2, "PCM_16"), (1, "PCM_24"), (1, "PCM_S8")])
def test_other_channels_and_widths_are_left_to_libsndfile(n_channels: int, subtype: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, noisy_tone(5000, n_channels), 16000, format="FLAC", subtype=subtype)
    assert decoded(file.getvalue()) is None


def test_a_header_that_claims_more_than_the_file_holds_is_refused_at_once() -> None:
    data = encoded(walk(5000))
    claims = data[:21] + bytes([data[21] | 15]) + b"\xff" * 4 + data[26:]
    assert stream_info(claims).n_samples == (1 << 36) - 1
    assert decoded(claims) is None
