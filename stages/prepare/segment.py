"""Stage `segment`: long recordings in pieces, cut where they are silent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Item, Outcome, Span, Waveform
from melmill.stages.numeric.checks import check_float
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.prepare.activity import Region, active_regions
from melmill.stages.prepare.prepare import Prepare, floats, whole
from melmill.stages.prepare.trim import AFTER, ALL, BEFORE, Activity

BETWEEN, SHORT = "silence between", "shorter than min_s"

_QUIET_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Segment(Activity, Prepare):
    """Cut recordings into pieces where they are silent.

    The pieces of ``ID`` are called ``ID~001``, ``ID~002`` and so on. A recording of one piece keeps its
    id and its text. Pieces of several have no text, as nobody says which words are in which.

    Parameters
    ----------
    min_silence_s : float
        A shorter silence does not part pieces, s.
    margin_s : float
        Silence that is kept around a piece, up to half of what is there, s.
    min_s : float
        A shorter piece is joined with the next one if both together are not too long, and else
        dropped, s.
    max_s : float
        A longer piece is cut at its quietest place, s.
    """

    uses: ClassVar[str] = "segment"
    reshapes: ClassVar[bool] = True
    splits: ClassVar[bool] = True

    min_silence_s: float = 0.3
    margin_s: float = 0.1
    min_s: float = 1.0
    max_s: float = 15.0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_float("min_silence_s", self.min_silence_s, at_least=0.02, at_most=60.0)
        check_float("margin_s", self.margin_s, at_least=0.0, at_most=60.0)
        check_float("min_s", self.min_s, at_least=0.05, at_most=3600.0)
        check_float("max_s", self.max_s, at_least=0.1, at_most=36000.0)
        if self.max_s < 2 * self.min_s:
            raise ParameterError("max_s", f"must be at least twice min_s ({self.min_s:g}), got {self.max_s:g}")

    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Return the pieces of a recording; see `Prepare.prepared`."""
        stored = item.inputs["from"]
        y, sr = floats(stored), source.sr
        regions = active_regions(
            y,
            sr,
            threshold_db=self.threshold_db,
            hysteresis_db=self.hysteresis_db,
            min_sound_s=self.min_sound_s,
            min_silence_s=self.min_silence_s,
        )
        if not regions:
            return Outcome(spans=whole(stored, reason=ALL))
        joined = self._joined(regions, sr)
        pieces = [piece for region in joined for piece in self._cut(y, region, sr)]
        spans = tuple(self._spans(stored, self._with_margins(pieces, len(y), sr), sr))
        return Outcome(row={"n_pieces": sum(span.array is not None for span in spans)}, spans=spans)

    def _joined(self, regions: list[Region], sr: int) -> list[Region]:
        """Return regions, those joined with the next one that are too short."""
        joined: list[Region] = []
        for region in regions:
            last = joined[-1] if joined else None
            short = last is not None and min(last.stop - last.start, region.stop - region.start) < self.min_s * sr
            if last is not None and short and region.stop - last.start <= self.max_s * sr:
                joined[-1] = Region(last.start, region.stop)
            else:
                joined.append(region)
        return joined

    def _cut(self, y: NDArray[np.float32], region: Region, sr: int) -> Iterator[Region]:
        """Yield a region in pieces that are not too long, cut where it is quietest."""
        start, stop = region
        longest = int(self.max_s * sr)
        while stop - start > longest:
            # Neither this piece nor the next one may come out too short.
            low = max(start + round(self.min_s * sr), start + longest // 2)
            high = min(start + longest, stop - round(self.min_s * sr))
            at = _quietest(y, low, max(high, low + 1), sr)
            yield Region(start, at)
            start = at
        yield Region(start, stop)

    def _with_margins(self, pieces: list[Region], n_samples: int, sr: int) -> list[Region]:
        """Return pieces with silence around them, up to half of what lies between two."""
        margin, longest = round(self.margin_s * sr), int(self.max_s * sr)
        widened = []
        for i, (start, stop) in enumerate(pieces):
            room = (longest - (stop - start)) // 2
            before = start if i == 0 else (start - pieces[i - 1].stop) // 2
            after = n_samples - stop if i == len(pieces) - 1 else (pieces[i + 1].start - stop) // 2
            wide = max(0, min(margin, room))
            widened.append(Region(start - min(wide, before), stop + min(wide, after)))
        return widened

    def _spans(self, y: NDArray[np.generic], pieces: list[Region], sr: int) -> Iterator[Span]:
        """Yield all samples: pieces, and what lies between."""
        at = 0
        for start, stop in pieces:
            if start > at:
                yield Span(start=at, stop=start, reason=BETWEEN if at else BEFORE)
            if stop - start < round(self.min_s * sr):
                yield Span(start=start, stop=stop, reason=SHORT, detail=f"{(stop - start) / sr:.3f} s")
            else:
                yield Span(start=start, stop=stop, array=y[start:stop].copy())
            at = stop
        if at < len(y):
            yield Span(start=at, stop=len(y), reason=AFTER)


def _quietest(y: NDArray[np.float32], low: int, high: int, sr: int) -> int:
    """Return the sample from `low` to before `high` around which 50 ms have the least energy."""
    half = max(1, round(_QUIET_S * sr / 2))
    first = max(0, low - half)
    energy = np.concatenate([[0.0], np.cumsum(y[first : high + half].astype(np.float64) ** 2)])
    places = np.arange(low, high)
    begin, end = np.maximum(places - half, first) - first, np.minimum(places + half, first + energy.size - 1) - first
    return int(places[np.argmin(energy[end] - energy[begin])])
