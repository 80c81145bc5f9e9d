"""Names of stages as pipeline.yaml uses them, and the classes behind them."""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from melmill.stages.contract import Stage
from melmill.stages.errors import UnknownStage
from melmill.stages.ingest.reader import READERS
from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.solver import solver_stages
from melmill.stages.vocode.registry import family_names

GROUP = "melmill.stages"

# Imported when first named, so that a plan that uses three stages does not pay for all of them.
_BUILT_IN = {
    "aggregate": "melmill.stages.report.stage:Aggregate",
    "corpus_card": "melmill.stages.extract.lint.card:CorpusCard",
    "dedupe": "melmill.stages.prepare.dedupe:Dedupe",
    "durations": "melmill.stages.extract.features.durations:Durations",
    "energy": "melmill.stages.extract.features.energy:Energy",
    "error_budget": "melmill.stages.report.budget.stage:ErrorBudget",
    "extract": "melmill.stages.extract.stage:Extract",
    "f0": "melmill.stages.extract.features.f0:F0",
    "filter": "melmill.stages.prepare.filter:Filter",
    "fingerprint": "melmill.stages.prepare.fingerprint:Fingerprint",
    "gate": "melmill.stages.report.comparison.gate:Gate",
    "inspect": "melmill.stages.extract.lint.inspect:Inspect",
    "loudness": "melmill.stages.prepare.loudness:Loudness",
    "mix": "melmill.stages.prepare.mix:Mix",
    "normalise": "melmill.stages.extract.features.normalise:Normalise",
    "paired_mels": "melmill.stages.ingest.paired:PairedMels",
    "recombine": "melmill.stages.invert.recombine:Recombine",
    "resample": "melmill.stages.prepare.resample:Resample",
    "score": "melmill.stages.score.stage:Score",
    "segment": "melmill.stages.prepare.segment:Segment",
    "set_score": "melmill.stages.score.sets.stage:SetScore",
    "speaker_embedding": "melmill.stages.extract.features.voice:SpeakerEmbedding",
    "stats": "melmill.stages.extract.features.stats:Stats",
    "transcode": "melmill.stages.extract.transcode:Transcode",
    "train_prior": "melmill.stages.train.prior_stage:TrainPrior",
    "train_vocoder": "melmill.stages.train.vocoder_stage:TrainVocoder",
    "trim": "melmill.stages.prepare.trim:Trim",
    "trust": "melmill.stages.score.trust.stage:Trust",
    "vocoder": "melmill.stages.vocode.stage:Vocode",
}


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def stage_names() -> list[str]:
    """Return the names of all stages, with those of the entry-point group `melmill.stages`."""
    return sorted({*_BUILT_IN, *READERS, *solver_stages(), *family_names(), *_installed()})


def stage_class(name: str) -> type[Stage]:
    """Return the stage class registered under `name`; raise UnknownStage with the nearest name."""
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        return _checked(getattr(importlib.import_module(module), attribute))
    if name in READERS:
        return _checked(READERS[name])
    if name in solver_stages():
        return _checked(importlib.import_module("melmill.stages.invert.stages").inverter_stage(name))
    if name in family_names():
        return _checked(importlib.import_module("melmill.stages.vocode.stage").stage_of(name))
    if name in _installed():
        return _checked(_installed()[name].load())
    near = difflib.get_close_matches(name, stage_names(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownStage(f"no stage is called {name!r}{hint} (stages: {', '.join(stage_names())})")


# Every stage has one of these methods, which does its work.
_METHODS = ("process", "opened", "ingest", "train", "reduce", "report")


def _checked(loaded: Any) -> type[Stage]:  # noqa: ANN401 - an entry point may load anything
    if not (
        isinstance(loaded, type) and all(hasattr(loaded, name) for name in ("uses", "version", "inputs", "produces"))
    ):
        raise StageError(
            f"{loaded!r} is registered as a stage but is not one: it needs uses, version, inputs and produces"
        )
    if not any(hasattr(loaded, name) for name in _METHODS):
        raise StageError(
            f"{loaded!r} is registered as a stage but has no method that does its work: it needs "
            f"{', '.join(_METHODS[:-1])} or {_METHODS[-1]}, see melmill.stages.contract"
        )
    return loaded
