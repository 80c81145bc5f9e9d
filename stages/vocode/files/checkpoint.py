"""Read the files of a vocoder into a `Checkpoint`: plain tensors and settings.

Only tensors are unpickled.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from melmill.safetensors import Stored, is_safetensors, unpacked
from melmill.stages.contract import StageFile, StageFiles
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.companions import (
    CONFIG,
    FOUND_CONFIG,
    SCHEDULE,
    STATS,
    WEIGHTS,
    parse,
    read_schedule,
    read_stats,
    stated_mel,
)
from melmill.stages.vocode.network import Checkpoint

# Where a generator's tensors lie inside a training checkpoint, in the order of preference.
_CONTAINERS = ("generator", "model_g", "model", "state_dict")
# Prefixes of a generator's tensors in a state that holds its discriminators too.
_GENERATORS = ("generator", "model_g")
# Where a training checkpoint keeps its settings, as a mapping or as YAML text.
_SETTINGS = ("hp_str", "config", "params", "hparams", "args")
WEIGHT_NORMS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)
_FOREIGN = re.compile(r"GLOBAL ((?:\w+\.)*(\w+))\b(?!\.)")
_ZIP = b"PK\x03\x04"
_SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_files(files: StageFiles, mel: MelSpec | None = None, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a checkpoint with its configuration and everything else that belongs to it.

    Parameters
    ----------
    files : mapping of str to StageFile
        By the roles of `candidates`; only the weights must be there.
    mel : MelSpec or None
        The mel that the user says the vocoder needs; None: what the configuration says.
    config : mapping or None
        A configuration in place of those among the files.

    Raises
    ------
    VocoderError
        One of the files can't be read.
    """
    checkpoint = read(files[WEIGHTS].name, files[WEIGHTS].data)
    if config is None:
        # One that was asked for is the only one. One that was found says what the weights leave
        # open.
        asked = files.get(CONFIG)
        config = _parsed(files.get(FOUND_CONFIG)) | dict(checkpoint.config) if asked is None else _parsed(asked)
    stats, schedule = files.get(STATS), files.get(SCHEDULE)
    arrays = {} if stats is None else read_stats(stats.name, stats.data)
    return replace(
        checkpoint,
        config=dict(config),
        mel=mel or stated_mel(checkpoint.name, config),
        stats={key: torch.from_numpy(values) for key, values in arrays.items()},
        schedule=() if schedule is None else read_schedule(schedule.name, schedule.data),
    )


def _parsed(file: StageFile | None) -> dict[str, Any]:
    return {} if file is None else parse(file.name, file.data)


def read(name: str, data: bytes) -> Checkpoint:
    """Read the bytes of a checkpoint by itself.

    Parameters
    ----------
    name : str
        File name, for messages. The ending ``.onnx`` tells the one format that has no mark of its
        own.
    data : bytes
        What ``torch.save`` wrote (either format), safetensors, TorchScript, a torch.export archive
        or ONNX.

    Returns
    -------
    Checkpoint
        Its `config` is what the file itself holds.

    Raises
    ------
    VocoderError
        The file is truncated, is none of these, or it pickles more than tensors.
    """
    program = _program(name, data)
    if program is not None:
        return Checkpoint(name=name, state={}, layout=program, program=data)
    content = safetensors(name, data) if is_safetensors(data) else unpickled(name, data)
    state, config, layout = _opened(name, content)
    return Checkpoint(name=name, state=_plain(name, state), config=config, layout=layout)


def _program(name: str, data: bytes) -> str | None:
    """Return the layout of a file that is a program rather than weights.

    None: it is no program.
    """
    if name.endswith(".onnx"):
        return "onnx"
    if not data.startswith(_ZIP):
        return None
    try:
        members = {member.partition("/")[2] or member for member in zipfile.ZipFile(io.BytesIO(data)).namelist()}
    # Damaged tables of contents raise more than they should, such as UnicodeDecodeError.
    except (zipfile.BadZipFile, ValueError, LookupError, struct.error, OSError, NotImplementedError):
        return None
    if "archive_format" in members or "serialized_exported_program.json" in members:
        return "pt2"
    return "torchscript" if "constants.pkl" in members else None


