"""The reference tables of the site hold what the objects say."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

import melmill
from docs.generate import reference
from docs.generate.docstrings import fields_of, read
from melmill.cluster.registry import cluster_type, cluster_types
from melmill.flows.cli.group import cli
from melmill.stages.contract import UNSET
from melmill.stages.formats.format import FORMATS
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset_names, preset_note
from melmill.stages.registry import stage_class, stage_names
from melmill.stages.score.metric import METRICS
from melmill.stages.score.status import Status

PAGES = {path.name: path.read_text() for path in sorted((Path(__file__).parents[2] / "docs").glob("*.md"))}


@pytest.fixture(scope="module")
def filled() -> dict[str, str]:
    """Return the pages as the site shows them, by file name."""
    return {name: reference.filled(text) for name, text in PAGES.items()}


def sections(page: str, level: str) -> dict[str, str]:
    """Return the text below each heading of a level."""
    parts = [part.partition("\n") for part in page.split(f"\n{level} ")[1:]]
    return {heading.strip("`"): text for heading, _, text in parts}


def test_every_stage_is_on_one_page_with_its_fields_and_inputs(filled: dict[str, str]) -> None:
    pages: dict[str, list[str]] = {}
    for name, page in filled.items():
        for stage in sections(page, "###"):
            pages.setdefault(stage, []).append(name)
    ours = reference.own_stages()
    assert len(ours) > 20
    assert {"invert", "hifigan", "librispeech"} < ours.keys() <= set(stage_names())
    for stage in ours:
        (page,) = pages[stage]
        cls: type[Any] = stage_class(stage)
        before, _, own = filled[page].partition(f"\n### `{stage}`")
        text = before + own.partition("\n### ")[0]
        named = {field.name: text for field in fields(cls) if field.init}
        # These override a preset's, and are listed once.
        named |= {field.name: filled["mels.md"] for field in fields(cls) if field.default is UNSET}
        for name in [*named, *cls.inputs]:
            assert f"\n| `{name}` | " in named.get(name, text), (stage, name)


def test_a_field_has_its_type_default_and_meaning() -> None:
    table = reference.stages("invert")
    assert "| `quality` | `draft or good or best` | `good` | " in table
    assert "| `n_iter` | `int or null` | `null` | " in table
    assert "| `from` | node of kind mel | required | input |" in table
    assert "or `random`, `zero`, `pghi` | `random` | input |" in table


def test_what_all_stages_of_a_group_share_stands_once() -> None:
    assert reference.stages("invert").count("| `device` |") == 1
    assert reference.stages("ingest").count("| `root` |") == 1


def test_every_metric_is_explained_under_its_heading(filled: dict[str, str]) -> None:
    page = filled["metrics.md"]
    for metric in METRICS.values():
        text = sections(page, "##")[metric.title]
        for part in (
            f"`{metric.name}`",
            f"`{metric.column}`",
            metric.says,
            metric.formula,
            metric.limits,
            metric.reference,
        ):
            assert part in text, (metric.name, part)
        assert f"| `{metric.name}` | {metric.group} | {metric.unit} | {metric.better} |" in page
        assert not metric.cost or f"*Cost*: {metric.cost}" in text


def test_every_status_is_explained(filled: dict[str, str]) -> None:
    for status in Status:
        assert f"| `{status.value}` | {status.says} |" in filled["metrics.md"]


def test_every_export_format_is_listed(filled: dict[str, str]) -> None:
    for format_ in FORMATS.values():
        assert f"| `{format_.name}` | `.{format_.suffix}` | " in filled["export.md"]
        assert format_.says in filled["export.md"]


def test_every_error_and_function_is_on_the_page_of_python(filled: dict[str, str]) -> None:
    for name in melmill.__all__:
        value = getattr(melmill, name)
        if isinstance(value, type) and issubclass(value, melmill.Error | Warning):
            assert f"\n| `{name}` | " in filled["python.md"]
        elif not isinstance(value, str):
            assert re.search(rf"(members: .*\b{name}\b|::: melmill\.{name}\n)", filled["python.md"]), name


def test_every_preset_and_field_of_a_mel_is_listed(filled: dict[str, str]) -> None:
    for name in preset_names():
        assert f"| `{name}` | " in filled["mels.md"]
        assert preset_note(name) in filled["mels.md"]
    for field in fields(MelSpec):
        assert f"\n| `{field.name}` | " in filled["mels.md"]
        assert fields_of(MelSpec)[field.name], field.name


def test_every_field_of_a_cluster_is_listed(filled: dict[str, str]) -> None:
    page = filled["clusters.md"]
    for name in cluster_types():
        cls = cluster_type(name)
        assert f"\n| [`{name}`](#{name}) | " in page
        assert f"\n### `{name}`\n" in page
        for block in (cls, *get_args(get_type_hints(cls)["pools"])[1:]):
            for field in fields(block):
                assert f"\n| `{field.name}` | " in page, (name, field.name)


def test_every_command_and_option_is_listed(filled: dict[str, str]) -> None:
    page = filled["cli.md"]
    commands = list(reference.walk(cli, "melmill"))
    assert len(commands) > 15
    for path, command in commands:
        text = page.partition(f"# `{path}`\n")[2].partition("\n#")[0]
        assert (command.help or "").split()[0] in text, path
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(f"`{name}`" in text for name in option.opts), (path, option.name)


def test_every_table_is_asked_for_and_every_marker_is_filled(filled: dict[str, str]) -> None:
    asked = {marker["table"] for text in PAGES.values() for marker in reference.MARKER.finditer(text)}
    assert asked == set(reference.TABLES)
    assert not [name for name, text in filled.items() if "<!-- generated" in text]


def test_a_marker_that_nobody_fills_is_an_error() -> None:
    with pytest.raises(KeyError, match="nothing"):
        reference.filled("<!-- generated: nothing -->")


def test_a_bar_in_a_text_does_not_end_its_cell() -> None:
    assert "`path\\|text`" in reference.stages("ingest")


def test_a_docstring_is_read_by_its_sections() -> None:
    class Documented:
        """Say what it is.

        More of it.

        Parameters
        ----------
        one, two : int
            What both are,
            over two lines.

        Raises
        ------
        ValueError
            Never.
        """

    said = read(Documented)
    assert said.text == "Say what it is.\n\nMore of it."
    assert said.parameters == dict.fromkeys(("one", "two"), "What both are, over two lines.")
