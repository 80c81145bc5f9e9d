"""Stage `stats`: mean, deviation and range of each band or row, by speaker and of all."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import (
    CorpusArrays,
    CorpusStatistics,
    Features,
    Input,
    Kind,
    Mel,
    Product,
    TrainingPlace,
)
from melmill.stages.extract.features.moments import Moments, decoded, encoded, merged
from melmill.stages.numeric.checks import check_texts
from melmill.stages.numeric.errors import ContractError, StageError

FILE = CorpusStatistics.files["statistics"]
_SAVE_EVERY_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Sum up mels or features over a corpus: mean, standard deviation and range, by speaker and of all.

    One task reads shard after shard and merges what each gives. It saves its state, so that one
    that is stopped goes on. Like a training it is done once: a corpus that grows later does not
    change it, and a plan says so.

    Of features with a row ``voiced``, the row ``f0`` counts voiced frames alone.

    Parameters
    ----------
    subsets : tuple of str
        Utterances of these subsets count, such as those that are trained on. Empty: all.
    """

    uses: ClassVar[str] = "stats"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.MEL, Kind.FEATURES}))}

    subsets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the field."""
        if self.subsets:
            check_texts("subsets", self.subsets, "train-clean-100")

    def identity(self) -> Mapping[str, Any]:
        """Return which utterances count. The order of their subsets does not matter."""
        return {"subsets": sorted(self.subsets)}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> CorpusStatistics:
        """Describe the statistics; raise ContractError unless they are of mels or features."""
        source = inputs["from"][0]
        if isinstance(source, Mel):
            return CorpusStatistics(spec=source.spec)
        if isinstance(source, Features):
            return CorpusStatistics(spec=source.spec, of=Kind.FEATURES, rows=source.rows)
        raise ContractError(f"stats takes mels or features, got {source.kind}: name a node that makes one of them")

    def reduce(self, data: CorpusArrays, place: TrainingPlace, inputs: Mapping[str, Product]) -> Mapping[str, bytes]:
        """Return the statistics as an .npz file, and as a table.

        Raises
        ------
        StageError
            No utterance counts.
        """
        rows = row_names(inputs["from"])
        first, by_speaker = _resumed(place.load())
        saved_s = time.monotonic()
        for number, arrays in enumerate(data.shards(first), first + 1):
            parts = (
                {utterance.speaker_id: moments(array, rows)}
                for utterance, array in arrays.items()
                if not self.subsets or utterance.subset in self.subsets
            )
            # A shard is summed up by itself, so that the order of merging depends on shards alone.
            by_speaker = merged([by_speaker, merged(parts)])
            if time.monotonic() - saved_s > _SAVE_EVERY_S and number < data.n_shards:
                place.save(_state(number, by_speaker, rows))
                place.note(f"{number} of {data.n_shards} shards")
                saved_s = time.monotonic()
        if not by_speaker:
            wanted = f" of the subsets {', '.join(self.subsets)}" if self.subsets else ""
            raise StageError(f"there are no utterances{wanted} to sum up")
        file = encoded(by_speaker, rows)
        return {FILE: file, "statistics.csv": _table(file)}


def row_names(product: Product) -> tuple[str, ...]:
    """Return what each row of mels or features is called; bands are numbered from 0."""
    if isinstance(product, Mel):
        return tuple(f"band_{band}" for band in range(product.spec.n_mels))
    if isinstance(product, Features):
        return product.rows
    raise ContractError(f"{product.kind} has no rows: name a node that makes mels or features")


def moments(array: NDArray[np.floating], rows: Sequence[str]) -> Moments:
    """Return the moments of an utterance's rows. A pitch counts where it is voiced."""
    if "voiced" not in rows or "f0" not in rows:
        return Moments.of(array)
    counted = np.ones(array.shape, dtype=np.bool_)
    counted[rows.index("f0")] = array[rows.index("voiced")] > 0
    return Moments.of(array, counted)


def _state(number: int, by_speaker: Mapping[str, Moments], rows: Sequence[str]) -> bytes:
    return number.to_bytes(8, "big") + encoded(by_speaker, rows)


def _resumed(state: bytes | None) -> tuple[int, dict[str, Moments]]:
    """Return the number of shards that are summed up, and what they gave."""
    if state is None:
        return 0, {}
    return int.from_bytes(state[:8], "big"), decoded(state[8:])[1]


def _table(file: bytes) -> bytes:
    """Return the statistics as CSV: all speakers first."""
    rows, by_speaker, whole = decoded(file)
    target = io.StringIO()
    target.write("speaker_id,row,count,mean,std,minimum,maximum\n")
    for speaker, found in [("", whole), *sorted(by_speaker.items())]:
        name = '"' + speaker.replace('"', '""') + '"' if set(speaker) & set(',"\n') else speaker
        columns = (found.count, found.mean, found.std, found.minimum, found.maximum)
        for at, row in enumerate(rows):
            target.write(",".join([name, row, *(f"{column[at]:.9g}" for column in columns)]) + "\n")
    return target.getvalue().encode()
