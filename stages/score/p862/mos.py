"""The score: how loud the differences are that the model hears, summed up over bands and time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.vector import Flat
from melmill.stages.score.p862.activity import stretches
from melmill.stages.score.p862.alignment import Aligner, Utterance
from melmill.stages.score.p862.conditioning import Conditioned, conditioned
from melmill.stages.score.p862.delays import magnitude_delay
from melmill.stages.score.p862.loudness import Bands, audible_power, equalise, gains, loudness, pitch_power, raised
from melmill.stages.score.p862.tables import BUFFER, Mode, Rate, kernel, rate

Floats = NDArray[np.float32 | np.float64]

SHORTEST_S = 0.25
"""Shorter signals have no score, s."""

_QUIET = 500.0  # sum of five magnitudes below which a signal has not begun
_DEAD_ZONE = 0.25  # share of the softer loudness that masks a difference
_ASYMMETRY_POWER, _ASYMMETRY_EXPONENT = 50.0, 1.2
_LEAST_ASYMMETRY, _MOST_ASYMMETRY = 3.0, 12.0
_BAD_FRAME = 30.0
_SMEAR = 2  # frames
_SHORTEST_BAD = 5  # frames
_MOST_DISTURBANCE = 45.0
_LONG = 1000  # frames, 16 s: from here on the end weighs more than the start
_SYLLABLE = 20  # frames, 320 ms


def mos_lqo(reference: Floats, estimate: Floats, sr: int, mode: Mode) -> float | None:
    """Return the PESQ of an estimate, mapped to the scale of listeners' opinions.

    Parameters
    ----------
    reference, estimate : ndarray, shape (n_samples,)
        At least 0.25 s each, of one scale, any.
    sr : {8000, 16000}
        Rate, Hz.
    mode : {"wb", "nb"}
        Wide band, P.862.2, at 16 kHz; narrow band, P.862 mapped by P.862.1, at either rate.

    Returns
    -------
    float or None
        None if the reference has no 200 ms of speech that lie within the estimate.

    References
    ----------
    ITU-T P.862 (2001), section 10; P.862.1 (2003), equation 1; P.862.2 (2007), equation 1.
    """
    mos = raw_mos(reference, estimate, rate(sr), mode)
    if mos is None:
        return None
    slope, offset = (-1.3669, 3.8224) if mode == "wb" else (-1.4945, 4.6607)
    return 0.999 + 4.0 / (1.0 + math.exp(slope * mos + offset))


def raw_mos(reference: Floats, estimate: Floats, rate: Rate, mode: Mode) -> float | None:
    """Return the score of P.862 before any mapping, -0.5 to 4.5, or None without an utterance."""
    signals = conditioned(reference, estimate, rate, mode)
    utterances = Aligner(signals, rate).utterances() if signals.model[0].any() else []
    if not utterances:
        return None
    symmetric, asymmetric, first = _Model(signals, utterances, rate).disturbances()
    weights = _time_weights(symmetric.size, max(reference.size, estimate.size) // (rate.n_fft // 2) - 1)
    return 4.5 - 0.1 * _over_time(symmetric, first, weights) - 0.0309 * _over_time(asymmetric, first, weights)


class _Model:
    """Compare the loudness of both signals, frame by frame.

    Parameters
    ----------
    signals : Conditioned
    utterances : sequence of Utterance
    rate : Rate
    """

    def __init__(self, signals: Conditioned, utterances: Sequence[Utterance], rate: Rate) -> None:
        self._rate, self._utterances = rate, utterances
        self._n, (self._x, self._y) = max(signals.n), signals.model
        self._hop = rate.n_fft // 2

    def disturbances(self) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
        """Return both disturbances of each frame, and the first frame that counts."""
        rate, hop = self._rate, self._hop
        before, behind = self._silence()
        n_frames = (self._n - 2 * rate.start + rate.padding - behind) // hop
        starts = rate.start + hop * np.arange(n_frames)
        late = starts + self._delays(starts)
        inside = (late > 0) & (late + rate.n_fft < self._n + rate.padding)
        reference = pitch_power(self._x, starts, rate)
        estimate = pitch_power(self._y, np.where(inside, late, -1), rate)
        n_averaged = (self._n - 2 * rate.start + rate.padding) // hop - 1
        equalise(reference, estimate, n_frames, n_averaged, rate)
        power = audible_power(reference, n_frames, 1.0, rate)
        symmetric, asymmetric = _frame_disturbances(reference, estimate, n_frames, rate, is_first=True)
        is_bad = symmetric > _BAD_FRAME
        for frames in self._skipped(n_frames):
            symmetric[frames] = asymmetric[frames] = 0
        if is_bad.any():
            self._realign(reference, symmetric, asymmetric)
        steep = ((power + 1e5) / 1e7) ** 0.04
        symmetric, asymmetric = (np.minimum(one / steep, _MOST_DISTURBANCE) for one in (symmetric, asymmetric))
        return symmetric, asymmetric, before // hop

    def _silence(self) -> tuple[int, int]:
        """Return how many samples of the reference are quiet at its start and at its end."""
        most, start = self._n // 2, self._rate.start
        forwards, backwards = self._x[start:], self._x[: self._n - start + self._rate.padding][::-1]
        return _quiet(forwards[: most + 5].copy(), most), _quiet(backwards[: most + 5].copy(), most)

    def _delays(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the delay at places in the reference."""
        delays = np.full(samples.size, self._utterances[0].delay)
        for one in self._utterances[1:]:
            delays[samples >= one.start * self._rate.window] = one.delay
        return delays

    def _skipped(self, n_frames: int) -> list[slice]:
        """Return the frames that the estimate has no time for, where delays fall by over half a frame."""
        rate, found = self._rate, []
        for one, other in zip(self._utterances, self._utterances[1:], strict=False):
            jump = other.delay - one.delay
            if jump < -self._hop:
                first = ((other.start - BUFFER) * rate.window + other.delay) // self._hop
                first = min(first, ((one.end - BUFFER) * rate.window + one.delay) // self._hop)
                last = ((other.start - BUFFER) * rate.window - jump) // self._hop + 1
                found.append(slice(max(first, 0), min(last + 1, n_frames - 1)))
        return found

    def _realign(self, reference: Bands, symmetric: NDArray[np.float64], asymmetric: NDArray[np.float64]) -> None:
        """Lower the disturbances where a delay of their own makes bad frames better."""
        rate, hop = self._rate, self._hop
        intervals = _bad_intervals(symmetric > _BAD_FRAME)
        if not intervals:
            return
        low, high = rate.start, self._n + rate.padding - rate.start
        tweaked = np.zeros_like(self._y)
        places = np.arange(low, high)
        tweaked[low:high] = self._y[np.clip(places + self._delays(places), low, high - 1)]
        realigned = tweaked.copy()
        reach = 4 * rate.n_fft
        for first, last in intervals:
            start, stop = rate.start + first * hop, rate.start + last * hop + rate.n_fft
            stop = min(stop, self._n + rate.padding)
            x = np.zeros(stop - start + 2 * reach, dtype=np.float32)
            x[reach : reach + stop - start] = self._x[start:stop]
            y = tweaked[np.clip(np.arange(start - reach, stop + reach), low, high - 1)]
            delay = magnitude_delay(x, y, reach)
            places = np.arange(start, stop) + delay
            realigned[start:stop] = tweaked[np.clip(places, 0, self._n - 1)]
        for first, last in intervals:
            estimate = pitch_power(realigned, rate.start + hop * np.arange(first, last), rate)
            n = last - first
            part = np.zeros_like(estimate)
            part[:, :n] = reference[:, first:last]
            again = _frame_disturbances(part, estimate, n, rate, is_first=False)
            for total, better in zip((symmetric, asymmetric), again, strict=True):
                np.minimum(total[first:last], better, out=total[first:last])


@kernel
def _quiet(y: Flat, most: int) -> int:
    """Return how many samples precede the first five that are loud together."""
    for k in range(most):
        if abs(y[k]) + abs(y[k + 1]) + abs(y[k + 2]) + abs(y[k + 3]) + abs(y[k + 4]) >= _QUIET:
            return k
    return most


def _bad_intervals(is_bad: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first frame of every bad interval, and the one behind it.

    A frame belongs to it if there is a bad one within two frames on either side of it, or if it is
    bad itself.
    """
    n = is_bad.size
    padded = np.zeros(n + 2 * _SMEAR, dtype=bool)
    padded[_SMEAR : _SMEAR + n] = is_bad
    padded[_SMEAR] = False
    left = np.logical_or.reduce([padded[k : k + n] for k in range(_SMEAR + 1)])
    right = np.logical_or.reduce([padded[_SMEAR + k : _SMEAR + k + n] for k in range(_SMEAR + 1)])
    smeared = left & right
    smeared[:_SMEAR] = smeared[max(n - 1 - _SMEAR, 0) :] = False
    return [(first, last) for first, last in stretches(smeared).tolist() if last - first >= _SHORTEST_BAD]


def _frame_disturbances(
    reference: Bands, estimate: Bands, n_frames: int, rate: Rate, *, is_first: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the symmetric and the asymmetric disturbance of every frame."""
    power, power_hat = (audible_power(bands, n_frames, 1.0, rate) for bands in (reference, estimate))
    estimate[:, :n_frames] *= gains(power, power_hat, is_first)
    squares, sums = np.zeros(estimate.shape[1]), np.zeros(estimate.shape[1])
    _add_disturbances(
        reference, estimate, loudness(reference, rate), loudness(estimate, rate), rate.widths, squares, sums
    )
    width = float(np.sum(rate.widths[1:]))
    return np.sqrt(squares[:n_frames] / width) * width, sums[:n_frames]


@kernel
def _add_disturbances(
    reference: Flat, estimate: Flat, x: Flat, y: Flat, widths: Flat, squares: Flat, sums: Flat
) -> None:
    """Add every band's differences between the loudness x of the reference and y."""
    for b in range(1, x.shape[0]):
        width = np.float32(widths[b])
        for f in range(x.shape[1]):
            masked = np.float32(_DEAD_ZONE) * min(x[b, f], y[b, f])
            difference = max(abs(y[b, f] - x[b, f]) - masked, np.float32(0)) * width
            ratio = (estimate[b, f] + np.float32(_ASYMMETRY_POWER)) / (reference[b, f] + np.float32(_ASYMMETRY_POWER))
            factor = min(raised(ratio, np.float32(_ASYMMETRY_EXPONENT)), np.float32(_MOST_ASYMMETRY))
            squares[f] += difference * difference
            sums[f] += difference * (factor if factor >= np.float32(_LEAST_ASYMMETRY) else np.float32(0))


def _time_weights(n_frames: int, n: int) -> NDArray[np.float64]:
    """Return the weight of each frame: in a long signal the start weighs less."""
    if n_frames <= _LONG:
        return np.ones(n_frames)
    share = min((n - _LONG) / 5500.0, 0.5)
    return 1.0 - share + share * np.arange(n_frames) / n


def _over_time(disturbance: NDArray[np.float64], first: int, weights: NDArray[np.float64]) -> float:
    """Return the norm of order 2 over syllables of their norms of order 6."""
    total, all_weights = _square_sums(disturbance, first, weights)
    return math.sqrt(total / all_weights)


@kernel
def _square_sums(disturbance: Flat, first: int, weights: Flat) -> tuple[float, float]:
    total, all_weights, n = 0.0, 0.0, disturbance.size
    for start in range(first, n, _SYLLABLE // 2):
        syllable = 0.0
        for f in range(start, min(start + _SYLLABLE, n)):
            square = disturbance[f] * disturbance[f]
            syllable += square * square * square
        weight = weights[start - first] ** 2
        total += weight * (syllable / _SYLLABLE) ** (1 / 3)
        all_weights += weight
    return total, all_weights
