"""Take checkpoints apart that pickle a whole module, without importing what they name."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from melmill.stages.vocode.errors import VocoderError

# Only these are looked up for real: what tensors and plain containers are made of.
_REAL = {
    ("collections", "OrderedDict"),
    ("__builtin__", "set"),
    ("builtins", "set"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
}
_SETTING = (bool, int, float, str)


class _Inert:
    """Stand for an object whose class is not looked up: keep its attributes, do nothing."""

    def __new__(cls, *arguments: object, **named: object) -> _Inert:
        """Take any arguments and ignore them."""
        return super().__new__(cls)

    def __init__(self, *arguments: object, **named: object) -> None:
        """Do nothing."""

    def __setstate__(self, state: object) -> None:
        """Keep a mapping of attributes; ignore any other state."""
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Unpickler(pickle.Unpickler):
    """Make tensors and plain containers, and an `_Inert` for everything else that a file names."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - classes and functions
        if (module, name) in _REAL or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        return type(name, (_Inert,), {"__module__": module})


def _load(file: io.BufferedIOBase, **options: Any) -> Any:  # noqa: ANN401 - whatever is pickled
    return _Unpickler(file, **options).load()


def plain(name: str, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the settings of the module that a checkpoint pickles.

    Of the classes and functions that the file names, only those that make tensors are called.

    Parameters
    ----------
    name : str
        File name, for messages.
    data : bytes
        What ``torch.save`` wrote of a module, or of a mapping that holds one, in either of its
        formats.

    Returns
    -------
    state : dict of str to Tensor
        The same as the module's own ``state_dict()``.
    settings : dict
        The module's plain attributes: numbers, text and truth values.

    Raises
    ------
    VocoderError
        It can't be read, or holds no module.
    """
    pickler = SimpleNamespace(__name__="pickle", Unpickler=_Unpickler, load=_load)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", pickle_module=pickler, weights_only=False)
    except Exception as error:  # whatever a wrong or hostile pickle makes of the machine that reads it
        raise VocoderError(f"{name}: can't be taken apart: {type(error).__name__}: {error}") from error
    module = _module(content)
    if module is None:
        raise VocoderError(f"{name}: holds no module, got {type(content).__name__}: it needs no conversion")
    state = {key: value.detach() for key, value in _tensors(module, "")}
    settings = {key: value for key, value in vars(module).items() if isinstance(value, _SETTING) and key[0] != "_"}
    settings.pop("training", None)
    return state, settings


def _module(content: object) -> _Inert | None:
    """Return the outermost object that has a module's attributes."""
    if isinstance(content, _Inert):
        return content if "_modules" in vars(content) else None
    values = content.values() if isinstance(content, Mapping) else ()
    return next((found for found in map(_module, values) if found is not None), None)


def _tensors(module: _Inert, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Walk over a module as `torch.nn.Module.state_dict` does."""
    attributes = vars(module)
    fleeting = attributes.get("_non_persistent_buffers_set", set())
    own: dict[str, Any] = {**attributes.get("_parameters", {}), **attributes.get("_buffers", {})}
    yield from (
        (prefix + key, value) for key, value in own.items() if isinstance(value, Tensor) and key not in fleeting
    )
    children: Mapping[str, Any] = attributes.get("_modules", OrderedDict())
    for key, child in children.items():
        if isinstance(child, _Inert):
            yield from _tensors(child, f"{prefix}{key}.")
