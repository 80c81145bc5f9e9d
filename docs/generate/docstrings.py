"""Docstrings in NumPy style, as Markdown."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", flags=re.MULTILINE)
_FIELD = re.compile(r"^(?P<names>\w+(?:, \w+)*)(?: : (?P<type>.+))?$")
_REFERENCE = re.compile(r"`(melmill\.[\w.]+)`")


@dataclass(frozen=True, kw_only=True)
class Documented:
    """What a docstring says: the text before its first section, and each parameter by name."""

    text: str
    parameters: dict[str, str]


def read(owner: type | object) -> Documented:
    """Return what the docstring of `owner` says, without what it inherits."""
    docstring = inspect.cleandoc(getattr(owner, "__doc__", None) or "")
    text, *sections = _SECTION.split(docstring)
    by_name = dict(zip(sections[::2], sections[1::2], strict=True))
    return Documented(text=markdown(text), parameters=_parameters(by_name.get("Parameters", "")))


def fields_of(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each parameter; the class itself comes first."""
    said: dict[str, str] = {}
    for base in cls.__mro__[:-1]:
        said = read(base).parameters | said
    return said


def markdown(text: str) -> str:
    """Return reStructuredText of the simple kind that docstrings hold as Markdown.

    >>> markdown("``n_fft``, see `melmill.stages.extract.MelFields`.")
    '`n_fft`, see `MelFields`.'
    """
    text = re.sub(r"``(.+?)``", r"`\1`", text.strip())
    return _REFERENCE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)


def _parameters(section: str) -> dict[str, str]:
    said: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line.startswith(" "):
            for name in names:
                said[name] = f"{said[name]} {line.strip()}".strip()
        elif field := _FIELD.match(line):
            names = field["names"].split(", ")
            said |= dict.fromkeys(names, "")
    return {name: markdown(text) for name, text in said.items()}
