"""Which metric to trust on a corpus: damage recordings of a folder or a store, and judge the metrics."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from melmill.cluster.contract import MAX_WORKERS
from melmill.errors import Error
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.keys import is_drawn, utterance_seed
from melmill.flows.pipeline.layouts import contents_of
from melmill.flows.scoring.request import chosen_metrics
from melmill.stages.contract import IngestStage, as_float
from melmill.stages.numeric.checks import check_choice, check_int, check_texts
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.presets import preset as preset_of
from melmill.stages.registry import stage_class
from melmill.stages.score.metric import metric
from melmill.stages.score.stage import default_spec
from melmill.stages.score.trust.damages import DAMAGES
from melmill.stages.score.trust.judgement import FEWEST
from melmill.stages.score.trust.measuring import SHORTEST_S, columns, measured
from melmill.stages.score.trust.stage import MAX_UTTERANCES
from melmill.storage.errors import StoreMissing
from melmill.storage.files.sources import SourceTree
from melmill.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

UTTERANCES = 30
"""Recordings that are damaged unless told otherwise."""

_RECORDINGS = "utterances"  # kind of the products of ingest stages that have recordings


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Hold a recording ``(n_samples,)`` with its id, rate in Hz and words."""

    utterance_id: str
    y: NDArray[np.float32]
    sr: int
    text: str


@dataclass(frozen=True, kw_only=True)
class TrustRequest:
    """Say what to damage, and what judges it.

    Parameters
    ----------
    place : str
        A store or a folder of recordings; a path or a URL.
    metrics : tuple of str
        Names; none: those that are measured unless others are named.
    preset : str or None
        Mel of the spectral metrics. None: ``paper`` at the rate of the recordings.
    utterances : int
        About so many recordings are taken.
    damages : tuple of str
    jobs : int
        Processes.
    """

    place: str
    metrics: tuple[str, ...] = ()
    preset: str | None = None
    utterances: int = UTTERANCES
    damages: tuple[str, ...] = tuple(DAMAGES)
    jobs: int = 1


def stored_trust(place: str) -> pd.DataFrame | None:
    """Return what a store's last run measured of damaged recordings; None where it did not, or for a folder."""
    try:
        rows = Store.open(place).trust()
    except StoreMissing:
        return None
    return rows if len(rows) else None


def trust_table(
    place: str,
    metrics: Sequence[str] | None,
    preset: str | None,
    utterances: int,
    damages: Sequence[str] | None,
    jobs: int,
) -> pd.DataFrame:
    """Return what metrics make of damaged recordings; see `melmill.trust`."""
    from melmill.stages.score.trust.judgement import judged, overall

    check_int("utterances", utterances, at_least=FEWEST, at_most=MAX_UTTERANCES)
    check_int("jobs", jobs, at_least=1, at_most=MAX_WORKERS)
    for name, given, example in (("metrics", metrics, "pesq_wb"), ("damages", damages, "noise")):
        if given is not None:
            check_texts(name, given, example)
    for one in damages or ():
        check_choice("damages", one, tuple(DAMAGES))
    request = TrustRequest(
        place=place,
        metrics=tuple(metrics or ()),
        preset=preset,
        utterances=utterances,
        damages=tuple(damages or DAMAGES),
        jobs=jobs,
    )
    made = judged(trust_rows(request))
    made.attrs["metrics"] = overall(made).to_dict("records")
    return made


def trust_rows(request: TrustRequest) -> pd.DataFrame:
    """Damage recordings and measure them; return a row per version, as `Store.trust` does.

    Raises
    ------
    PipelineError
        The place holds no recordings, or too few of them.
    ParameterError
        There is no such metric, damage or preset.
    StoreError
        The place can't be read.
    """
    import pandas as pd

    names = _of_recordings(request.metrics)
    measure = partial(_measured, metrics=names, preset=request.preset, damages=request.damages)
    found = recordings(request.place, request.utterances)
    # The first one is read before processes start, so that a bad place ends with its own line.
    tables = [pd.DataFrame(table) for table in _each(measure, found, request.jobs) if table is not None]
    if len(tables) < FEWEST:
        raise PipelineError(
            f"{request.place!r} has {len(tables)} recordings of at least {SHORTEST_S:g} s to damage, and paired tests "
            f"need {FEWEST}: take a larger corpus or more utterances"
        )
    return pd.concat(tables, ignore_index=True)


def _of_recordings(names: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that are asked for; raise ParameterError for one that has no value of a recording."""
    chosen = [metric(name) for name in chosen_metrics(names)]
    for one in chosen:
        if one.needs == "set" and one.name in names:
            raise ParameterError("metrics", f"names {one.name!r}, which has one value for a whole set: leave it out")
    return tuple(one.name for one in chosen if one.needs != "set")


def _each(measure: Any, found: Iterator[Recording], jobs: int) -> Iterator[dict[str, Any] | None]:  # noqa: ANN401
    if jobs == 1:
        yield from map(measure, found)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(measure, found)


def _measured(
    one: Recording, *, metrics: Sequence[str], preset: str | None, damages: Sequence[str]
) -> dict[str, Any] | None:
    """Return the columns of a recording's measurements; None for one that is too short."""
    if one.y.size < SHORTEST_S * one.sr:
        return None
    spec = default_spec(one.sr) if preset is None else preset_of(preset)
    rows = measured(
        one.y,
        one.sr,
        [metric(name) for name in metrics],
        spec,
        seed=utterance_seed(one.utterance_id),
        text=one.text,
        damages=damages,
    )
    return {"utterance_id": one.utterance_id, **columns(rows)}


def recordings(place: str, utterances: int) -> Iterator[Recording]:
    """Yield a sample of the recordings of a store or a folder, drawn as the stage `trust` draws.

    Files that can't be decoded are passed over.
    """
    try:
        store = Store.open(place)
    except StoreMissing:
        yield from _of_folder(place, utterances)
        return
    yield from _of_store(store, utterances)


def _of_store(store: Store, utterances: int) -> Iterator[Recording]:
    nodes = [name for name, entry in store.nodes.items() if entry.kind == _RECORDINGS]
    if not nodes:
        raise PipelineError(f"the last run of store {store.location.url!r} has no recordings: name a folder of them")
    view, rows = store[nodes[0]], store.catalogue_of(store.nodes[nodes[0]]).table.select(["utterance_id", "text"])
    sr = view.description.sr
    assert sr is not None  # of what has arrays
    for row in rows.to_pylist():
        name = str(row["utterance_id"])
        if is_drawn(name, utterances / max(1, len(rows))) and name in view:
            yield Recording(utterance_id=name, y=as_float(view[name]), sr=sr, text=row["text"] or "")


def _of_folder(place: str, utterances: int) -> Iterator[Recording]:
    contents = contents_of(place)
    if not contents.rates:
        raise PipelineError(f"{place!r} holds no audio that can be read: name a folder of recordings, or a store")
    sr = next(iter(contents.rates))
    stage = cast("IngestStage", cast("Any", stage_class(contents.layout.uses))(**contents.layout.fields, sr=sr))
    tree = SourceTree(stage.root)
    found = list(stage.discover(tree, {}).every())
    for one in found:
        if is_drawn(one.utterance_id, utterances / len(found)):
            try:
                outcome = stage.ingest(one, tree.read(one.path))
            except (OSError, Error):
                continue
            if outcome.array is not None:
                yield Recording(utterance_id=one.utterance_id, y=as_float(outcome.array), sr=sr, text=one.text)
