"""YAML that no pipeline can use is refused in one line with its place."""

from __future__ import annotations

import re

import pytest

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import as_yaml, parse, parse_override

# text, line of the error, message
UNUSABLE = [
    # characters
    ("a: 1\nname: 'a\x01'", 2, "holds the control character '\\x01'"),
    ("a: 1\nb: \ud800", 2, "holds the control character '\\ud800'"),
    ('a: 1\nname: "a\\0b"', 2, "text must hold no control characters, got 'a\\x00b'"),
    ('name: "\\ud800"', 1, "text must hold no control characters"),
    ('"a\\x07": 1', 1, "a key must hold no control characters"),
    ('a: 1\nname: "\\UFFFFFFFF"', 2, "an escape stands for no character"),
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
    ("a: 1\nb: 0100", 2, "must not begin with 0, got '0100', which is octal in YAML 1.1: write 100, or put it"),
    ("b: -08", 1, "write -8"),
    ("b: 00", 1, "write 0,"),
    # large documents
    (f"b: {'x' * 10_001}", 1, "text must have at most 10000 characters, got 10,001: 'xxx"),
    ("a: 1\nb: [" + "1," * 100_000 + "]", 2, "it holds more than 100000 values"),
    # scalars that look like a type but are none
    ("b: !!int 0x_", 1, "'0x_' is read as int"),
    ("b: !!bool maybe", 1, "'maybe' is read as bool"),
    ("b: !!bool yes", 1, "'yes' is read as bool"),
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


# How YAML 1.2's core schema reads a plain scalar.
READINGS = [
    # text, which YAML 1.1 reads as something else
    *[(text, text) for text in ("yes", "No", "on", "OFF", "1_000", "0b1", "-0x1F", "0x_", "12:30:00", "1:30.5")],
    *[(text, text) for text in ("2024-01-01", "2001-99-99", "2024-01-01T00:00:00Z", "=", "<<", "1_0.5")],
    # numbers, which YAML 1.1 reads as text
    ("1e-5", 1e-5),
    ("1E5", 1e5),
    ("1.5e3", 1.5e3),
    ("0o17", 15),
    # alike in both
    *[(text, None) for text in ("~", "null", "Null", "NULL", "")],
    *[(text, True) for text in ("true", "True", "TRUE")],
    ("false", False),
    ("0", 0),
    ("-0", 0),
    ("+5", 5),
    ("0x1F", 31),
    (".5", 0.5),
    ("5.", 5.0),
    ("-1.0e+2", -100.0),
    ("!!float 5", 5.0),
    ("!!str 5", "5"),
    ("0o8", "0o8"),
    ("1e", "1e"),
    (".", "."),
]


@pytest.mark.parametrize(("text", "value"), READINGS)
def test_plain_scalars_are_read_as_yaml_1_2_has_them(text: str, value: object) -> None:
    for read in (parse(f"a: {text}", "p.yaml").plain()["a"], parse_override(text, "--set").plain()):
        assert read == value
        assert type(read) is type(value)


def test_keys_are_text_and_merges_are_taken() -> None:
    text = "yes: 1\n12:30: 2\n1: &m {x: 1, y: 2}\n~: {<<: *m, y: 3}"
    assert parse(text, "p.yaml").plain() == {"yes": 1, "12:30": 2, "1": {"x": 1, "y": 2}, "~": {"x": 1, "y": 3}}


@pytest.mark.parametrize(
    "value",
    ["1e5", "yes", "0100", "12:30", "a\x85b", "\u2028", "\ufeff", "a\tb\nc", "😀", [1e-5, {"a": [None, True]}], ""],
)
def test_values_written_as_yaml_are_read_back(value: object) -> None:
    assert parse_override(as_yaml(value), "--set").plain() == value
