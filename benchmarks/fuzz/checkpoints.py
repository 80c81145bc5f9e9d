"""Checkpoints of vocoders: bytes, tensors, headers, and the configurations beside them."""

from __future__ import annotations

import io
import json
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fuzz.contract import Case, Kind, Wrong, check_message
from benchmarks.fuzz.mutating import mutated, mutated_text
from benchmarks.fuzz.networks import FAMILIES, Content
from benchmarks.fuzz.pipelines import restructured
from melmill.errors import Error
from melmill.stages.contract import StageFile
from melmill.stages.vocode.files.checkpoint import read, read_files
from melmill.stages.vocode.loaded import load

_WEIGHTS, _CONFIG = "weights", "beside"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32"}
_NUMBERS: tuple[Any, ...] = (
    0,
    1,
    -1,
    2,
    3,
    64,
    1000,
    4096,
    1 << 16,
    1 << 20,
    1 << 31,
    1 << 63,
    1 << 64,
    10**30,
    1.5,
    1e308,
    float("inf"),
    float("nan"),
    None,
    True,
    "1",
    "x",
    [],
    [1],
    {},
    "",
)
_WORDS = ("{", "}", "[", "]", ",", ":", '"', "null", "NaN", "1e999", "-1", "0", '"F32"', '"F8_E4M3"',
'"data_offsets"', '"shape"', "9" * 30, "\\u0000", "!!python/object:os.system", "- ", "\n", "&a", "*a",
"[" * 2000)  # fmt: skip


class Checkpoints(Kind):
    """The files of a vocoder, together in a ZIP file: ``weights``, and perhaps others."""

    name = "checkpoints"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        torch.set_num_threads(1)

    def case(self, rng: Random) -> Case:
        """Return a checkpoint of a family whose tensors, configuration or bytes are changed."""
        family = rng.choice(list(FAMILIES))
        content, config = _content(family)
        changed: Any = config
        files: dict[str, bytes] = {}
        note = family
        if rng.random() < 0.5:
            for _ in range(rng.randint(1, 2)):
                changed = _settings(changed, rng)
            note += " config"
        if rng.random() < 0.25:
            content = _tensors(content, rng)
            note += " tensors"
        weights, suffix = _saved(content, family if content is _content(family)[0] else None, rng)
        if rng.random() < 0.35:
            weights = _header(weights, rng) if suffix == "safetensors" and rng.random() < 0.6 else mutated(weights, rng)
            note += " bytes"
        if rng.random() < 0.02:
            suffix = "onnx"
        files[f"g_0.{suffix}"] = weights
        if rng.random() < 0.95:
            text = json.dumps(changed, default=repr)
            if rng.random() < 0.15:
                text = mutated_text(text, rng, _WORDS)
                note += " text"
            data = text.encode("utf-8", "surrogatepass")
            files[rng.choice(("config.json", "config.json", "config.yaml"))] = data
        if rng.random() < 0.05:
            files["stats.npy"] = mutated(_npy(np.ones((2, 6), np.float32)), rng)
        if rng.random() < 0.05 or (family in ("wavegrad", "diffwave") and rng.random() < 0.2):
            files["noise_schedule.npy"] = mutated(_npy(np.array([0.01, 0.1], np.float32)), rng)
        return Case("vocoder.zip", _zipped(files), note)

    def judge(self, case: Case) -> bool:
        """Load the vocoder, compare the tensors of safetensors, and make four frames of sound."""
        with zipfile.ZipFile(io.BytesIO(case.data)) as archive:
            held = {name: archive.read(name) for name in archive.namelist()}
        roles = {name: _role(name) for name in held}
        files = {roles[name]: StageFile(url=f"/v/{name}", data=data) for name, data in held.items()}
        weights = files[_WEIGHTS]
        try:
            if weights.name.endswith("safetensors"):
                _compare(weights)
            voc = load(read_files(files))
            if voc.spec.n_mels > 1 << 12 or voc.model.n_samples(4) > 1 << 18:
                return True
            y = voc(np.zeros((voc.spec.n_mels, 4), np.float32))
        except Error as error:
            check_message(error)
            return False
        if not np.isfinite(y).all() or y.ndim != 1:
            raise Wrong("a vocoder's result is not finite or no waveform", str(y.shape))
        return True


def _role(name: str) -> str:
    if name == "stats.npy":
        return "stats"
    if name == "noise_schedule.npy":
        return "schedule"
    return _CONFIG if name.startswith("config") else _WEIGHTS


@cache
def _content(family: str) -> Content:
    return FAMILIES[family]()


def _settings(config: Any, rng: Random) -> Any:  # noqa: ANN401
    """Return a configuration one of whose values is another number, or has another structure."""
    if rng.random() < 0.3:
        return restructured(config, rng)
    if isinstance(config, dict) and config:
        key = rng.choice(list(config))
        return {**config, key: _settings(config[key], rng)}
    if isinstance(config, list) and config and rng.random() < 0.6:
        at = rng.randrange(len(config))
        return [*config[:at], _settings(config[at], rng), *config[at + 1 :]]
    return rng.choice(_NUMBERS)


