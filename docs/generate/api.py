"""Docstrings made ready for the Python reference, before they are read."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^(?: *>>> .*\n?(?:^ *(?!>>> )\S.*\n?)*)+", flags=re.MULTILINE)


class Readable(griffe.Extension):
    """Show doctests as code, and leave shapes as they are written."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:  # noqa: ANN401 - griffe's own
        """Rewrite the docstrings of a package that was loaded."""
        del kwargs
        _rewrite(pkg)


def _rewrite(owner: griffe.Object) -> None:
    if owner.docstring:
        owner.docstring.value = readable(owner.docstring.value)
    for member in owner.members.values():
        if not isinstance(member, griffe.Alias):
            _rewrite(member)


def readable(docstring: str) -> str:
    """Return a docstring whose doctests are blocks of code and whose types are no Python."""
    docstring = docstring.replace(", shape (", " of shape (")
    if "\nExamples\n" in docstring:  # a section that griffe knows
        return docstring
    return _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", docstring).rstrip()
