"""Mels, features and embeddings as NumPy arrays."""

from __future__ import annotations

from melmill.stages.contract import Kind
from melmill.stages.formats.format import Encoded, ExchangeFormat
from melmill.stages.formats.npy import encode_npy

NPY = ExchangeFormat(
    name="npy",
    suffix="npy",
    kinds=frozenset({Kind.MEL, Kind.FEATURES, Kind.EMBEDDING}),
    encode=lambda M, sr, bits: Encoded(encode_npy(M), n_clipped=0),
    order=30,
    says="An array `(n_mels, n_frames)` in the type that is stored, which `numpy.load` and `mel_folder` read. Features "
    "are `(n_rows, n_frames)`.",
)
