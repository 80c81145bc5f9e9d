"""Stage `trim`: recordings without the silence at their ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.contract import Item, Outcome, Span, Waveform
from melmill.stages.numeric.checks import check_float
from melmill.stages.prepare.activity import active_regions
from melmill.stages.prepare.prepare import Prepare, floats, whole

BEFORE, AFTER, ALL = "silence before", "silence after", "nothing but silence"


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Say when something is heard in a recording.

    Parameters
    ----------
    threshold_db : float
        Level at which sound begins, relative to the loudest 5 ms of the recording, dB. Where its noise
        is louder than that, it begins 6 dB above the noise.
    hysteresis_db : float
        How much lower the level is at which sound ends, dB. So soft ends of words are kept.
    min_sound_s : float
        What is shorter is a click, and counts as silence, s.
    """

    threshold_db: float = -40.0
    hysteresis_db: float = 10.0
    min_sound_s: float = 0.03

    def __post_init__(self) -> None:
        """Check the fields."""
        check_float("threshold_db", self.threshold_db, at_least=-90.0, below=0.0)
        check_float("hysteresis_db", self.hysteresis_db, at_least=0.0, at_most=60.0)
        check_float("min_sound_s", self.min_sound_s, at_least=0.0, at_most=10.0)


@dataclass(frozen=True, kw_only=True)
class Trim(Activity, Prepare):
    """Cut the silence off both ends of recordings.

    A recording in which nothing is heard is dropped. Silence between words stays. The levels decide,
    of frames of 5 ms every millisecond.

    Parameters
    ----------
    margin_s : float
        Silence that is kept at each end, where there is as much, s.
    """

    uses: ClassVar[str] = "trim"
    reshapes: ClassVar[bool] = True

    margin_s: float = 0.05

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_float("margin_s", self.margin_s, at_least=0.0, at_most=60.0)

    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Return a recording without its ends; see `Prepare.prepared`."""
        y = item.inputs["from"]
        regions = active_regions(
            floats(y),
            source.sr,
            threshold_db=self.threshold_db,
            hysteresis_db=self.hysteresis_db,
            min_sound_s=self.min_sound_s,
            min_silence_s=self.min_sound_s,
        )
        if not regions:
            return Outcome(spans=whole(y, reason=ALL))
        margin = round(self.margin_s * source.sr)
        start, stop = max(0, regions[0].start - margin), min(len(y), regions[-1].stop + margin)
        spans = [Span(start=start, stop=stop, array=y[start:stop].copy())]
        if start:
            spans.insert(0, Span(start=0, stop=start, reason=BEFORE))
        if stop < len(y):
            spans.append(Span(start=stop, stop=len(y), reason=AFTER))
        return Outcome(spans=tuple(spans))
