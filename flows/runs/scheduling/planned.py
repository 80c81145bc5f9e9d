"""A schedule that is to be installed: checked, with absolute paths, and the command that it calls."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.spec import load
from melmill.flows.runs.gate import read_rules
from melmill.flows.runs.scheduling.cadence import Cadence, read_cadence

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,40}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Hold a schedule.

    Parameters
    ----------
    name : str
    times : Cadence
    pipeline : Path
        Absolute.
    rules : Path or None
        Of the gate, absolute.
    store : str
        Where the pipeline's results go.
    options : tuple of str
        Further arguments of ``melmill schedule tick``.
    notify : str or None
    folder : Path
        Where relative paths of the pipeline begin: the folder that the schedule was made in.
    """

    name: str
    times: Cadence
    pipeline: Path
    rules: Path | None
    store: str
    options: tuple[str, ...]
    notify: str | None
    folder: Path

    def arguments(self, pipeline: str, rules: str | None) -> list[str]:
        """Return the arguments of melmill that run it once, with the files at these paths."""
        made = ["schedule", "tick", pipeline, "--name", self.name, "--every", self.times.cron, *self.options]
        made += ["--gate", rules] if rules else []
        return made + (["--notify", self.notify] if self.notify else [])

    @property
    def command(self) -> list[str]:
        """The command on this machine."""
        rules = None if self.rules is None else str(self.rules)
        return [sys.executable, "-m", "melmill", *self.arguments(str(self.pipeline), rules)]

    def next_times(self, count: int) -> list[str]:
        """Return when it is due next, local time."""
        times: list[str] = []
        at: datetime | None = datetime.now()
        while at is not None and len(times) < count:
            at = self.times.following(at)
            if at is not None:
                times.append(at.isoformat(sep=" ", timespec="minutes"))
        return times


def schedule_name(pipeline: Path) -> str:
    """Return the name that a pipeline's schedule has, in letters that all kinds of files take.

    A pipeline that can't be read has the name of its file.
    """
    with suppress(PipelineError):
        return _plain(load(pipeline).name) or "pipeline"
    return _plain(pipeline.stem) or "pipeline"


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:42].strip("-")


def planned(
    pipeline: Path,
    *,
    every: str,
    name: str | None = None,
    store: str | None = None,
    overrides: Sequence[str] = (),
    executor: str = "dask",
    rules: Path | None = None,
    baseline: str | None = None,
    notify: str | None = None,
) -> Planned:
    """Return a schedule whose parts are sound: pipeline, times, name, and the file of rules.

    Raises
    ------
    PipelineError
        One of them is not.
    """
    loaded = load(pipeline, overrides, store)
    if rules is not None:
        if not rules.is_file():
            raise PipelineError(f"--gate {str(rules)!r}: there is no such file")
        read_rules(rules)
    if baseline is not None and rules is None:
        raise PipelineError("--baseline is what the rules of --gate compare with: give --gate too")
    if name is not None and not _NAME.fullmatch(name):
        raise PipelineError(f"--name must be small letters, digits and '-', 42 at most, got {name!r}")
    options = [part for override in overrides for part in ("--set", override)]
    options += ["--executor", executor] if executor != "dask" else []
    # Relative paths mean other things where timers start programs.
    options += ["--store", loaded.store if "://" in loaded.store else str(Path(loaded.store).absolute())]
    options += ["--baseline", baseline] if baseline else []
    return Planned(
        name=name or _plain(loaded.name) or "pipeline",
        times=read_cadence(every),
        pipeline=pipeline.absolute(),
        rules=None if rules is None else rules.absolute(),
        store=loaded.store,
        options=tuple(options),
        notify=notify,
        folder=Path.cwd(),
    )
