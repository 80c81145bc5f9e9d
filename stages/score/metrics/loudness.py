"""Difference of loudness, after ITU-R BS.1770."""

from __future__ import annotations

import math

from melmill.stages.numeric.mels.loudness import integrated_loudness, n_blocks
from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status


def loudness_difference(pair: Pair) -> Measured:
    """Return how far apart the loudness of two signals is, in LU."""
    sr = pair.lowest_sr
    reference, estimate = pair.at(sr)
    if n_blocks(reference.size, sr) < 1:
        return Measured.failed(Status.TOO_SHORT)
    levels = [integrated_loudness(y, sr) for y in (reference, estimate)]
    if not all(map(math.isfinite, levels)):
        return Measured.failed(Status.NO_CONTENT)
    return Measured.of(abs(levels[1] - levels[0]))


LOUDNESS_DIFF = Metric(
    name="loudness_diff",
    column="loudness_diff_lu",
    title="Loudness difference",
    unit="LU",
    better="lower",
    needs="signals",
    lowest_sr=8000,
    compute=loudness_difference,
    order=110,
    says="How much louder or quieter the reconstruction is than the recording, as a broadcaster measures it.",
    formula=r"$|L(\hat x)-L(x)|$ of the integrated loudness $L$ in LUFS: K-weighting, blocks of 400 ms every 100 ms, "
    "gates at -70 LUFS and at 10 LU below the mean of what passes.",
    limits="It hears level alone. Under 0.4 s there is no block, and a signal below the gate throughout has no value.",
    reference="ITU-R BS.1770-5 (2023), Annex 1",
    cost="About 1,000 x real time at 16 kHz.",
)
