"""Distances between pitch contours that WORLD's DIO finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status
from melmill.stages.score.world import SHORTEST_S, Contours, contours

Floats = NDArray[np.float64]


def log_f0_rmse(reference: Floats, estimate: Floats) -> float:
    """Return the root mean square difference of natural logs of pitches ``(n_frames,)`` in Hz.

    >>> round(log_f0_rmse(np.array([100.0, 200.0]), np.array([200.0, 400.0])), 4)
    0.6931
    """
    return float(np.sqrt(np.mean(np.log(estimate / reference) ** 2)))


def f0_cents(reference: Floats, estimate: Floats) -> float:
    """Return the root mean square difference of pitches ``(n_frames,)`` in cents, 1200 to an octave.

    >>> round(f0_cents(np.array([100.0, 200.0]), np.array([200.0, 400.0])), 4)
    1200.0
    """
    return log_f0_rmse(reference, estimate) * 1200.0 / float(np.log(2.0))


def voicing_f1(reference: NDArray[np.bool_], estimate: NDArray[np.bool_]) -> float:
    """Return the F1 of the decision that a frame is voiced, with the reference as truth.

    NaN where no frame is voiced in either.

    >>> voicing_f1(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    both = np.sum(reference & estimate)
    either = np.sum(reference) + np.sum(estimate)
    return float(2 * both / either) if either else float("nan")


def measured_f1(reference: NDArray[np.bool_], estimate: NDArray[np.bool_]) -> Measured:
    """Return `voicing_f1`, weighted by the voiced frames of both, so that values of files can be pooled."""
    value = voicing_f1(reference, estimate)
    if not np.isfinite(value):
        return Measured.failed(Status.NO_CONTENT)
    return Measured.of(value, weight=float(np.sum(reference) + np.sum(estimate)))


def _over_voiced(distance: Callable[[Floats, Floats], float], at_least: int = 1) -> Callable[[Pair], Measured]:
    def compute(pair: Pair) -> Measured:
        found = _contours(pair)
        if found is None:
            return Measured.failed(Status.TOO_SHORT)
        reference, estimate = found.voiced
        if reference.size < at_least:
            return Measured.failed(Status.NO_CONTENT)
        return Measured.of(distance(reference, estimate))

    return compute


def _correlation(reference: Floats, estimate: Floats) -> float:
    x, y = reference - np.mean(reference), estimate - np.mean(estimate)
    scale = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / scale if scale > 0 else float("nan")


def _vuv_f1(pair: Pair) -> Measured:
    found = _contours(pair)
    if found is None:
        return Measured.failed(Status.TOO_SHORT)
    return measured_f1(found.reference > 0, found.estimate > 0)


def _contours(pair: Pair) -> Contours | None:
    if pair.at(pair.lowest_sr)[0].size < SHORTEST_S * pair.lowest_sr:
        return None
    return pair.once(contours)


_DIO = "DIO and StoneMask of WORLD, 40 to 800 Hz, every 5 ms"
_REFERENCE = "Morise, Kawahara, Katayose 2009 (DIO); Morise, Yokomori, Ozawa 2016 (WORLD)"
_COST = "About 50 x real time for the four metrics of DIO together."

LOG_F0_RMSE = Metric(
    name="log_f0_rmse",
    title="log F0 RMSE",
    unit="Np",
    better="lower",
    decimals=3,
    needs="signals",
    lowest_sr=8000,
    package="pyworld",
    compute=_over_voiced(log_f0_rmse),
    order=130,
    group="pitch",
    says="Difference of pitch over frames that are voiced in both signals.",
    formula=rf"Root mean square of $\ln\hat f-\ln f$ over frames voiced in both; {_DIO}.",
    limits="A voicing error does not count: read it beside `f0_vuv_f1`. One octave error of the pitch tracker "
    "outweighs hundreds of good frames.",
    reference=_REFERENCE,
    cost=_COST,
)

F0_CENTS = Metric(
    name="f0_cents",
    title="F0 RMSE",
    unit="cents",
    better="lower",
    decimals=1,
    needs="signals",
    lowest_sr=8000,
    package="pyworld",
    compute=_over_voiced(f0_cents),
    order=131,
    group="pitch",
    says="`log_f0_rmse` in cents: 100 are a semitone.",
    formula=rf"Root mean square of $1200\log_2(\hat f/f)$ over frames voiced in both; {_DIO}.",
    limits="It has the limits of `log_f0_rmse`. `pitch_cents` has the same unit but CREPE's pitch.",
    reference=_REFERENCE,
    cost=_COST,
)

F0_CORR = Metric(
    name="f0_corr",
    title="F0 correlation",
    better="higher",
    decimals=3,
    needs="signals",
    lowest_sr=8000,
    package="pyworld",
    compute=_over_voiced(_correlation, at_least=2),
    order=132,
    group="pitch",
    says="Correlation of the pitch of both signals, at most 1.",
    formula=rf"Pearson's correlation of $\hat f$ and $f$ in Hz over frames voiced in both; {_DIO}.",
    limits="A flat voice has little to correlate. It ignores a constant factor: a voice an octave off scores 1.",
    reference=_REFERENCE,
    cost=_COST,
)

F0_VUV_F1 = Metric(
    name="f0_vuv_f1",
    title="F0 V/UV F1",
    better="higher",
    decimals=3,
    needs="signals",
    lowest_sr=8000,
    package="pyworld",
    compute=_vuv_f1,
    order=133,
    group="pitch",
    says="How well the decision voiced or unvoiced agrees, from 0 to 1.",
    formula=rf"$2TP/(2TP+FP+FN)$ over all frames, the recording's decision as truth; {_DIO}.",
    limits="DIO calls frames unvoiced that other trackers hear as voiced. `vuv_f1` of papers is CREPE's and has other "
    "values.",
    pooled="voiced frames",
    version=2,
    reference=_REFERENCE,
    cost=_COST,
)
