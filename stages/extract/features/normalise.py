"""Stage `normalise`: mels or features by the statistics of a corpus or of each speaker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import (
    CorpusStatistics,
    Features,
    Input,
    Item,
    Kind,
    Mel,
    Outcome,
    Processor,
    Product,
    StageFiles,
    Trained,
    each,
)
from melmill.stages.extract.features.moments import Moments, decoded
from melmill.stages.extract.features.stats import row_names
from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.errors import ContractError, Unusable

_ROLE = "statistics"
# Rows that are yes or no, and stay as they are.
_FLAGS = ("voiced",)
# The least deviation that is divided by.
_LEAST = 1e-8


@dataclass(frozen=True, kw_only=True)
class Normalise:
    """Normalise each band of mels, or each row of features, by statistics of a node `stats`.

    What comes out are features: vocoders and inverters take mels alone, as a spec says them whole.
    To give those the same numbers, name the exported file as ``stats`` of `extract`. A row
    ``voiced`` stays as it is, and so do the zeros of a row ``f0`` where it is 0.

    Parameters
    ----------
    by : {"corpus", "speaker"}
        Statistics of all, or of the utterance's own speaker.
    method : {"mean_std", "min_max"}
        ``(x - mean) / std``, or from -1 at the lowest value to 1 at the highest.
    """

    uses: ClassVar[str] = "normalise"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.MEL, Kind.FEATURES})),
        "stats": Input(kinds=frozenset({Kind.STATISTICS})),
    }

    by: Literal["corpus", "speaker"] = "corpus"
    method: Literal["mean_std", "min_max"] = "mean_std"
    _digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("by", self.by, ("corpus", "speaker"))
        check_choice("method", self.method, ("mean_std", "min_max"))

    @property
    def digest(self) -> str:
        """What stands for the statistics; see `FileStage`."""
        return self._digest

    def identity(self) -> Mapping[str, Any]:
        """Return the fields. The key of the statistics is that of an input."""
        return {"by": self.by, "method": self.method}

    def files(self) -> Mapping[str, Sequence[str]]:
        """Return no files of its own; see `FileStage`."""
        return {}

    def prepared(self, files: StageFiles, digest: str) -> Normalise:
        """Return the stage itself; see `FileStage`."""
        del files, digest
        return self

    def trained(self, product: Trained, name: str, digest: str) -> Normalise:
        """Return the stage that computes with what the node `name` found; see `FileStage`.

        Raises
        ------
        ContractError
            It makes something else.
        """
        if not isinstance(product, CorpusStatistics):
            raise ContractError(f"{name!r} makes {product.called}, not statistics: name a node of the stage stats")
        stage = copy(self)
        object.__setattr__(stage, "_digest", digest)
        return stage

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Features:
        """Describe the rows.

        Raises
        ------
        ContractError
            The statistics are of something else.
        """
        source, stats = inputs["from"][0], inputs["stats"][0]
        if not isinstance(source, Mel | Features) or not isinstance(stats, CorpusStatistics):
            raise ContractError(f"normalise takes mels or features and statistics, got {source.kind} and {stats.kind}")
        fits = (
            stats.of is Kind.MEL and stats.spec == source.spec
            if isinstance(source, Mel)
            else stats.of is Kind.FEATURES and stats.rows == source.rows
        )
        if not fits:
            raise ContractError(
                f"the statistics of {stats.node!r} are not of what {source.node!r} makes: give stats the same kind of "
                "mel, or the same rows"
            )
        return Features(spec=source.spec, rows=row_names(source))

    def opened(self, read: Callable[[], StageFiles]) -> Processor:
        """Return what computes in this process; see `FileStage`."""
        _, by_speaker, whole = decoded(read()[_ROLE].data)
        return _Normaliser(stage=self, by_speaker=by_speaker, whole=whole)


@dataclass(frozen=True, kw_only=True)
class _Normaliser:
    """Normalise with statistics at hand."""

    stage: Normalise
    by_speaker: Mapping[str, Moments]
    whole: Moments

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return every utterance's rows, normalised."""
        del product
        rows = row_names(inputs["from"])
        return each(items, lambda item: Outcome(array=self._normalised(item, rows)))

    def _normalised(self, item: Item, rows: Sequence[str]) -> NDArray[np.float32]:
        speaker, found = item.utterance.speaker_id, self.whole
        if self.stage.by == "speaker":
            if speaker not in self.by_speaker:
                raise Unusable(f"there are no statistics of the speaker {speaker!r}: use by: corpus, or more subsets")
            found = self.by_speaker[speaker]
        middle, half = found.mean, found.std
        if self.stage.method == "min_max":
            middle, half = (found.maximum + found.minimum) / 2.0, (found.maximum - found.minimum) / 2.0
        x = item.inputs["from"].astype(np.float64)
        keep = np.zeros(x.shape, dtype=np.bool_)
        for at, row in enumerate(rows):
            if row in _FLAGS:
                keep[at] = True
            elif row == "f0":
                keep[at] = x[at] == 0
            # A row without a value in all the statistics has nothing to be normalised by.
            keep[at] |= found.count[at] == 0
        with np.errstate(invalid="ignore"):
            y = (x - middle[:, np.newaxis]) / np.maximum(half, _LEAST)[:, np.newaxis]
        return np.where(keep, x, y).astype(np.float32)
