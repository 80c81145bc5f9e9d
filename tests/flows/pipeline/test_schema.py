"""The JSON Schema of pipeline.yaml says of a pipeline's form what the loader says."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from melmill.flows.cli.group import cli
from melmill.flows.pipeline.convert import convert, field_types, takes_list
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.located import parse
from melmill.flows.pipeline.schema import DIALECT, field_descriptions, pipeline_schema
from melmill.stages import registry
from melmill.stages.contract import Input, Kind, OneOf
from melmill.stages.registry import stage_class, stage_names
from tests.flows.conftest import PIPELINE
from tests.flows.pipeline import test_bad_input, test_spec
from tests.test_docs import PIPELINES, completed, yaml_blocks

SCHEMA = pipeline_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
ZOO = Path(__file__).parents[2] / "data" / "keys" / "zoo.yaml"


def problems(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(parse(text, "").plain())]


def test_the_command_prints_a_valid_schema() -> None:
    done = CliRunner().invoke(cli, ["schema"])
    assert json.loads(done.stdout) == SCHEMA
    assert SCHEMA["$schema"] == DIALECT
    Draft202012Validator.check_schema(SCHEMA)
    # the line that editors look for
    assert "# yaml-language-server: $schema=pipeline.schema.json" in CliRunner().invoke(cli, ["schema", "-h"]).stdout


@pytest.mark.parametrize("path", [*PIPELINES, ZOO], ids=lambda path: path.name)
def test_pipelines_that_ship_are_valid(path: Path) -> None:
    assert problems(path.read_text()) == []


@pytest.mark.parametrize("where", yaml_blocks())
def test_every_yaml_block_of_the_documents_is_valid(where: str) -> None:
    assert problems(completed(yaml_blocks()[where])) == []


@pytest.mark.parametrize(("old", "new"), [case[:2] for case in test_spec.BAD_FORM])
def test_bad_form_is_invalid(old: str, new: str) -> None:
    assert problems(test_spec.GOOD) == []
    assert problems(test_spec.GOOD.replace(old, new, 1))


@pytest.mark.parametrize(("old", "new"), [case[:2] for case in test_bad_input.BAD_FORM])
def test_bad_form_of_a_whole_project_is_invalid(old: str, new: str) -> None:
    assert problems(PIPELINE.format(store="store", root="corpus")) == []
    assert problems(PIPELINE.replace(old, new, 1).format(store="store", root="corpus"))


@pytest.mark.parametrize(
    "text",
    [
        *(test_spec.GOOD.replace(old, new, 1) for old, new, *_ in test_spec.BAD_MEANING),
        *(PIPELINE.replace(old, new, 1).format(store="s", root="c") for old, new, _ in test_bad_input.BAD_MEANING),
    ],
)
def test_what_only_stages_and_the_graph_know_is_valid(text: str) -> None:
    """A schema can't know these, and an editor must not be told that it does."""
    assert problems(text) == []


# A value of every type that YAML has, with lists and mappings of them.
VALUES = [
    "null",
    "true",
    "3",
    "0.5",
    "text",
    "[]",
    "[3]",
    "[0.5, 8.0]",
    "[a, b]",
    "[true]",
    "[[1.0, 2.0]]",
    "{}",
    "{a: 1}",
]


def taken(cls: type, name: str, text: str) -> bool:
    """Tell whether a node's field takes a value, or a list of values, by its type."""
    hint, value = field_types(cls)[name], parse(text, "x")
    listed = isinstance(value.value, list) and not takes_list(hint)
    entries = value.value if listed else [value]
    try:
        for entry in entries:
            convert(entry, hint, name)
    except PipelineError:
        return False
    return bool(entries)


@pytest.mark.parametrize("uses", stage_names())
def test_types_are_those_of_the_loader(uses: str) -> None:
    cls = stage_class(uses)
    defs = SCHEMA["$defs"]
    hints = typing.get_type_hints(cls, include_extras=True)
    for name in field_types(cls):
        if name in cls.inputs:
            continue
        schema = Draft202012Validator({**defs[f"stage-{uses}"]["properties"][name], "$defs": defs})
        for text in VALUES:
            if "OneOf" in str(hints[name]) and text in ("text", "[a, b]"):
                continue  # names are checked by the stage
            assert schema.is_valid(parse(text, "").plain()) == taken(cls, name, text), (name, text)


