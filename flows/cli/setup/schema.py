"""`melmill schema`: what editors need to complete and check a pipeline."""

from __future__ import annotations

import json

import click

from melmill.flows.cli.group import DONE, cli


@cli.command()
def schema() -> int:
    """Print the JSON Schema of pipeline.yaml, with all stages that are installed.

    Editors that speak YAML (VS Code, Neovim, Emacs, JetBrains) complete and check a pipeline whose
    first line names the schema:

    \b
      # yaml-language-server: $schema=pipeline.schema.json

    \b
    Example:
      melmill schema > pipeline.schema.json
    """
    from melmill.flows.pipeline.schema import pipeline_schema  # it imports every stage

    click.echo(json.dumps(pipeline_schema(), indent=2, ensure_ascii=False, allow_nan=False))
    return DONE
