"""Configurations that lie beside checkpoints or inside them, read as plain data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from melmill.stages.vocoders.errors import VocoderError

# YAML 1.1 wants a dot in a float: upstream files write 1e-4 and mean the number.
_FLOAT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _PlainLoader(yaml.SafeLoader):
    """Read any tag as the plain mapping, list or scalar under it: nothing that a file names is ever made."""


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:  # noqa: ANN401 - YAML may hold anything
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_PlainLoader.add_multi_constructor("", _plain)
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def parse(name: str, data: bytes | str) -> dict[str, Any]:
    r"""Return the mapping that a JSON or YAML file holds; YAML documents of one file are merged in order.

    Parameters
    ----------
    name : str
        File name, for messages; ``.json`` is read as JSON, all else as YAML.
    data : bytes or str

    Raises
    ------
    VocoderError
        It is neither, or not a mapping.

    >>> parse("args.yml", "!!python/object:argparse.Namespace\nngf: 32\nlr: 1e-4")
    {'ngf': 32, 'lr': 0.0001}
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        documents = [json.loads(text)] if name.endswith(".json") else list(yaml.load_all(text, Loader=_PlainLoader))
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise VocoderError(
            f"{name}: can't be read as {'JSON' if name.endswith('.json') else 'YAML'}: {problem}"
        ) from error
    merged: dict[str, Any] = {}
    for document in documents:
        if not isinstance(document, Mapping):
            raise VocoderError(f"{name}: expected a mapping of settings, got {type(document).__name__}")
        merged.update(document)
    return merged
