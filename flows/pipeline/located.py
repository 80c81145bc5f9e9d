"""YAML whose values know the lines that they were written on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from melmill.flows.errors import PipelineError


@dataclass(frozen=True, slots=True)
class Located:
    """Hold a YAML value and its place.

    Parameters
    ----------
    value : dict of str to Located, list of Located, or a scalar
    where : str
        ``file:line``, or the command-line option that it came from.
    """

    value: Any
    where: str

    def items(self) -> Iterator[tuple[str, Located]]:
        """Iterate over the entries of a mapping."""
        yield from self.value.items()

    def plain(self) -> Any:  # noqa: ANN401 - YAML may hold anything
        """Return the value without places.

        >>> parse("a: [1, x]", "f.yaml").plain()
        {'a': [1, 'x']}
        """
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain() for entry in self.value]
        return self.value


def parse(text: str, name: str) -> Located:
    """Return the value of one YAML document.

    Parameters
    ----------
    text : str
    name : str
        Stands before the line numbers, such as the path of the file.

    Raises
    ------
    PipelineError
        The text is not YAML, or a mapping has a key twice.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return Located(None, f"{name}:1") if node is None else _located(loader, node, f"{name}:1", name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{name}:{mark.line + 1}" if mark else name
        raise PipelineError(f"not valid YAML: {error.problem or error.context}", line) from error
    finally:
        loader.dispose()


def _located(loader: yaml.SafeLoader, node: yaml.Node, where: str, name: str) -> Located:
    if isinstance(node, yaml.MappingNode):
        return Located(_located_mapping(loader, node, name), where)
    if isinstance(node, yaml.SequenceNode):
        return Located([_located(loader, entry, _where(entry, name), name) for entry in node.value], where)
    return Located(loader.construct_object(node, deep=True), where)


def _located_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, name: str) -> dict[str, Located]:
    """Return the entries of a mapping, each with the line of its key."""
    seen = set()
    for key, _ in node.value:
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            raise PipelineError(f"{key.value!r} is given twice", _where(key, name))
        seen.add(key.value)
    loader.flatten_mapping(node)
    return {str(key.value): _located(loader, entry, _where(key, name), name) for key, entry in node.value}


def _where(node: yaml.Node, name: str) -> str:
    return f"{name}:{node.start_mark.line + 1}"
