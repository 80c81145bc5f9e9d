"""YAML whose values know the lines that they were written on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from melmill.flows.errors import PipelineError

# Whole numbers are stored and hashed as 64 bits.
_INT_LIMIT = 2**63
# A pipeline has hundreds of values. Aliases of aliases can expand to billions.
_MAX_VALUES = 100_000
# Control characters other than tab and line ends, and halves of surrogate pairs: no file name,
# URL or terminal takes them.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


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
        The text is not YAML, or a mapping has a key twice. A key is no text, an alias holds itself,
        or a value is one that no field can have: see `_scalar`.
    """
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = f"{name}:{text.count(chr(10), 0, error.position) + 1}"
        raise PipelineError(f"not valid YAML: it holds the control character {text[error.position]!r}", line) from error
    try:
        node = loader.get_single_node()
        if node is None:
            return Located(None, f"{name}:1")
        _check_size(node, name, {}, set())
        return _located(loader, node, f"{name}:1", name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{name}:{mark.line + 1}" if mark else name
        raise PipelineError(f"not valid YAML: {error.problem or error.context}", line) from error
    except RecursionError as error:
        raise PipelineError("lists and mappings are nested too deeply", f"{name}:{loader.line + 1}") from error
    finally:
        loader.dispose()


def parse_override(text: str, where: str) -> Located:
    """Return the value that an override gives; all parts of it have the same place.

    Text without quotes is taken whole. There is no comment in it, and no line end becomes a space.

    >>> parse_override("My corpus #2", "--set").value, parse_override("[1, a]", "--set").plain()
    ('My corpus #2', [1, 'a'])

    Raises
    ------
    PipelineError
        The text is not YAML, or not a value that a pipeline can have.
    """
    value = _relocated(parse(text, where), where)
    node = yaml.compose(text, yaml.SafeLoader)
    plain = node is None or (isinstance(node, yaml.ScalarNode) and node.style is None)
    whole = text.strip()
    if plain and whole and not whole.startswith(("!", "&", "---")) and (node is None or node.value != whole):
        return Located(whole, where)
    return value


def _relocated(value: Located, where: str) -> Located:
    if isinstance(value.value, dict):
        return Located({key: _relocated(entry, where) for key, entry in value.items()}, where)
    if isinstance(value.value, list):
        return Located([_relocated(entry, where) for entry in value.value], where)
    return Located(value.value, where)


def _check_size(node: yaml.Node, name: str, sizes: dict[yaml.Node, int], parents: set[yaml.Node]) -> int:
    """Return how many values a node has once its aliases are expanded; raise if they never end."""
    if node in parents:
        raise PipelineError("an alias can't stand for a value that holds the alias itself", _where(node, name))
    if node not in sizes:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes[node] = 1 + sum(_check_size(child, name, sizes, parents | {node}) for child in children)
        if sizes[node] > _MAX_VALUES:
            raise PipelineError(
                f"aliases expand to more than {_MAX_VALUES} values; write fewer of them", _where(node, name)
            )
    return sizes[node]


def _located(loader: yaml.SafeLoader, node: yaml.Node, where: str, name: str) -> Located:
    if isinstance(node, yaml.MappingNode):
        return Located(_located_mapping(loader, node, name), where)
    if isinstance(node, yaml.SequenceNode):
        return Located([_located(loader, entry, _where(entry, name), name) for entry in node.value], where)
    return Located(_scalar(loader, node, _where(node, name)), where)


def _scalar(loader: yaml.SafeLoader, node: yaml.Node, where: str) -> Any:  # noqa: ANN401
    """Return the value of a scalar: finite, of 64 bits if it is whole, and printable if it is text."""
    shown = repr(node.value if len(node.value) <= 40 else f"{node.value[:40]}...")
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, KeyError, AttributeError, IndexError) as error:
        kind = node.tag.rpartition(":")[2]
        raise PipelineError(
            f"{shown} is read as {kind}, but is not a valid one: write it in quotes if it is text", where
        ) from error
    if isinstance(value, int) and abs(value) >= _INT_LIMIT:
        raise PipelineError(f"a whole number must be smaller than 2^63 in size, got {shown}", where)
    if isinstance(value, float) and not math.isfinite(value):
        raise PipelineError(f"a number must be finite, got {shown}", where)
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        raise PipelineError(f"text must hold no control characters, got {shown}", where)
    return value


def _located_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode, name: str) -> dict[str, Located]:
    """Return the entries of a mapping, each with the line of its key."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            kind = "list" if isinstance(key, yaml.SequenceNode) else "mapping"
            raise PipelineError(f"a key must be text, got a {kind}", _where(key, name))
        if _UNPRINTABLE.search(key.value):
            raise PipelineError(f"a key must hold no control characters, got {key.value!r}", _where(key, name))
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            raise PipelineError(f"{key.value!r} is given twice", _where(key, name))
        seen.add(key.value)
    loader.flatten_mapping(node)
    return {str(key.value): _located(loader, entry, _where(key, name), name) for key, entry in node.value}


def _where(node: yaml.Node, name: str) -> str:
    return f"{name}:{node.start_mark.line + 1}"