# What becomes of a tensor: another shape, another type, other values, or something else in its place.
_CHANGES: Sequence[Callable[[Tensor], Any]] = (
    lambda value: value.reshape(-1),
    lambda value: value[:0] if value.ndim else value,
    lambda value: value.unsqueeze(-1),
    lambda value: value.transpose(0, -1) if value.ndim else value,
    lambda value: value.to(torch.float16),
    lambda value: value.to(torch.float64),
    lambda value: value.to(torch.int32),
    lambda value: value * float("nan"),
    lambda value: value * 1e38,
    lambda value: value * 0.0,
    lambda value: "text",
    lambda value: None,
    lambda value: [value],
    lambda value: {"a": value},
)


def _tensors(content: dict[str, Any], rng: Random) -> dict[Any, Any]:
    """Return a checkpoint in which some tensors are lost, renamed or changed."""
    inner = next((key for key, value in content.items() if isinstance(value, dict)), None)
    state: dict[Any, Any] = dict(content if inner is None else content[inner])
    for _ in range(rng.randint(1, 3)):
        if not state:
            return {}
        key = rng.choice(list(state))
        value = state.pop(key)
        match rng.randrange(8):
            case 0:
                pass
            case 1:
                state[
                    rng.choice((f"{key}x", f"module.{key}", f"{str(key).removesuffix('.weight')}.weight_g", 7, ""))
                ] = value
            case _:
                state[key] = rng.choice(_CHANGES)(value) if isinstance(value, Tensor) else value
    if inner is None:
        return state
    other = rng.choice((inner, inner, "generator", "model_g", "state_dict", "x", "model"))
    return {**{key: value for key, value in content.items() if key != inner}, other: state}


def _saved(content: dict[Any, Any], family: str | None, rng: Random) -> tuple[bytes, str]:
    """Return the bytes of a checkpoint in one of three formats, and the suffix of its file."""
    form = rng.choice(("zip", "zip", "legacy", "safetensors"))
    if family is not None:
        return _whole(family, form), "safetensors" if form == "safetensors" else "pt"
    return _bytes(content, form), "safetensors" if form == "safetensors" else "pt"


@cache
def _whole(family: str, form: str) -> bytes:
    return _bytes(_content(family)[0], form)


def _bytes(content: dict[Any, Any], form: str) -> bytes:
    if form == "safetensors":
        return _safetensors(content)
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    return file.getvalue() if form == "zip" else _renumbered(file.getvalue(), content)


def _renumbered(data: bytes, content: object) -> bytes:
    """Return a file of torch's older format with numbers in place of addresses of memory.

    It names storages by their addresses, and orders them so. Equal inputs would differ.
    """
    stream, marks = io.BytesIO(data), list[tuple[int, object]]()
    for _ in range(4):
        marks += [(at or 0, value) for _, value, at in pickletools.genops(stream)]
    end = stream.tell()
    keys: list[str] = pickle.load(stream)
    new = {key: str(number) for number, key in enumerate(dict.fromkeys(value for _, value in marks if value in keys))}
    body = b""
    for (at, value), (after, _) in pairwise([*marks, (end, None)]):
        name = new.get(value) if isinstance(value, str) else None
        body += data[at:after] if name is None else b"X" + len(name).to_bytes(4, "little") + name.encode()
    sizes, stored = {str(one._cdata): one.nbytes() for one in _storages(content)}, dict[str, bytes]()
    for key in keys:
        stored[new[key]] = stream.read(8 + sizes[key])
    return b"".join([body, pickle.dumps(sorted(stored), protocol=2), *(stored[name] for name in sorted(stored))])


def _storages(content: object) -> Iterator[torch.UntypedStorage]:
    if isinstance(content, Tensor):
        yield content.untyped_storage()
    elif isinstance(content, dict | list | tuple):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _storages(value)


def _safetensors(content: dict[Any, Any]) -> bytes:
    inner = next((value for value in content.values() if isinstance(value, dict)), content)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for key, value in inner.items():
        if isinstance(value, Tensor) and value.dtype in _DTYPES:
            raw = value.contiguous().numpy().tobytes()
            offsets = [len(data), len(data) + len(raw)]
            header[str(key)] = {"dtype": _DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": offsets}
            data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _header(data: bytes, rng: Random) -> bytes:
    """Return a safetensors file whose header has other entries, or another length."""
    size = int.from_bytes(data[:8], "little")
    header, values = json.loads(data[8 : 8 + size]), data[8 + size :]
    if rng.random() < 0.7:
        text = json.dumps(_settings(header, rng), default=repr).encode()
    else:
        text = mutated_text(data[8 : 8 + size].decode(), rng, _WORDS).encode("utf-8", "replace")
    n = len(text) if rng.random() < 0.85 else rng.choice((0, 1, len(text) + 1, 100_000_000, 1 << 62, (1 << 64) - 1))
    return n.to_bytes(8, "little") + text + values


def _compare(weights: StageFile) -> None:
    """Raise Wrong unless the tensors are those that the format says; other files raise nothing."""
    state = read(weights.name, weights.data).state
    size = int.from_bytes(weights.data[:8], "little")
    header, values = json.loads(weights.data[8 : 8 + size]), weights.data[8 + size :]
    for key, tensor in state.items():
        entry = header.get(key)
        if entry is None or entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        raw = values[begin:end]
        if begin < 0 or len(raw) != 4 * math.prod(entry["shape"]) or list(tensor.shape) != entry["shape"]:
            raise Wrong("a tensor that its file does not hold whole", f"{key}: {entry}, {len(values)} bytes")
        if tensor.contiguous().numpy().tobytes() != raw:
            raise Wrong("other values than the file holds", key)


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()
