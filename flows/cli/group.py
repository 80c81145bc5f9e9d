"""The group that every command joins, and what the program's exit codes mean."""

from __future__ import annotations

import importlib
import math
import pkgutil
from pathlib import Path
from typing import cast

import click

DONE, FAILED, BAD_USAGE, GATE_TRIPPED, INTERRUPTED = 0, 1, 2, 3, 130


class LocalPath(click.Path):
    """A path on this machine; a leading ``~`` is the home folder, in quotes too."""

    def __init__(self, *, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        try:
            expanded = Path(str(value)).expanduser()
        except RuntimeError:
            self.fail(f"{str(value)!r} begins with the home folder of an unknown user", param, ctx)
        super().convert(str(expanded), param, ctx)
        return expanded


class Seconds(click.FloatRange):
    """A time in seconds, a day at most."""

    name = "seconds"

    def __init__(self) -> None:
        super().__init__(min=0.1, max=24 * 3600.0)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time."""
        made = float(super().convert(cast("float", value), param, ctx))
        if math.isnan(made):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return made


class Commands(click.Group):
    """The commands that the modules of this folder and below define, imported when one is asked for.

    Workers import the program's main module too, and run none of its commands.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name."""
        self._import()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        self._import()
        return super().list_commands(ctx)

    def _import(self) -> None:
        for module in pkgutil.walk_packages([str(Path(__file__).parent)], f"{__package__}."):
            importlib.import_module(module.name)


class Defaulted(click.Group):
    """A group with a command of its own name: what is no name of a command is its first argument.

    That command is called `MAIN` in the group, and help shows it as the group's own usage.
    """

    MAIN = "make"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the main command before arguments that begin with none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.MAIN, *args]
        return super().parse_args(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="melmill")
def cli() -> None:
    """Take a speech corpus to mel spectrograms and back, and say how good the way back was.

    \b
    melmill init FOLDER                write a first pipeline for a folder of recordings
    melmill run pipeline.yaml          run a pipeline, or go on where it stopped
    melmill plan pipeline.yaml         say what a run would do, and why
    melmill scores runs/demo           one row per utterance and method
    melmill score REF EST... -o OUT    other systems' files against recordings, as a report
    melmill export runs/demo admm out  what a node made, as files
    melmill compare runs/x@v1 runs/x   how one run differs from another
    melmill gate runs/x --rules FILE   whether a run is good enough
    """
