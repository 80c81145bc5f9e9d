"""YAML that no pipeline can use is refused in one line with its place."""

from __future__ import annotations

import re

import pytest

from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.located import parse

# text, line of the error, message
UNUSABLE = [
    # characters
    ("a: 1\nname: 'a\x01'", 2, "holds the control character '\\x01'"),
    ("a: 1\nb: \ud800", 2, "holds the control character '\\ud800'"),
    ('a: 1\nname: "a\\0b"', 2, "text must hold no control characters, got 'a\\x00b'"),
    ('name: "\\ud800"', 1, "text must hold no control characters"),
    ('"a\\x07": 1', 1, "a key must hold no control characters"),
    # keys
    ("a: 1\n? [a]\n: b", 2, "a key must be text, got a list"),
    ("{a: 1}: b", 1, "a key must be text, got a mapping"),
    # aliases
    ("a: 1\nstages: &a\n  x: *a", 2, "holds the alias itself"),
    ("&a [1, *a]", 1, "holds the alias itself"),
    ("a: 1\nb: &b\n  <<: *b", 2, "holds the alias itself"),
    ("a: &a {x: 1}\nb: &b {c: &c {<<: [*a, *b]}}", 2, "holds the alias itself"),
    (
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        6,
        "aliases expand to more than 100000 values",
    ),
    ("[" * 5000 + "]" * 5000, 1, "nested too deeply"),
    # numbers
    ("a: 1\nb: .inf", 2, "a number must be finite, got '.inf'"),
    ("b: [1, {c: -.Inf}]", 1, "a number must be finite"),
    ("b: .nan", 1, "a number must be finite"),
    ("b: 1.0e+999", 1, "a number must be finite"),
    (f"b: {'9' * 400}", 1, "smaller than 2^63 in size, got '9999"),
    (f"b: {'9' * 5000}", 1, "is read as int, but is not a valid one"),
    (f"b: 0x{'f' * 5000}", 1, "smaller than 2^63 in size"),
    # scalars that look like a type but are none
    ("b: 2001-99-99", 1, "'2001-99-99' is read as timestamp"),
    ("b: 0x_", 1, "'0x_' is read as int"),
    ("b: !!bool maybe", 1, "'maybe' is read as bool"),
    ("b: !!timestamp x", 1, "'x' is read as timestamp"),
    ("b: !!float x", 1, "'x' is read as float"),
]


@pytest.mark.parametrize(("text", "line", "message"), UNUSABLE)
def test_unusable_yaml_names_its_line(text: str, line: int, message: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(message)) as caught:
        parse(text, "p.yaml")
    assert str(caught.value).startswith(f"p.yaml:{line}: "), str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_aliases_that_end_and_large_numbers_that_fit_are_taken() -> None:
    text = f"a: &a {{x: 1}}\nb: [*a, *a]\nc: {{<<: *a, y: {2**63 - 1}}}\nd: {-(2**63) + 1}"
    assert parse(text, "p.yaml").plain() == {
        "a": {"x": 1},
        "b": [{"x": 1}, {"x": 1}],
        "c": {"x": 1, "y": 2**63 - 1},
        "d": -(2**63) + 1,
    }
