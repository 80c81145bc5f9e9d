"""Mel-cepstral distortion of WORLD's spectral envelopes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status
from melmill.stages.score.world import CEPSTRA, SHORTEST_S, cepstra

_DB = 10.0 * math.sqrt(2.0) / math.log(10.0)
"""From the distance of two cepstra to the difference of their log spectra in dB."""


def _world_mcd(pair: Pair) -> Measured:
    found = _cepstra(pair)
    if found is None:
        return Measured.failed(Status.TOO_SHORT)
    n_frames = min(len(C) for C in found)
    difference = found[0][:n_frames] - found[1][:n_frames]
    return Measured.of(_DB * float(np.mean(np.sqrt(np.sum(difference * difference, axis=1)))))


def _mcd_dtw(pair: Pair) -> Measured:
    from melmill.stages.score.compiled.warping import warped_distance  # here, as it imports numba

    found = _cepstra(pair)
    return Measured.failed(Status.TOO_SHORT) if found is None else Measured.of(_DB * warped_distance(*found))


def _cepstra(pair: Pair) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if pair.at(pair.lowest_sr)[0].size < SHORTEST_S * pair.lowest_sr:
        return None
    return pair.once(cepstra)


_FRONT_END = (
    "of WORLD's envelopes: Harvest from 40 to 800 Hz, CheapTrick, every 5 ms, mel-cepstra of order and warping 23/0.42 "
    "(16 kHz), 34/0.45 (22.05), 34/0.46 (24), 39/0.53 (44.1) or 39/0.55 (48), without $c_0$"
)
_REFERENCE = "Kubichek 1993; Morise, Yokomori, Ozawa 2016 (WORLD); orders and warpings of ESPnet"
_COST = "About 2 x real time for both of WORLD's MCDs together, nearly all of it Harvest's."

WORLD_MCD = Metric(
    name="world_mcd",
    column="world_mcd_db",
    title="MCD (WORLD)",
    unit="dB",
    better="lower",
    needs="signals",
    lowest_sr=min(CEPSTRA),
    package="pyworld",
    compute=_world_mcd,
    order=92,
    says="Difference of the spectral envelopes that a vocoder with pitch sees, frame by frame.",
    formula=rf"Mean over frames of $\frac{{10}}{{\ln 10}}\sqrt{{2\sum_{{k\ge1}}(c_k-\hat c_k)^2}}$ {_FRONT_END}.",
    limits="It ignores level and phase. Other front ends, and codes that count $c_0$, have values on other scales: "
    "name it as the MCD of WORLD.",
    reference=_REFERENCE,
    cost=_COST,
)

MCD_DTW = Metric(
    name="mcd_dtw",
    column="mcd_dtw_db",
    title="MCD-DTW (WORLD)",
    unit="dB",
    better="lower",
    needs="signals",
    lowest_sr=min(CEPSTRA),
    package="pyworld",
    compute=_mcd_dtw,
    order=94,
    says="`world_mcd` after the best alignment in time, for estimates that keep the words but not their timing.",
    formula=rf"Mean of the same distance along the path of dynamic time warping with the smallest sum, {_FRONT_END}.",
    limits="Warping hides errors of timing, and lowers the value even where there are none. Use `world_mcd` where the "
    "time axis is kept. The path is exact, so values lie up to 2 % below those of FastDTW.",
    reference=f"{_REFERENCE}; Sakoe, Chiba 1978",
    cost=f"{_COST} The path takes time that grows with the square of the duration.",
)
