"""A stage of another package that crashes or hangs when a file says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

_STAGE = '''
"""Pass waveforms on, unless told to die or to hang."""

import ctypes
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from melmill.stages.contract import Input, Kind, Outcome, Waveform, as_float


@dataclass(frozen=True, kw_only=True)
class Touchy:
    uses: ClassVar = "touchy"
    version: ClassVar = 1
    inputs: ClassVar = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    def identity(self):
        return {}

    def produces(self, inputs):
        return Waveform(sr=inputs["from"][0].sr)

    def process(self, items, inputs, product):
        return [self.passed_on(item, Path(os.environ["MELMILL_FAULTS_STAGE"])) for item in items]

    def passed_on(self, item, folder):
        name = item.utterance.utterance_id
        (folder / "seen" / f"{name} {os.getpid()}").touch()
        moods = json.loads((folder / "moods.json").read_text())
        worker = os.environ.get("MELMILL_FAULTS_WORKER", "")
        if worker in moods["sick"]:
            (folder / "sick" / worker).touch()
            raise RuntimeError("CUDA error: unspecified launch failure")
        mood = moods.get(name)
        if mood == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        while mood == "hangs":
            time.sleep(1.0)
        if mood == "hangs in C":
            ctypes.PyDLL(None).sleep(10**6)
        time.sleep(moods["pause_s"])
        return Outcome(array=as_float(item.inputs["from"]))
'''


def install(site: Path, name: str, module: str, entry: str) -> None:
    """Write a package with one stage into a folder for PYTHONPATH, as an installer does.

    Parameters
    ----------
    site : Path
    name : str
        Name of the package, its module and its stage.
    module : str
        Source of the module.
    entry : str
        Class of the stage.
    """
    facts = site / f"{name}-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / f"{name}.py").write_text(module)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[melmill.stages]\n{name} = {name}:{entry}\n")


class Touchy:
    """The installed stage `touchy`, and the file that tells it what to do.

    Parameters
    ----------
    folder : Path
        An empty folder for the package and for the files that the stage reads and writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        install(self.site, "touchy", _STAGE, "Touchy")
        (folder / "seen").mkdir()
        (folder / "sick").mkdir()
        self.environment = {"MELMILL_FAULTS_STAGE": str(folder)}
        self.put({}, pause_s=0.0)
        sys.path.insert(0, str(self.site))

    def put(self, moods: Mapping[str, str], pause_s: float, sick: Collection[str] = ()) -> None:
        """Set what utterances do (``crashes``, ``hangs``, ``hangs in C``), and their time, s.

        Workers whose names are in `sick` raise at every utterance.
        """
        aside = self.folder / "moods.writing"
        aside.write_text(json.dumps({**moods, "pause_s": pause_s, "sick": sorted(sick)}))
        aside.replace(self.folder / "moods.json")

    def was_sick(self, worker: str) -> bool:
        """Return whether a sick worker has raised since `forget`."""
        return (self.folder / "sick" / worker).exists()

    def seen_by(self) -> dict[str, set[int]]:
        """Return the ids of the processes that have begun each utterance."""
        found: dict[str, set[int]] = {}
        for mark in (self.folder / "seen").iterdir():
            name, _, pid = mark.name.rpartition(" ")
            found.setdefault(name, set()).add(int(pid))
        return found

    def forget(self) -> None:
        """Forget which utterances were begun, and which workers raised."""
        for mark in (*(self.folder / "seen").iterdir(), *(self.folder / "sick").iterdir()):
            mark.unlink()
