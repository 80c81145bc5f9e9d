"""`melmill mel`: the mel contract, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from melmill.flows.cli.group import DONE, cli
from melmill.flows.cli.show import as_json, table
from melmill.flows.errors import PipelineError
from melmill.flows.pipeline.convert import convert, field_types, unknown
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.located import parse
from melmill.flows.pipeline.spec import load
from melmill.stages.contract import Mel
from melmill.stages.numeric.contract import explain as explain_pair
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names


@cli.group()
def mel() -> None:
    """Make mels of audio files; show mel specs, and what differs between two.

    A spec has the name of a preset (hifigan) or of a node of a pipeline (pipeline.yaml:mel).
    """


@mel.command()
@click.argument("name", required=False)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def show(name: str | None, json_: bool) -> int:
    """Print every field of the spec NAME. Without NAME, list all presets.

    \b
    Example:
      melmill mel show hifigan
    """
    if name is None:
        specs = {known: preset(known) for known in preset_names()}
        columns = ("sr", "n_fft", "hop_length", "n_mels", "fmin", "fmax", "log", "floor", "center")
        if json_:
            as_json({known: spec.as_dict() for known, spec in specs.items()})
        else:
            table(("preset", *columns), [(n, *(getattr(s, c) for c in columns)) for n, s in specs.items()])
        return DONE
    fields = spec_of(name).as_dict()
    if json_:
        as_json(fields)
    else:
        table(("field", "value"), [(key, "null" if value is None else value) for key, value in fields.items()])
    return DONE


@mel.command()
@click.argument("a")
@click.argument("b")
def explain(a: str, b: str) -> int:
    """Print which fields of the specs A and B differ, and whether a mel of A can become one of B.

    \b
    Example:
      melmill mel explain hifigan bigvgan_v2_22khz_80band_256x
    """
    click.echo(explain_pair(spec_of(a), spec_of(b)))
    return DONE


def spec_from(name: str | None, overrides: Sequence[str]) -> MelSpec:
    """Return the spec that ``--preset`` and ``--spec`` say; fields alone change the preset `paper`."""
    if name is None and not overrides:
        raise click.UsageError(
            "say how the mels are made, by --preset NAME or --spec FIELD=VALUE; `melmill mel show` lists the presets"
        )
    types, values = field_types(MelSpec), {}
    for override in overrides:
        field, equals, text = override.partition("=")
        where = f"--spec {override}"
        if not equals:
            raise PipelineError(f"--spec takes FIELD=VALUE, such as n_mels=100, got {override!r}")
        if field not in types:
            raise PipelineError(unknown("field", field, types, "a mel spec"), where)
        values[field] = convert(parse(text, where), types[field], field)
    return replace(spec_of(name or "paper"), **values)


def spec_of(name: str) -> MelSpec:
    """Return the spec of a preset or of a mel node, ``FILE:NODE``."""
    path, colon, node = name.rpartition(":")
    if not colon:
        return preset(name)
    nodes = build_graph(load(Path(path)))
    product = nodes[node].product if node in nodes else None
    if not isinstance(product, Mel):
        mels = ", ".join(other.name for other in nodes.values() if isinstance(other.product, Mel))
        raise PipelineError(f"{path} has no mel node {node!r} (mel nodes: {mels or 'none'})")
    return product.spec
