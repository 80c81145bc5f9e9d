"""Write a generator's tensors back in the layout of the checkpoint that they began as."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from melmill.safetensors import is_safetensors
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.checkpoint import WEIGHT_NORMS, containers, safetensors, unpickled, unwrapped


def rewritten(name: str, data: bytes, state: Mapping[str, Tensor]) -> bytes:
    """Return a checkpoint with other values: same containers, names, weight norms and types.

    Parameters
    ----------
    name : str
        File name, for messages.
    data : bytes
        The checkpoint, as `melmill.stages.vocode.files.checkpoint.read` takes it.
    state : mapping of str to Tensor
        The generator's tensors under their plain names, weight norm folded.

    Returns
    -------
    bytes
        What ``torch.save`` writes.

    Raises
    ------
    VocoderError
        A tensor has no place in the checkpoint.
    """
    content: Any = safetensors(name, data) if is_safetensors(data) else unpickled(name, data)
    path, inner = containers(content)
    tensors = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
    plain = {id(value): key for key, value in unwrapped(tensors).items()}
    written: set[str] = set()
    made: dict[str, Any] = {}
    for key, value in inner.items():
        new, wrote = _replaced(plain.get(id(value), ""), value, state)
        made[key] = new
        written |= wrote
    lost = [key for key in state if key not in written]
    if lost:
        raise VocoderError(
            f"{name}: its layout has no place for {lost[0]!r} ({len(lost)} such in all), so what is trained can't be "
            "written back: begin with a checkpoint in the layout of the official code"
        )
    buffer = io.BytesIO()
    torch.save(_nested(content, path, made), buffer)
    return buffer.getvalue()


def _replaced(key: str, value: object, state: Mapping[str, Tensor]) -> tuple[object, set[str]]:
    """Return the new value of an entry, and the names of the tensors that it holds."""
    if not isinstance(value, Tensor):
        return value, set()
    for g, v in WEIGHT_NORMS:
        for part in (g, v):
            weight = f"{key.removesuffix(part)}.weight"
            if key.endswith(part) and weight in state:
                full = state[weight].detach().cpu()
                return (_norm(full, value) if part == g else full.reshape(value.shape)).to(value.dtype), {weight}
    if key in state:
        return state[key].detach().cpu().to(value.dtype).clone(), {key}
    return value, set()


def _norm(weight: Tensor, g: Tensor) -> Tensor:
    """Return the norm of a weight over all axes that `g` lacks."""
    axes = [axis for axis in range(weight.ndim) if g.ndim == 0 or g.shape[axis] == 1]
    norm: Tensor = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
    return norm.reshape(g.shape)


def _nested(content: Any, path: list[str], made: Mapping[str, Any]) -> Any:  # noqa: ANN401 - checkpoints hold anything
    if not path:
        return dict(made)
    return {**content, path[0]: _nested(content[path[0]], path[1:], made)}
