"""`melmill vocoder`: checkpoints of vocoders."""

from __future__ import annotations

import click

from melmill.flows.cli.group import DONE, cli


@cli.group()
def vocoder() -> None:
    """Work on checkpoints of neural vocoders."""


@vocoder.command()
@click.argument("file")
@click.argument("out")
@click.option("--trust", is_flag=True, help="You know where FILE comes from: read its pickled objects.")
def convert(file: str, out: str, trust: bool) -> int:
    """Write the tensors of FILE, which pickles a whole module, to OUT as plain tensors.

    WaveGlow's checkpoints are such files. They name code that reading them would usually run. Here
    that code is not looked up, and a process of its own reads the file. Still, only convert files
    that you trust. A configuration beside FILE is kept in OUT.

    \b
    Example:
      melmill vocoder convert --trust waveglow_256channels.pt waveglow.pt
    """
    from melmill.flows.exchange.vocoder_files import convert as convert_file

    if not trust:
        raise click.UsageError(
            f"converting {file} unpickles it, which can run code that the file brings: add --trust if you know where "
            "it comes from"
        )
    convert_file(file, out)
    click.echo(f"{out} holds plain tensors: load it with melmill.load_vocoder({out!r})")
    return DONE
