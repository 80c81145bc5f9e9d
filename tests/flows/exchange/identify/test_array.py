"""Arrays are read from .npy, .npz, .pt and safetensors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

import melmill
from melmill.flows.exchange.identify.array import decoded
from melmill.safetensors import Stored, packed

M = np.arange(12, dtype=np.float32).reshape(3, 4)


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        npy(M),
        npz(anything=M),
        npz(mel=M, f0=np.zeros(4)),
        npz(x=M, f0=np.zeros(4)),
        saved(torch.from_numpy(M)),
        saved({"mel": torch.from_numpy(M), "length": 4}),
        saved([torch.from_numpy(M), torch.zeros(4)]),
        saved(torch.from_numpy(M).bfloat16()),
        packed({"mel": Stored("F32", (3, 4), M.tobytes())}, {}),
        packed({"mel": Stored("BF16", (3, 4), (M.view(np.uint32) >> 16).astype(np.uint16).tobytes())}, {}),
    ],
    ids=["npy", "npz", "npz by name", "npz by shape", "pt", "pt mapping", "pt list", "pt bf16", "st", "st bf16"],
)
def test_the_array_of_a_file_is_found(data: bytes) -> None:
    np.testing.assert_array_equal(decoded(data), M)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"RIFF....WAVE", "a WAV file: give it as the recording"),
        (b"\x89PNG\r\n", "a PNG image"),
        (b"hello", "is no array"),
        (npy(M)[:-3], "truncated"),
        (saved(torch.zeros(3))[:-40], "truncated|can't be read"),
        (npz(a=M, b=M), "holds 2 arrays"),
        (saved({"a": 1}), "holds no array"),
    ],
)
def test_what_holds_no_array_is_told(data: bytes, said: str) -> None:
    with pytest.raises(melmill.Unusable, match=said):
        decoded(data)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    with pytest.raises(melmill.Unusable, match="torch file of tensors alone"):
        decoded(saved(tmp_path))
