"""Arrays of mels from files of several formats: .npy, .npz, .pt and safetensors."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.flows.pipeline.errors import PipelineError
from melmill.safetensors import SIZES, Stored, is_safetensors, unpacked
from melmill.stages.formats.npy import decode_npy
from melmill.stages.numeric.errors import Unusable
from melmill.storage.files.location import folder_and_name

# Names that mels have in files of several arrays, most telling first.
_NAMES = ("mel", "mels", "mel_spec", "mel_spectrogram", "melspec", "spectrogram", "feats", "feat", "features", "arr_0")
_NUMPY = b"\x93NUMPY"
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
# Formats that people take for arrays, by their first bytes.
_OTHERS = {
    b"\x89PNG": "a PNG image: a mel drawn as a picture can't be read back",
    b"\xff\xd8\xff": "a JPEG image: a mel drawn as a picture can't be read back",
    b"RIFF": "a WAV file: give it as the recording, with --audio",
    b"fLaC": "a FLAC file: give it as the recording, with --audio",
    b"OggS": "an Ogg file: give it as the recording, with --audio",
    b"\x89HDF": "an HDF5 file: save the array in it as .npy",
}
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


def read_array(path: str) -> NDArray[Any]:
    """Return the array of a file, of several the one that may be a mel.

    Parameters
    ----------
    path : str
        A ``.npy``, ``.npz``, ``.pt`` or ``.safetensors`` file, or a URL of one.

    Returns
    -------
    ndarray
        In the type that the file has; bfloat16 becomes float32.

    Raises
    ------
    Unusable
        The file holds no array, or several that may be meant.
    PipelineError
        There is no such file.
    """
    folder, name = folder_and_name(path)
    try:
        data = folder.read(name)
    except FileNotFoundError as error:
        raise PipelineError("no such file") from error
    except IsADirectoryError as error:
        raise PipelineError("is a folder: name the files in it") from error
    return decoded(data)


def decoded(data: bytes) -> NDArray[Any]:
    """Return the array of a file's bytes; raise Unusable like `read_array`."""
    for magic, what in _OTHERS.items():
        if data.startswith(magic):
            raise Unusable(f"is {what}")
    if not data or data.startswith(_NUMPY):
        return decode_npy(data)
    if is_safetensors(data):
        return _of_safetensors(data)
    if data.startswith(_ZIP):
        members = _members(data)
        if members and all(member.endswith(".npy") for member in members):
            return _chosen({member.removesuffix(".npy"): decode_npy(read) for member, read in members.items()})
        return _of_torch(data)
    if data.startswith(_PICKLE):
        return _of_torch(data)
    raise Unusable(f"is no array: it starts with {data[:6]!r}, expected .npy, .npz, .pt or .safetensors")


def _members(data: bytes) -> dict[str, bytes]:
    """Return the members of a zip file if it is an .npz, else their names alone."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            arrays = all(name.endswith(".npy") for name in names)
            return {name: archive.read(name) if arrays else b"" for name in names}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, RuntimeError) as error:
        raise Unusable(f"file is truncated or damaged: {error}") from error


def _of_safetensors(data: bytes) -> NDArray[Any]:
    try:
        tensors, _ = unpacked(data)
    except ValueError as error:
        raise Unusable(f"file is truncated or no safetensors: {error}") from error
    return _chosen({name: _tensor(stored) for name, stored in tensors.items()})


def _tensor(stored: Stored) -> NDArray[Any]:
    """Return a tensor as an array. A bfloat16 is the upper half of a float32."""
    if stored.dtype == "BF16":
        halves = np.frombuffer(stored.data, dtype="<u2").astype(np.uint32) << 16
        return halves.view(np.float32).reshape(stored.shape)
    dtype = np.dtype(_DTYPES.get(stored.dtype, "?"))
    if dtype.itemsize != SIZES[stored.dtype] or len(stored.data) != math.prod(stored.shape) * dtype.itemsize:
        raise Unusable(f"holds a tensor of type {stored.dtype!r}, which is no number")
    return np.frombuffer(stored.data, dtype=dtype).reshape(stored.shape)


def _of_torch(data: bytes) -> NDArray[Any]:
    import torch  # here, as it is slow to import

    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the machine that reads it raise anything
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise Unusable(
            f"can't be read as a torch file of tensors alone ({why[0]:.100}): save it with torch.save(tensor, path)"
        ) from error
    return _chosen(dict(_tensors(content, "")))


def _tensors(content: object, name: str) -> list[tuple[str, NDArray[Any]]]:
    """Return the tensors in nested mappings and lists, by their names."""
    import torch

    if isinstance(content, torch.Tensor):
        tensor = content.detach().cpu()
        return [(name, np.asarray(tensor.float() if tensor.dtype == torch.bfloat16 else tensor))]
    if isinstance(content, Mapping):
        return [found for key, value in content.items() for found in _tensors(value, str(key))]
    if isinstance(content, list | tuple):
        return [found for index, value in enumerate(content) for found in _tensors(value, f"{name}{index}")]
    return []


def _chosen(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the array of a file that may be a mel: the only one, by its name, or by its shape."""
    if not arrays:
        raise Unusable("holds no array")
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    for name in _NAMES:
        if name in arrays:
            return arrays[name]
    planes = {name: array for name, array in arrays.items() if array.dtype.kind == "f" and 2 <= array.ndim <= 3}
    if len(planes) == 1:
        return next(iter(planes.values()))
    shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:5])
    raise Unusable(f"holds {len(arrays)} arrays, and no name says which is the mel ({shapes}): save it alone")