def safetensors(name: str, data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file.

    Raises
    ------
    VocoderError
        The file is truncated or not of this format.
    """
    try:
        return {key: _tensor(stored) for key, stored in unpacked(data)[0].items()}
    except ValueError as error:
        raise VocoderError(
            f"{name}: is truncated or not safetensors ({len(data)} bytes): {error}. Fetch it again"
        ) from error


def _tensor(stored: Stored) -> Tensor:
    dtype = _SAFETENSORS_DTYPES[stored.dtype]
    if not len(stored.data):
        return torch.empty(stored.shape, dtype=dtype)
    # Tensors can be written to, so each has a copy of its own bytes.
    return torch.frombuffer(bytearray(stored.data), dtype=dtype).reshape(stored.shape)


def unpickled(name: str, data: bytes) -> Any:  # noqa: ANN401 - checkpoints hold anything
    """Return what a torch.save file of tensors and plain values holds; raise VocoderError."""
    if data.startswith(b"version https://git-lfs"):
        raise VocoderError(f"{name}: is a Git LFS pointer of {len(data)} bytes, not the file: run `git lfs pull`")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the machine that reads it raise anything
        foreign = _FOREIGN.search(str(error))
        # A file that ends in the middle of a name is merely cut.
        if foreign and not data.endswith(foreign[2].encode()):
            raise VocoderError(
                f"{name}: pickles a {foreign[1]} object, not only tensors: reading it would run its code. "
                f"If you trust the file: melmill vocoder convert --trust {name} OUT"
            ) from error
        raise VocoderError(
            f"{name}: is truncated or not a checkpoint ({len(data)} bytes; expected a torch.save file, safetensors, "
            "TorchScript, .pt2 or .onnx). Fetch it again and compare its size"
        ) from error


def _opened(name: str, content: Any) -> tuple[Mapping[str, Tensor], dict[str, Any], str]:  # noqa: ANN401
    """Return the tensors, the settings and the path of containers that led to the tensors."""
    path, content, config = _walked(name, content)
    state = (
        {key: value for key, value in content.items() if isinstance(value, Tensor) and isinstance(key, str)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        names = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise VocoderError(
            f"{name}: holds no generator: expected one of {', '.join(_CONTAINERS)} or tensors, got {names}"
        )
    return state, config, ".".join(path) or "bare"


def containers(content: Any) -> tuple[list[str], Mapping[str, Any]]:  # noqa: ANN401
    """Return the names of the containers that lead to the tensors, and the mapping that holds them."""
    path, inner, _ = _walked("", content, settings=False)
    return path, inner if isinstance(inner, Mapping) else {}


def _walked(name: str, content: Any, *, settings: bool = True) -> tuple[list[str], Any, dict[str, Any]]:  # noqa: ANN401
    config: dict[str, Any] = {}
    path: list[str] = []
    while isinstance(content, Mapping):
        config = config or (_settings(name, content) if settings else {})
        inner = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        path.append(inner)
        content = content[inner]
    return path, content, config


def _settings(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    for key in _SETTINGS:
        value = content.get(key)
        if isinstance(value, str):
            return parse(f"{name}[{key!r}]", value)
        if isinstance(value, Mapping):
            return dict(value)
    return {}


def _plain(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under plain names, in float32, in the order of the file.

    Weight norm is folded.
    """
    state = {
        key: value.detach().float() if value.is_floating_point() else value.detach()
        for key, value in unwrapped(state).items()
    }
    folded = dict(_folded(name, state))
    for key, value in folded.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise VocoderError(
                f"{name}: tensor {key!r} holds NaN or infinity: the file is damaged or training diverged"
            )
    return folded


def unwrapped(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the generator's tensors without the prefixes that wrappers put before their names.

    ``torch.compile`` adds ``_orig_mod`` at any depth. DataParallel adds ``module``, and a training
    module the name of its attribute. Tensors beside a prefixed generator are left out.
    """
    state = {".".join(part for part in key.split(".") if part != "_orig_mod"): value for key, value in state.items()}
    # An averaged model counts its averages beside its module.
    state.pop("n_averaged", None)
    while (prefix := _wrapper(state)) is not None:
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return state


def _wrapper(state: Mapping[str, Tensor]) -> str | None:
    """Return the prefix that a wrapper put before the generator's names; None: there is none."""
    roots = {key.partition(".")[0] for key in state}
    root = next(iter(roots)) if len(roots) == 1 else next((name for name in _GENERATORS if name in roots), None)
    if root is None:
        return None
    names = [key.removeprefix(f"{root}.") for key in state if key.startswith(f"{root}.")]
    # A number follows the name of a list of layers, as in MelGAN. A network has layers inside; a
    # single layer has nothing but its own tensors.
    is_list = any(name.partition(".")[0].isdigit() for name in names)
    is_network = any("." in name and not name.startswith("parametrizations.") for name in names)
    return f"{root}." if root == "module" or (is_network and not is_list) else None


def _folded(name: str, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        norm = next(((g, v) for g, v in WEIGHT_NORMS if key.endswith((g, v))), None)
        if norm is None:
            yield key, value
            continue
        base = key.removesuffix(norm[0]).removesuffix(norm[1])
        missing = [base + part for part in norm if base + part not in state]
        if missing:
            raise VocoderError(f"{name}: tensor {missing[0]!r} is missing beside {key!r}: weight norm needs both")
        if key.endswith(norm[1]):
            yield f"{base}.weight", _weight(name, base, state[base + norm[0]], value)


def _weight(name: str, base: str, g: Tensor, v: Tensor) -> Tensor:
    """Return g v / ||v||, the norm over all axes that g lacks.

    This is equation 2 of Salimans and Kingma 2016.
    """
    if g.ndim not in (0, v.ndim) or any(size not in (1, v.shape[axis]) for axis, size in enumerate(g.shape)):
        raise VocoderError(
            f"{name}: the weight norm of {base!r} has g of shape {tuple(g.shape)} for v of {tuple(v.shape)}"
        )
    axes = [axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1]
    if g.ndim and axes == list(range(1, v.ndim)):
        # What torch's own weight norms call: another order of summation moves the last digit; deep
        # layers amplify it.
        return torch._weight_norm(v, g, 0)
    norm: Tensor = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
    return v * (g / norm)
