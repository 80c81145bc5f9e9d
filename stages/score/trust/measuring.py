"""What every metric makes of one recording and of its damaged versions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured
from melmill.stages.score.trust.damages import DAMAGES, damaged, steps_at

UNDAMAGED = "none"
"""Name of the damage of the recording itself."""

ROUNDED = "rounding"
"""Name of the damage of the recording as 16 bits hold it: no change below its effect counts."""

SHORTEST_S = 0.5
"""Shorter recordings are not damaged."""

Column = NDArray[np.int64 | np.float64 | np.str_]


def measured(
    y: NDArray[np.float32],
    sr: int,
    metrics: Sequence[Metric],
    spec: MelSpec,
    *,
    seed: int,
    text: str = "",
    damages: Collection[str] = tuple(DAMAGES),
) -> Iterator[tuple[str, float, dict[str, Measured]]]:
    """Yield damage, step and measurements: of the recording, of it as rounded, and of each damaged version.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        A recording, full scale 1.
    sr : int
        Hz.
    metrics : sequence of Metric
    spec : MelSpec
        Mel of the spectral metrics. Where it has the rate of the recording, it is the one that the
        scrambled phase leaves as it is; else that is ``paper``.
    seed : int
        Of noise and phases.
    text : str
        Words of the recording, for word errors.
    damages : collection of str
        Names of the damages, see `DAMAGES`.
    """

    def measure(estimate: NDArray[np.float32]) -> dict[str, Measured]:
        pair = Pair(reference=y, reference_sr=sr, estimate=estimate, estimate_sr=sr, spec=spec, text=text)
        return {one.column: one.measure(pair) for one in metrics}

    yield UNDAMAGED, 0.0, measure(y)
    yield ROUNDED, 0.0, measure(rounded(y, seed))
    same_rate = spec if spec.sr == sr else replace(preset("paper"), sr=sr)
    for name in damages:
        for step in steps_at(DAMAGES[name], sr):
            yield name, step, measure(damaged(y, sr, DAMAGES[name], step, same_rate, seed))


def rounded(y: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return a recording ``(n_samples,)`` with the error of 16 bits: uniform, of half a step either way.

    Most recordings lie on the grid of 16 bits already, so rounding itself would change nothing.
    """
    half_step = 2.0**-16
    error = np.random.default_rng(seed % 2**63).uniform(-half_step, half_step, y.size)
    return np.asarray(y + error, dtype=np.float32)


def columns(found: Iterator[tuple[str, float, Mapping[str, Measured]]]) -> dict[str, Column]:
    """Return measurements as columns ``damage, step``, and value and status of each metric.

    Parameters
    ----------
    found : iterator
        What `measured` yields.
    """
    rows = list(found)
    made: dict[str, Column] = {
        "damage": np.array([damage for damage, _, _ in rows]),
        "step": np.array([step for _, step, _ in rows], dtype=np.float64),
    }
    for column in rows[0][2]:
        made[column] = np.array([values[column].value for _, _, values in rows], dtype=np.float64)
        made[f"status_{column}"] = np.array([values[column].status.value for _, _, values in rows])
    return made
