"""Mels as NumPy arrays."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from melmill.stages.contract import Kind
from melmill.stages.formats.format import Encoded, ExchangeFormat
from melmill.stages.formats.npy import encode_npy


def _encode(M: NDArray[Any], sr: int, bits: int | None) -> Encoded:
    return Encoded(encode_npy(M), 0)


NPY = ExchangeFormat(
    name="npy",
    suffix="npy",
    kinds=frozenset({Kind.MEL}),
    encode=_encode,
    order=30,
    says="An array `(n_mels, n_frames)` in the type that is stored, which `numpy.load` and `mel_folder` read.",
)
