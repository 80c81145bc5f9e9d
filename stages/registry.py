"""Names of stages as pipeline.yaml uses them, and the classes behind them."""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from melmill.stages.errors import StageError
from melmill.stages.stage import Stage

GROUP = "melmill.stages"

# Imported when first named, so that a plan that uses three stages does not pay for all of them.
_BUILT_IN = {
    "admm": "melmill.stages.inverters:Admm",
    "admm_gla": "melmill.stages.inverters:AdmmGla",
    "aggregate": "melmill.stages.aggregate:Aggregate",
    "audio_folder": "melmill.stages.audio_folder:AudioFolder",
    "bigvgan": "melmill.stages.vocode:BigVgan",
    "diffwave": "melmill.stages.vocode:DiffWave",
    "exported": "melmill.stages.vocode:Exported",
    "extract": "melmill.stages.extract:Extract",
    "griffin_lim": "melmill.stages.inverters:GriffinLim",
    "hifigan": "melmill.stages.vocode:HifiGan",
    "invert": "melmill.stages.inverters:Invert",
    "ipalm": "melmill.stages.inverters:Ipalm",
    "librispeech": "melmill.stages.librispeech:LibriSpeech",
    "mel_folder": "melmill.stages.mel_folder:MelFolder",
    "melgan": "melmill.stages.vocode:MelGan",
    "pghi": "melmill.stages.inverters:Pghi",
    "raar": "melmill.stages.inverters:Raar",
    "score": "melmill.stages.score:Score",
    "train_vocoder": "melmill.stages.train_vocoder:TrainVocoder",
    "unfolded": "melmill.stages.vocode:Unfolded",
    "univnet": "melmill.stages.vocode:UnivNet",
    "vocoder": "melmill.stages.vocode:Vocoder",
    "vocos": "melmill.stages.vocode:Vocos",
    "waveglow": "melmill.stages.vocode:WaveGlow",
    "wavegrad": "melmill.stages.vocode:WaveGrad",
    "wavenet": "melmill.stages.vocode:WaveNet",
}


class UnknownStage(StageError):
    """No stage is registered under a name."""


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def stage_names() -> list[str]:
    """Return the names of all stages, built in and installed under the entry-point group `melmill.stages`."""
    return sorted({*_BUILT_IN, *_installed()})


def stage_class(name: str) -> type[Stage]:
    """Return the stage class registered under `name`; raise UnknownStage with the nearest name."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        return _checked(getattr(importlib.import_module(module), attribute))
    if name in _installed():
        return _checked(_installed()[name].load())
    near = difflib.get_close_matches(name, stage_names(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownStage(f"no stage is called {name!r}{hint} (stages: {', '.join(stage_names())})")


def _checked(loaded: Any) -> type[Stage]:  # noqa: ANN401 - an entry point may load anything
    if not (
        isinstance(loaded, type) and all(hasattr(loaded, name) for name in ("uses", "version", "inputs", "produces"))
    ):
        raise StageError(
            f"{loaded!r} is registered as a stage but is not one: it needs uses, version, inputs and produces"
        )
    return loaded
