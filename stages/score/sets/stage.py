"""Stage `set_score`: embeddings of recordings and reconstructions, for metrics of whole sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import (
    EmbeddingRows,
    Input,
    Item,
    Kind,
    OneOf,
    Outcome,
    Processor,
    Product,
    StageFiles,
    Waveform,
    as_float,
    each,
)
from melmill.stages.numeric.checks import check_int
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.score.metric import METRICS, Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.sets.embeddings import EMBEDDINGS, Embedding, thinned
from melmill.stages.score.stage import Comparing, default_spec
from melmill.stages.score.status import Status

MAX_UTTERANCES = 100_000
FEWEST_UTTERANCES = 2

REFERENCE, ESTIMATE = "reference", "estimate"
"""What the column ``side`` of its rows holds."""

DIMENSION = "e"
"""Columns of its rows with the numbers of an embedding are called so, with a number from 0."""


def _metrics() -> tuple[str, ...]:
    return tuple(known.name for known in METRICS.values() if known.needs == "set")


def _embeddings() -> tuple[str, ...]:
    return tuple(EMBEDDINGS)


@dataclass(frozen=True, kw_only=True)
class SetScore(Comparing):
    """Embed recordings and reconstructions, for the distance of both sets that reports compute.

    `fad` or `kad` among the metrics of a `score` node makes such a node beside it.

    Parameters
    ----------
    metrics : tuple of str
        ``fad``, ``fad_inf`` and ``kad``.
    embedding : str
        ``log_mel``, ``speaker``, or the name of one of `predictors`.
    utterances : int
        About so many recordings are taken, by a hash of their ids; all of a smaller corpus.
    predictors : mapping of str to Predictor
        The program of an embedding of one's own. The last axis of what it returns is the embedding,
        and each index of the axes before it is a part of the recording. `output` has no use.
    preset : None
        It has no use: an embedding has a rate of its own.
    pairs
        See `melmill.stages.score.stage.Comparing`.
    """

    uses: ClassVar[str] = "set_score"
    version: ClassVar[int] = 1
    of_sets: ClassVar[bool] = True
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.WAVEFORM}), absent_ok=True, other_corpus=True),
        "against": Input(kinds=frozenset({Kind.WAVEFORM}), absent_ok=True),
    }

    metrics: tuple[Annotated[str, OneOf(_metrics)], ...] = ("fad", "kad")
    embedding: Annotated[str, OneOf(_embeddings, others=True)] = "log_mel"
    utterances: int = 2000

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_int("utterances", self.utterances, at_least=FEWEST_UTTERANCES, at_most=MAX_UTTERANCES)
        if self.preset is not None:
            raise ParameterError("preset", "has no use here, as an embedding has a rate of its own: leave it out")
        known = (*EMBEDDINGS, *self.predictors)
        if self.embedding not in known:
            raise ParameterError("embedding", f"must be one of {', '.join(known)}, got {self.embedding!r}")

    def _check_predictors(self) -> None:
        for name in self.predictors:
            if name in EMBEDDINGS:
                raise ParameterError(
                    "predictors", f"calls a program {name!r}, which is an embedding: name it otherwise"
                )
            if name != self.embedding:
                raise ParameterError("predictors", f"{name!r} has no use: name it as the embedding, or leave it out")

    @property
    def sample_size(self) -> int:
        """About how many utterances it works on; see `SampledStage`."""
        return self.utterances

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the embeddings, and how many recordings have one."""
        identity = {**super().identity(), "embedding": self.embedding, "utterances": self.utterances}
        if self.predictors:
            return identity
        used = EMBEDDINGS[self.embedding]
        weights = {"weights": used.digests, "installed": used.is_installed} if used.package else {}
        return {**identity, "embedding_version": used.version, **weights}

    def _check_programs(self, files: StageFiles) -> None:
        for name, one in self.predictors.items():
            one.embeds(name, files[name])

    def opened(self, read: Callable[[], StageFiles]) -> Processor:
        """Return what embeds in this process; see `FileStage`."""
        files, (one,) = read(), self.predictors.values()
        return _Opened(self, Embedding(sr=one.sr, compute=one.embedder(files[self.embedding])))

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> EmbeddingRows:
        """Describe the embeddings of the node at the port `from`."""
        if "against" not in inputs:
            raise ContractError("set_score compares with recordings: name their node at 'against'")
        return EmbeddingRows(
            metrics=tuple(chosen.column for chosen in self._chosen),
            scored=inputs["from"][0].node,
            embedding=self.embedding,
        )

    def measured(
        self, items: Sequence[Item], inputs: Mapping[str, Product], metrics: Sequence[Metric]
    ) -> Sequence[Outcome]:
        """Return the status of each recording, and its embeddings as its trace.

        Recordings that are not of the sample have an empty status.
        """
        return self.embedded(items, inputs, EMBEDDINGS[self.embedding])

    def embedded(self, items: Sequence[Item], inputs: Mapping[str, Product], embedding: Embedding) -> Sequence[Outcome]:
        """Return the outcomes of `measured` by an embedding whose program is at hand."""
        estimate, reference = cast("Waveform", inputs["from"]), cast("Waveform", inputs["against"])
        return each(items, partial(_outcome, estimate=estimate, reference=reference, embedding=embedding))


@dataclass(frozen=True)
class _Opened:
    stage: SetScore
    embedding: Embedding

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return an outcome per utterance; see `SetScore.measured`."""
        return self.stage.embedded(items, inputs, self.embedding)


def _outcome(item: Item, *, estimate: Waveform, reference: Waveform, embedding: Embedding) -> Outcome:
    recording, made = item.inputs.get("against"), item.inputs.get("from")
    if recording is None:
        return Outcome(row={"status": ""})  # not drawn
    if made is None:
        return Outcome(row={"status": Status.MISSING_ESTIMATE.value})
    pair = Pair(
        reference=as_float(recording), reference_sr=reference.sr, estimate=as_float(made), estimate_sr=estimate.sr,
        spec=default_spec(reference.sr), cut=True,
    )  # fmt: skip
    status = pair.status
    if status is Status.OK and pair.lowest_sr < embedding.sr:
        status = Status.UNSUPPORTED_RATE
    if status is Status.OK and min(recording.size / reference.sr, made.size / estimate.sr) < embedding.shortest_s:
        status = Status.TOO_SHORT
    if status is Status.OK and not embedding.is_installed:
        status = Status.NOT_INSTALLED
    if status is not Status.OK:
        return Outcome(row={"status": status.value})
    sides = {
        side: thinned(np.asarray(embedding.compute(y), dtype=np.float32))
        for side, y in zip((REFERENCE, ESTIMATE), pair.whole(embedding.sr), strict=True)
    }
    if not all(len(parts) and np.isfinite(parts).all() for parts in sides.values()):
        return Outcome(row={"status": Status.NON_FINITE.value})
    return Outcome(row={"status": Status.OK.value}, trace=_columns(sides))


def _columns(sides: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float64 | np.str_]]:
    """Return embeddings as columns: ``side``, and one for each number, a row per part."""
    parts = np.concatenate(list(sides.values())).astype(np.float64)
    named = np.repeat(list(sides), [len(one) for one in sides.values()])
    return {"side": named, **{f"{DIMENSION}{i}": parts[:, i] for i in range(parts.shape[1])}}
