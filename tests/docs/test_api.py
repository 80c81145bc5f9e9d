"""Docstrings as the Python reference shows them."""

from __future__ import annotations

import pytest

readable = pytest.importorskip("docs.generate.api", reason="the extra docs is not installed").readable


@pytest.mark.parametrize(
    ("docstring", "shown"),
    [
        ("Add.\n\n>>> 1 + 1\n2", "Add.\n\n```pycon\n>>> 1 + 1\n2\n```"),
        ("Add.\n\n>>> a = 1\n>>> a\n1\n\nMore.", "Add.\n\n```pycon\n>>> a = 1\n>>> a\n1\n```\n\nMore."),
        ("M : ndarray, shape (n_mels,)", "M : ndarray of shape (n_mels,)"),
        ("Add.\n\nExamples\n--------\n>>> 1\n1", "Add.\n\nExamples\n--------\n>>> 1\n1"),
        ("Nothing of it.", "Nothing of it."),
    ],
)
def test_a_docstring_is_made_readable(docstring: str, shown: str) -> None:
    assert readable(docstring) == shown
