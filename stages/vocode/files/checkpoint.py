"""Checkpoint files to plain tensors: containers opened, weight norm folded, nothing unpickled but tensors."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.family import Checkpoint
from melmill.stages.vocode.files import configuration, safetensors

# Where a generator's tensors lie inside a training checkpoint, in the order of preference.
_CONTAINERS = ("generator", "model_g", "model", "state_dict")
# Where a training checkpoint keeps its settings, as a mapping or as YAML text.
_SETTINGS = ("hp_str", "config", "params", "hparams", "args")
_WEIGHT_NORMS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)
_FOREIGN = re.compile(r"GLOBAL ((?:\w+\.)*(\w+))\b(?!\.)")
_ZIP = b"PK\x03\x04"


def read(name: str, data: bytes) -> Checkpoint:
    """Read the bytes of a checkpoint.

    Parameters
    ----------
    name : str
        File name, for messages; ``.onnx`` tells the one format that has no mark of its own.
    data : bytes
        What ``torch.save`` wrote (either format), safetensors, TorchScript, a torch.export archive or ONNX.

    Returns
    -------
    Checkpoint
        Its `config` is what the file itself holds.

    Raises
    ------
    VocoderError
        The file is truncated, is none of these, or pickles more than tensors.
    """
    program = _program(name, data)
    if program is not None:
        return Checkpoint(name=name, state={}, layout=program, program=data)
    content = safetensors.read(name, data) if safetensors.is_safetensors(data) else _unpickled(name, data)
    state, config, layout = _opened(name, content)
    return Checkpoint(name=name, state=_plain(name, state), config=config, layout=layout)


def _program(name: str, data: bytes) -> str | None:
    """Return the layout of a file that is a program rather than weights; None where it is not one."""
    if name.endswith(".onnx"):
        return "onnx"
    if not data.startswith(_ZIP):
        return None
    try:
        members = {member.partition("/")[2] or member for member in zipfile.ZipFile(io.BytesIO(data)).namelist()}
    except zipfile.BadZipFile:
        return None
    if "archive_format" in members or "serialized_exported_program.json" in members:
        return "pt2"
    return "torchscript" if "constants.pkl" in members else None


def _unpickled(name: str, data: bytes) -> Any:  # noqa: ANN401 - checkpoints hold anything
    if data.startswith(b"version https://git-lfs"):
        raise VocoderError(f"{name}: is a Git LFS pointer of {len(data)} bytes, not the file: run `git lfs pull`")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as error:
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
    config: dict[str, Any] = {}
    path: list[str] = []
    while isinstance(content, Mapping):
        config = config or _settings(name, content)
        inner = next((key for key in _CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        path.append(inner)
        content = content[inner]
    state = (
        {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not state:
        found = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise VocoderError(
            f"{name}: holds no generator: expected one of {', '.join(_CONTAINERS)} or tensors, got {found}"
        )
    return state, config, ".".join(path) or "bare"


def _settings(name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    for key in _SETTINGS:
        value = content.get(key)
        if isinstance(value, str):
            return configuration.parse(f"{name}[{key!r}]", value)
        if isinstance(value, Mapping):
            return dict(value)
    return {}


def _plain(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under plain names, in float32, weight norm folded, in the order of the file."""
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    state = {
        key: value.detach().float() if value.is_floating_point() else value.detach() for key, value in state.items()
    }
    folded = dict(_folded(name, state))
    for key, value in folded.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise VocoderError(
                f"{name}: tensor {key!r} holds NaN or infinity: the file is damaged or training diverged"
            )
    return folded


def _folded(name: str, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        norm = next(((g, v) for g, v in _WEIGHT_NORMS if key.endswith((g, v))), None)
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
    """Return g v / ||v||, the norm over all axes that g lacks (Salimans and Kingma 2016, equation 2)."""
    if g.ndim not in (0, v.ndim) or any(size not in (1, v.shape[axis]) for axis, size in enumerate(g.shape)):
        raise VocoderError(
            f"{name}: the weight norm of {base!r} has g of shape {tuple(g.shape)} for v of {tuple(v.shape)}"
        )
    axes = [axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1]
    if g.ndim and axes == list(range(1, v.ndim)):
        # What torch's own weight norms call: another order of summation moves the last digit; deep layers amplify it.
        return torch._weight_norm(v, g, 0)
    norm: Tensor = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
    return v * (g / norm)
