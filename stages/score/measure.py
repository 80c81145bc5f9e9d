"""Scores of two signals, without a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import as_float
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.score.pair import Pair
from melmill.stages.score.registry import metric
from melmill.stages.score.status import Measured

DEFAULT_METRICS = ("pesq_wb", "estoi", "scm", "sc")
"""Metrics that are measured unless others are named."""


def score(
    y: NDArray[np.float32 | np.float64 | np.int16],
    y_hat: NDArray[np.float32 | np.float64 | np.int16],
    sr: int,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    spec: MelSpec | None = None,
    timeout_s: float = 60.0,
) -> dict[str, Measured]:
    """Return each metric's measurement of a reconstruction.

    Parameters
    ----------
    y, y_hat : ndarray, shape (n_samples,)
        Recording and reconstruction: float with full scale 1, or int16 PCM.
    sr : int
        Rate of both, Hz.
    metrics : sequence of str
        Names, see `melmill.stages.score.registry`.
    spec : MelSpec or None
        STFT and mel of the spectral metrics; None: that of the preset ``paper`` at `sr`.
    timeout_s : float
        Longest wait for PESQ, s, besides twice the duration of the recording.

    Returns
    -------
    dict of str to Measured
        By name of the metric; `Measured.value` is NaN unless `Measured.status` is ok.

    Raises
    ------
    ParameterError
        There is no such metric.
    """
    pair = Pair(
        reference=as_float(y), reference_sr=sr, estimate=as_float(y_hat), estimate_sr=sr, spec=spec or default_spec(sr),
        timeout_s=timeout_s,
    )  # fmt: skip
    return {chosen.name: chosen.measure(pair) for chosen in map(metric, metrics)}


def default_spec(sr: int) -> MelSpec:
    """Return the mel of the spectral metrics where the signals at `sr` Hz were made from none."""
    return replace(preset("paper"), sr=sr)
