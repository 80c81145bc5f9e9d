"""Recordings that stay in their corpus: which reader converts them, for tasks and for manifests."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, fields
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from melmill.flows.pipeline.convert import build
from melmill.flows.pipeline.graph import Node
from melmill.flows.pipeline.located import parse
from melmill.stages.contract import IngestStage, Waveform
from melmill.stages.numeric.errors import StageError, Unusable
from melmill.stages.registry import stage_class
from melmill.storage.files.sources import SourceTree
from melmill.storage.reading.recordings import Convert, Recordings
from melmill.storage.utterance import Utterance


def recordings_of(node: Node) -> Recordings | None:
    """Return where the recordings of a node lie, and what reads them; None if the store has them."""
    stage, product = node.stage, node.product
    if not (isinstance(product, Waveform) and product.referenced and isinstance(stage, IngestStage)):
        return None
    plain = asdict(cast("Any", stage))
    given = {
        field.name: plain[field.name]
        for field in fields(cast("Any", stage))
        if field.init and field.name != "root" and getattr(stage, field.name) != _default(field)
    }
    # As JSON gives them back, so that a manifest read again equals the one that was written.
    as_stored = json.loads(json.dumps(given))
    return Recordings(node=node.name, root=SourceTree(stage.root).url, stage=stage.uses, fields=as_stored)


def converter(recordings: Recordings) -> Convert:
    """Return what makes the samples of an utterance of a file, as the ingest stage did.

    Raises
    ------
    PipelineError
        The reader has other fields in this version.
    UnknownStage
        It is of a package that is not installed here.
    """
    fields_text = json.dumps({"root": recordings.root, **recordings.fields})
    stage = _reader(recordings.stage, fields_text, f"node {recordings.node!r}")

    def convert(utterance: Utterance, data: bytes) -> NDArray[Any]:
        outcome = stage.ingest(utterance, data)
        if outcome.array is None:
            raise Unusable(outcome.rejected.reason if outcome.rejected else "the reader makes no samples of it")
        return np.asarray(outcome.array)

    return convert


@lru_cache(maxsize=16)
def _reader(name: str, fields_text: str, where: str) -> IngestStage:
    """Return the reader of a name and fields; the next task of a worker finds it made."""
    stage = build(stage_class(name), parse(fields_text, where).value, name, where)
    if not isinstance(stage, IngestStage):
        raise StageError(f"{where}: stage {name!r} does not read recordings")
    return stage


def _default(field: Any) -> object:  # noqa: ANN401 - dataclasses.Field of any type
    return field.default if field.default_factory is MISSING else field.default_factory()
