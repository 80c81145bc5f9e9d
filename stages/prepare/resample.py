"""Stage `resample`: recordings at another rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from melmill.stages.contract import Item, Outcome, Product, Waveform
from melmill.stages.numeric.checks import MAX_SR, check_int
from melmill.stages.numeric.resample import resample
from melmill.stages.prepare.prepare import Prepare, as_stored, waveform, whole
from melmill.storage.utterance import resampled_length


@dataclass(frozen=True, kw_only=True)
class Resample(Prepare):
    """Bring recordings to another rate, by the SoX resampler at high quality.

    The passband reaches 0.913 of the lower Nyquist frequency. Of int16, peaks that the band limit
    lifts past full scale are clipped, and the table of the node counts those samples.

    Parameters
    ----------
    sr : int
        Rate to reach, Hz.
    """

    uses: ClassVar[str] = "resample"

    sr: int = 22050

    def __post_init__(self) -> None:
        """Check the field."""
        check_int("sr", self.sr, at_least=1, at_most=MAX_SR)

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Waveform:
        """Describe the waveforms, of the type of those at the port ``from``; see `Prepare.produces`."""
        return Waveform(sr=self.sr, dtype=waveform(self.uses, inputs["from"]).dtype)

    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Return a recording at the rate; see `Prepare.prepared`."""
        y, one = item.inputs["from"], item.utterance
        if source.sr == self.sr:
            return Outcome(row={"n_clipped": 0}, spans=whole(y, y.copy()))
        # A second change of rate rounds a length that the first has rounded.
        wanted = resampled_length(one.n_samples, one.sr, self.sr)
        found = resample(y, source.sr, self.sr)[:wanted]
        n_clipped = int(np.count_nonzero(np.abs(found) > 1.0)) if made.dtype == "int16" else 0
        return Outcome(row={"n_clipped": n_clipped}, spans=whole(y, as_stored(found, made)))
