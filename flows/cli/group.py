"""The group that every command joins, and what the program's exit codes mean."""

from __future__ import annotations

import click

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="melmill")
def cli() -> None:
    """Take a speech corpus to mel spectrograms and back, and say how good the way back was.

    \b
    melmill init FOLDER                write a first pipeline for a folder of recordings
    melmill run pipeline.yaml          run a pipeline, or go on where it stopped
    melmill plan pipeline.yaml         say what a run would do, and why
    melmill scores runs/demo           one row per utterance and method
    melmill export runs/demo admm out  what a node made, as files
    """
