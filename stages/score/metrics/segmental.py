"""Segmental signal-to-noise ratio."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

FRAME_S = 0.03
"""Frames overlap by 75 %, under a Hann window."""

LOWEST_DB, HIGHEST_DB = -10.0, 35.0
"""Range that the ratio of a frame is limited to."""


def segmental_snr_db(reference: NDArray[np.float32], estimate: NDArray[np.float32], sr: int) -> Measured:
    """Return the mean over frames of the signal-to-noise ratio in dB, each limited to -10 to 35 dB.

    A frame has ``10 log10(sum w s^2 / sum w (s - s')^2)`` with the squared Hann window w. Frames of
    digital silence in the recording count too, with -10 dB, or 35 dB if the estimate is silent there.

    Parameters
    ----------
    reference, estimate : ndarray of float32, shape (n_samples,)
    sr : int
        Rate of both, Hz.

    References
    ----------
    Hansen, Pellom, "An effective quality evaluation protocol for speech enhancement algorithms",
    ICSLP 1998.
    """
    length = round(FRAME_S * sr)
    step = length // 4
    if reference.size < length or step < 1:
        return Measured.failed(Status.TOO_SHORT)
    weight = np.hanning(length + 2)[1:-1] ** 2
    s = reference.astype(np.float64)
    signal, noise = (_frames(z * z, length, step) @ weight for z in (s, s - estimate))
    # A ratio without a finite log is one of the limits.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_db = 10.0 * np.log10(signal / noise)
    ratio_db[noise == 0.0] = HIGHEST_DB
    return Measured.of(float(np.mean(np.clip(ratio_db, LOWEST_DB, HIGHEST_DB))))


def _frames(x: NDArray[np.float64], length: int, step: int) -> NDArray[np.float64]:
    return np.lib.stride_tricks.sliding_window_view(x, length)[::step]


def _snr_seg(pair: Pair) -> Measured:
    return segmental_snr_db(*pair.at(pair.lowest_sr), pair.lowest_sr)


SNR_SEG = Metric(
    name="snr_seg",
    column="snr_seg_db",
    title="Segmental SNR",
    unit="dB",
    better="higher",
    needs="signals",
    compute=_snr_seg,
    order=105,
    says="Power of the recording over the power of the difference, frame by frame. Identical signals have 35 dB.",
    formula=r"Mean over frames of 30 ms, every 7.5 ms, of $10\log_{10}(\sum w s^2/\sum w (s-\hat s)^2)$ limited to -10 "
    r"to 35 dB; $w$ is the squared Hann window.",
    limits="It compares waveforms as SI-SDR does, so another phase or a shift of a few samples puts it at -10 dB. "
    "It measures noise that was added or taken away.",
    reference="Hansen, Pellom, ICSLP 1998",
    cost="About 1,600 x real time at 16 kHz.",
)
