"""YAML 1.2 whose values know the lines that they were written on.

PyYAML parses the text. What a plain scalar means is decided here, by the core schema of YAML 1.2:
``yes`` and ``12:30`` are text, ``1e-5`` is a number. Merge keys (``<<``) are taken too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from melmill.flows.pipeline.errors import PipelineError
from melmill.storage.files.places import UNPRINTABLE

# Whole numbers are stored and hashed as 64 bits.
_INT_LIMIT = 2**63
# A pipeline has hundreds of values. Aliases of aliases can expand to billions.
_MAX_VALUES = 100_000
# A path has 4,096 bytes at most, and no other text of a pipeline is longer.
_MAX_TEXT = 10_000
# Shown of a value in a message, characters.
_SHOWN = 80


_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "merge")
)
# Octal in YAML 1.1 and decimal in YAML 1.2: nobody can know which is meant.
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
# The tags of plain scalars, each with its form. They are tried in this order.
_CORE_SCHEMA = (
    (_NULL, r"~|null|Null|NULL|"),
    (_BOOL, r"true|True|TRUE|false|False|FALSE"),
    (_INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
    (_MERGE, r"<<"),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, with the scalars of YAML 1.2's core schema and a limit on their number."""

    # PyYAML fills it by `add_implicit_resolver`. An empty one drops the scalars of YAML 1.1.
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML declares it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.n_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node, and stop before a long list fills the memory."""
        self.n_nodes += 1
        if self.n_nodes > _MAX_VALUES:
            mark = self.get_mark()
            raise yaml.composer.ComposerError(None, None, f"it holds more than {_MAX_VALUES} values", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


for _tag, _form in _CORE_SCHEMA:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_form})\Z"), None)


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    digits = node.value
    base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
    return int(digits if base == 10 else digits[2:], base)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    # Python's word for infinity has no dot.
    return float(re.sub(r"\.(?=[inIN])", "", node.value))


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return {"true": True, "false": False}[node.value.lower()]


_Loader.add_constructor(_INT, _whole)
_Loader.add_constructor(_FLOAT, _number)
_Loader.add_constructor(_BOOL, _truth)
# As a value it is text, and only as a key it merges.
_Loader.add_constructor(_MERGE, lambda loader, node: node.value)

# Text that may stand without quotes. Whether it is read as text is another question.
_PLAIN = re.compile(r"[\w./][\w./@:+-]*")
# What JSON leaves as it is, and YAML takes for the end of a line or refuses.
_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")


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

    def shown(self) -> str:
        """Return the value for a message, shortened where it is long."""
        return shortened(repr(self.plain()))


def shortened(text: str) -> str:
    """Return a text for a message, without what is past its first characters.

    >>> shortened("a" * 100)[-8:]
    'aaaaa...'
    """
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


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
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = f"{name}:{text.count(chr(10), 0, error.position) + 1}"
        raise PipelineError(f"not valid YAML: it holds the control character {text[error.position]!r}", line) from error
    try:
        node = _node(loader, name)
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


def _node(loader: _Loader, name: str) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:
        raise PipelineError(
            "not valid YAML: an escape stands for no character; the last one is \\U0010FFFF",
            f"{name}:{loader.line + 1}",
        ) from error


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
    node = yaml.compose(text, _Loader)
    plain = node is None or (isinstance(node, yaml.ScalarNode) and node.style is None)
    whole = text.strip()
    if plain and whole and not whole.startswith(("!", "&", "---")) and (node is None or node.value != whole):
        return Located(whole, where)
    return value


def as_yaml(value: object) -> str:
    """Return plain values as YAML in one line, which `parse` reads back.

    Text is in quotes where it needs them. Lists and mappings are JSON.

    Raises
    ------
    TypeError
        It holds something else than text, numbers, truths, None, lists, tuples and mappings.

    >>> as_yaml("data/LJSpeech"), as_yaml("1.5"), as_yaml("a b, c"), as_yaml(["yes", 1e-5])
    ('data/LJSpeech', '"1.5"', '"a b, c"', '["yes", 1e-05]')
    """
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        with suppress(PipelineError):
            if parse(value, "").value == value:
                return value
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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


def _located(loader: _Loader, node: yaml.Node, where: str, name: str) -> Located:
    if isinstance(node, yaml.MappingNode):
        return Located(_located_mapping(loader, node, name), where)
    if isinstance(node, yaml.SequenceNode):
        return Located([_located(loader, entry, _where(entry, name), name) for entry in node.value], where)
    return Located(_scalar(loader, node, _where(node, name)), where)


def _scalar(loader: _Loader, node: yaml.Node, where: str) -> Any:  # noqa: ANN401
    """Return the value of a scalar: finite, of 64 bits if it is whole, and printable if it is text."""
    if node.tag == _INT and _LEADING_ZERO.fullmatch(node.value):
        number = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", node.value)
        raise PipelineError(
            f"a whole number must not begin with 0, got {shortened(node.value)!r}, which is octal in YAML 1.1: "
            f"write {shortened(number)}, or put it in quotes if it is text",
            where,
        )
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
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        raise PipelineError(f"text must have at most {_MAX_TEXT} characters, got {len(value):,}: {shown}", where)
    if isinstance(value, str) and UNPRINTABLE.search(value):
        raise PipelineError(f"text must hold no control characters, got {shown}", where)
    return value


def _located_mapping(loader: _Loader, node: yaml.MappingNode, name: str) -> dict[str, Located]:
    """Return the entries of a mapping, each with the line of its key."""
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            kind = "list" if isinstance(key, yaml.SequenceNode) else "mapping"
            raise PipelineError(f"a key must be text, got a {kind}", _where(key, name))
        if UNPRINTABLE.search(key.value):
            raise PipelineError(
                f"a key must hold no control characters, got {shortened(repr(key.value))}", _where(key, name)
            )
        if key.value in seen and key.tag != _MERGE:
            raise PipelineError(f"{shortened(repr(key.value))} is given twice", _where(key, name))
        seen.add(key.value)
    loader.flatten_mapping(node)
    return {str(key.value): _located(loader, entry, _where(key, name), name) for key, entry in node.value}


def _where(node: yaml.Node, name: str) -> str:
    return f"{name}:{node.start_mark.line + 1}"
