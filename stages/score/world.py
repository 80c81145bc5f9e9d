"""Pitch and mel-cepstrum of signals by the WORLD vocoder's analysis (Morise et al. 2016)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.pair import Pair

PERIOD_MS = 5.0
"""Time from frame to frame."""

LOWEST_HZ, HIGHEST_HZ = 40.0, 800.0
"""Pitches that are looked for."""

SHORTEST_S = 0.1
"""Shorter signals hold too few periods of a low voice."""


class CepstrumParams(NamedTuple):
    """Hold the order of a mel-cepstrum, and the warping of its frequencies."""

    order: int
    warping: float


CEPSTRA = {
    16000: CepstrumParams(23, 0.42),
    22050: CepstrumParams(34, 0.45),
    24000: CepstrumParams(34, 0.46),
    44100: CepstrumParams(39, 0.53),
    48000: CepstrumParams(39, 0.55),
}
"""By rate in Hz, as in ESPnet."""


class Contours(NamedTuple):
    """Hold the pitch of reference and estimate in Hz, 0 where a frame is unvoiced, at equal lengths."""

    reference: NDArray[np.float64]
    estimate: NDArray[np.float64]

    @property
    def voiced(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pitch of the frames that are voiced in both."""
        both = (self.reference > 0) & (self.estimate > 0)
        return self.reference[both], self.estimate[both]


def contours(pair: Pair) -> Contours:
    """Return the pitch of both signals of a pair, by DIO and StoneMask at the lower of their rates.

    Frames count, not samples, so that a signal that is longer keeps its last frame.
    """
    found = [pitch(y, pair.lowest_sr) for y in pair.whole(pair.lowest_sr)]
    n_frames = min(f0.size for f0 in found)
    return Contours(*(f0[:n_frames] for f0 in found))


def pitch(y: NDArray[np.float32], sr: int) -> NDArray[np.float64]:
    """Return the pitch ``(n_frames,)`` of a signal in Hz every 5 ms, 0 where it is unvoiced.

    DIO finds it and StoneMask refines it.
    """
    import pyworld  # an extra

    samples = y.astype(np.float64)
    f0, times = pyworld.dio(samples, sr, f0_floor=LOWEST_HZ, f0_ceil=HIGHEST_HZ, frame_period=PERIOD_MS)
    return np.asarray(pyworld.stonemask(samples, f0, times, sr))


def cepstra(pair: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mel-cepstra ``(n_frames, order)`` of reference and estimate, without the zeroth.

    They are made at the highest rate of `CEPSTRA` that both signals have, and may differ in length.
    """
    sr = max(rate for rate in CEPSTRA if rate <= pair.lowest_sr)
    reference, estimate = (mel_cepstrum(y, sr) for y in pair.whole(sr))
    return reference, estimate


def mel_cepstrum(y: NDArray[np.float32], sr: int) -> NDArray[np.float64]:
    """Return the mel-cepstrum ``(n_frames, order)`` of the spectral envelope, c_1 to c_order.

    Harvest finds the pitch and CheapTrick the envelope, whose log spectrum is warped.
    """
    import pyworld

    samples = y.astype(np.float64)
    f0, times = pyworld.harvest(samples, sr, f0_floor=LOWEST_HZ, f0_ceil=HIGHEST_HZ, frame_period=PERIOD_MS)
    power = pyworld.cheaptrick(samples, f0, times, sr)
    return np.asarray(np.log(power) @ _to_cepstrum(power.shape[1], CEPSTRA[sr]))


@lru_cache(maxsize=8)
def _to_cepstrum(n_bins: int, params: CepstrumParams) -> NDArray[np.float64]:
    """Return the matrix ``(n_bins, order)`` from a log power spectrum to its mel-cepstrum.

    A cepstrum is the inverse transform of the spectrum. The recursion of Tokuda et al. (ICSLP 1994)
    warps it: an all-pass takes the place of the delay.
    """
    order, alpha = params
    to_cepstrum = np.fft.irfft(np.eye(n_bins), axis=1)[:, :n_bins]
    to_cepstrum[:, 0] *= 0.5
    warped = np.zeros((order + 1, n_bins))
    for n in range(n_bins - 1, -1, -1):
        before = warped.copy()
        warped[0] = alpha * before[0]
        warped[0, n] += 1.0
        warped[1] = (1.0 - alpha * alpha) * before[0] + alpha * before[1]
        for m in range(2, order + 1):
            warped[m] = before[m - 1] + alpha * (before[m] - warped[m - 1])
    matrix = to_cepstrum @ warped.T
    matrix.flags.writeable = False
    return np.asarray(matrix[:, 1:])
