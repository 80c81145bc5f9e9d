"""Mels of float16: every bit comes back, and smooth ones get short."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from melmill.storage.codecs.mel import decode_mel, encode_mel


def smooth(n_frames: int, n_mels: int) -> NDArray[np.float16]:
    rng = np.random.default_rng(0)
    return (np.cumsum(rng.normal(0.0, 0.2, (n_frames, n_mels)), axis=0) - 5.0).astype(np.float16)


def with_gaps() -> NDArray[np.float16]:
    M = smooth(1024, 80)
    M[700:] = np.nan
    M[:, 3] = -np.inf
    M[5, 5], M[6, 6] = -0.0, np.float16(6e-8)
    return M


CASES = {
    "smooth": smooth(1024, 80),
    "gaps": with_gaps(),
    "only a gap": np.full((1024, 80), np.nan, dtype=np.float16),
    "one value": np.full((1, 1), -3.0, dtype=np.float16),
    "odd sizes": smooth(77, 13),
    "all bits": np.random.default_rng(2).integers(0, 2**16, (300, 41)).astype(np.uint16).view(np.float16),
}


@pytest.mark.parametrize("M", CASES.values(), ids=CASES)
def test_every_bit_comes_back(M: NDArray[np.float16]) -> None:
    decoded = decode_mel(encode_mel(M), M.shape)
    assert (decoded.shape, decoded.dtype) == (M.shape, M.dtype)
    assert decoded.tobytes() == M.tobytes()


@settings(deadline=None, max_examples=100)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=60)))
def test_any_bits_come_back(bits: NDArray[np.uint16]) -> None:
    M = bits.view(np.float16)
    assert decode_mel(encode_mel(M), M.shape).tobytes() == M.tobytes()


@pytest.mark.parametrize("part", [slice(0, 0), slice(0, 1), slice(3, 60), slice(-5, None)])
@pytest.mark.parametrize("M", CASES.values(), ids=CASES)
def test_a_part_has_the_frames_of_the_whole(M: NDArray[np.float16], part: slice) -> None:
    assert decode_mel(encode_mel(M), M.shape, part).tobytes() == M[part].tobytes()


def test_a_gap_takes_next_to_nothing() -> None:
    assert len(encode_mel(CASES["only a gap"])) < 0.02 * CASES["only a gap"].nbytes
    assert len(encode_mel(CASES["gaps"])) < 0.6 * len(encode_mel(CASES["smooth"])) + 0.3 * CASES["gaps"].nbytes


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        decode_mel(encode_mel(smooth(10, 8)), (11, 8))