@pytest.mark.parametrize("uses", stage_names())
def test_defaults_are_valid_and_fields_are_described(uses: str) -> None:
    cls, properties = stage_class(uses), SCHEMA["$defs"][f"stage-{uses}"]["properties"]
    for schema in properties.values():
        if "default" in schema:
            assert Draft202012Validator({**schema, "$defs": SCHEMA["$defs"]}).is_valid(schema["default"])
    assert {name for name, schema in properties.items() if "default" in schema} >= {
        one.name
        for one in dataclasses.fields(cast("Any", cls))
        if one.init and one.default in (0, "cpu", "float32", None)
    }
    assert SCHEMA["$defs"][f"stage-{uses}"]["description"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block.

    Parameters
    ----------
    width : int
        How wide it is, in
        two lines.
    """

    width: int


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """Do something of another package.

    Parameters
    ----------
    a, b : int
        Of ``both``.
    colour : str
        Its colour.

    Raises
    ------
    nothing : ever
        Is no parameter.
    """

    uses: ClassVar[str] = "plugin"
    version: ClassVar[int] = 1
    inputs: ClassVar[dict[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.MEL}), many=True),
        "start": Input(kinds=frozenset({Kind.WAVEFORM}), words=("zero",), optional=True),
    }

    a: int
    b: int = 2
    start: str = "zero"
    colour: Annotated[str, OneOf(lambda: ["red", "blue"])] = "red"
    side: Literal["left", "right"] | None = None
    block: Block | None = None
    weights: dict[str, float] = field(default_factory=dict)
    hidden: int = field(default=0, init=False)

    def produces(self, inputs: object) -> object:
        raise NotImplementedError

    def process(self, items: object, inputs: object, product: object) -> object:
        raise NotImplementedError


def test_a_stage_of_another_package_is_in_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILT_IN, "plugin", "tests.flows.pipeline.test_schema:Plugin")
    schema = pipeline_schema()
    defs = schema["$defs"]
    plugin = defs["stage-plugin"]
    assert "plugin" in defs["node"]["properties"]["uses"]["enum"]
    assert plugin["description"] == "Do something of another package."
    assert sorted(plugin["required"]) == ["a", "from"]
    assert set(plugin["properties"]) == {
        "uses", "from", "start", "a", "b", "colour", "side", "block", "weights", "pool",
    }  # fmt: skip
    assert plugin["properties"]["b"]["description"] == "Of `both`."
    assert plugin["properties"]["from"]["description"].startswith("Node that makes mel.")
    assert defs[f"{__name__}.Block"]["properties"]["width"] == {
        "description": "How wide it is, in two lines.",
        "type": "integer",
    }
    validator = Draft202012Validator(schema)

    def valid(fields: str) -> bool:
        text = f"{{name: x, store: x, stages: {{p: {{uses: plugin, from: mel, a: 1{fields}}}}}}}"
        return validator.is_valid(parse(text, "").plain())

    assert valid(", start: zero, colour: [red, blue], side: null, block: {width: 1}, weights: {x: 1}")
    assert valid(", start: [zero, other], side: [left, right]")
    for wrong in (", hidden: 1", ", colour: green", ", side: up", ", block: {}", ", weights: {x: a}", ", start: 1"):
        assert not valid(wrong), wrong


def test_descriptions_are_those_of_the_class_or_else_of_its_base() -> None:
    class Base:
        """Do.

        Parameters
        ----------
        x : int
            Of the base.
        y : int
            Also of the base.
        """

    class Derived(Base):
        """Do more.

        Parameters
        ----------
        x : int
            Of its own.
        """

    assert field_descriptions(Derived) == {"x": "Of its own.", "y": "Also of the base."}
