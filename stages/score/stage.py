"""Scores of reconstructions: those of two signals, and those of a corpus by the stage `score`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, OneOf, Outcome, Product, Scalar, Scores, Waveform, as_float, each
from melmill.stages.numeric.checks import check_full_scale
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.score.metric import METRICS, Metric, metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

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
        Names, see `melmill.stages.score.metric`.
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
    Unusable
        `y` holds floats that lie so far outside [-1, 1] that they must be of another scale.
    """
    check_full_scale(y)
    pair = Pair(
        reference=as_float(y), reference_sr=sr, estimate=as_float(y_hat), estimate_sr=sr, spec=spec or default_spec(sr),
        timeout_s=timeout_s,
    )  # fmt: skip
    return {chosen.name: chosen.measure(pair) for chosen in map(metric, metrics)}


def default_spec(sr: int) -> MelSpec:
    """Return the mel of the spectral metrics where the signals at `sr` Hz were made from none."""
    return replace(preset("paper"), sr=sr)


def _metric_names() -> list[str]:
    """Return the names of all metrics, and those of their columns, which stand for them."""
    return list(dict.fromkeys([*METRICS, *(known.column for known in METRICS.values())]))


@dataclass(frozen=True, kw_only=True)
class Score:
    """Measure every reconstruction with every metric.

    Each value has a status beside it; a measurement that failed has a status and no value.

    Parameters
    ----------
    metrics : tuple of str
        Names of metrics, in the order of the columns.
    preset : str or None
        Mel whose STFT and filter bank the spectral metrics use, and whose rate `si_sdr` uses. None:
        the mel that the reconstruction was made from, or ``paper`` at its rate. Name one to compare
        reconstructions from several mels.
    pesq_timeout_s : float
        Longest wait for PESQ, s, besides twice the duration of the utterance.
    """

    uses: ClassVar[str] = "score"
    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.WAVEFORM}), absent_ok=True),
        "against": Input(kinds=frozenset({Kind.WAVEFORM})),
    }

    metrics: tuple[Annotated[str, OneOf(_metric_names)], ...] = DEFAULT_METRICS
    preset: Annotated[str, OneOf(preset_names)] | None = None
    pesq_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the fields."""
        names = [chosen.name for chosen in self._chosen]
        if not names:
            raise ParameterError("metrics", "is empty: name at least one, say [pesq_wb, estoi, scm, sc]")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ParameterError("metrics", f"names {twice[0]!r} twice: leave one out")
        if not 0 < self.pesq_timeout_s < float("inf"):
            raise ParameterError("pesq_timeout_s", f"must be a positive time in s, got {self.pesq_timeout_s!r}")
        self._preset_spec  # noqa: B018 - the name is checked by looking it up

    def identity(self) -> Mapping[str, Any]:
        """Return the metrics, the mel that they use, and what decides which values they have.

        Scores made without a package that a metric needs are not those made with it.
        """
        spec = self._preset_spec
        identity: dict[str, Any] = {
            "metrics": [chosen.name for chosen in self._chosen],
            "spec": None if spec is None else spec.as_dict(),
            "pesq_timeout_s": self.pesq_timeout_s,
            "pesq_installed": False,  # there without PESQ too, so that the keys of earlier stores stay
        }
        identity.update({f"{one.package}_installed": one.is_installed for one in self._chosen if one.package})
        # Absent where all are 1, for the same reason.
        versions = {one.name: one.version for one in self._chosen if one.version != 1}
        return {**identity, "versions": versions} if versions else identity

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Scores:
        """Describe the table of the node at the port `from`."""
        return Scores(metrics=tuple(chosen.column for chosen in self._chosen), scored=inputs["from"][0].node)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return one row per utterance, with a value and a status for each metric.

        A metric has two columns, ``<column>`` (NaN without a value) and ``status_<column>``. An
        utterance without a reconstruction has the status `missing_estimate` everywhere.
        """
        estimate, reference = cast("Waveform", inputs["from"]), cast("Waveform", inputs["against"])
        return each(items, lambda item: Outcome(row=self._row(item, estimate, reference)))

    def _row(self, item: Item, estimate: Waveform, reference: Waveform) -> dict[str, Scalar]:
        if "from" not in item.inputs:
            return _as_row((chosen, Measured.failed(Status.MISSING_ESTIMATE)) for chosen in self._chosen)
        pair = Pair(
            reference=as_float(item.inputs["against"]),
            reference_sr=reference.sr,
            estimate=as_float(item.inputs["from"]),
            estimate_sr=estimate.sr,
            spec=self._preset_spec or estimate.mel or default_spec(estimate.sr),
            timeout_s=self.pesq_timeout_s,
        )
        return _as_row((chosen, chosen.measure(pair)) for chosen in self._chosen)

    @property
    def _chosen(self) -> tuple[Metric, ...]:
        return tuple(metric(name) for name in self.metrics)

    @property
    def _preset_spec(self) -> MelSpec | None:
        return None if self.preset is None else preset(self.preset)


def _as_row(measured: Iterable[tuple[Metric, Measured]]) -> dict[str, Scalar]:
    row: dict[str, Scalar] = {}
    for chosen, result in measured:
        row[chosen.column] = result.value
        row[chosen.status_column] = result.status.value
    return row
