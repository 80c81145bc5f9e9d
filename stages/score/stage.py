"""The stage that scores reconstructions against recordings."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from melmill.stages.contract import Input, Item, Kind, Outcome, Product, Scalar, Scores, Waveform, as_float, each
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.score.measure import measure
from melmill.stages.score.pair import Pair
from melmill.stages.score.registry import Metric, metric, status_column
from melmill.stages.score.status import Measured, Status


@dataclass(frozen=True, kw_only=True)
class Score:
    """Measure every reconstruction with every metric; a failure is a status, never a number.

    Parameters
    ----------
    metrics : tuple of str
        Names (see `melmill.stages.score.registry`), in the order of the columns.
    preset : str or None
        Mel whose STFT and bank the spectral metrics use (`scm`, `sc`, `lsd`, `mel_mae`, `mcd`; its rate also for
        `si_sdr`). None: the mel that the reconstruction was made from, or ``paper`` at its rate where there is none.
        Give one to compare reconstructions from several mels.
    pesq_timeout_s : float
        Time to wait for PESQ, s, besides twice the duration of the utterance.
    """

    uses: ClassVar[str] = "score"
    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.WAVEFORM}), absent_ok=True),
        "against": Input(kinds=frozenset({Kind.WAVEFORM})),
    }

    metrics: tuple[str, ...] = ("pesq_wb", "estoi", "scm", "sc")
    preset: str | None = None
    pesq_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the names and the time limit."""
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
        """Return the metrics by name, the mel that they use, and what decides which values there are.

        That is PESQ's time limit, and whether its package is there: scores made without it are others.
        """
        spec = self._preset_spec
        uses_pesq = any(chosen.name.startswith("pesq") for chosen in self._chosen)
        return {
            "metrics": [chosen.name for chosen in self._chosen],
            "spec": None if spec is None else spec.as_dict(),
            "pesq_timeout_s": self.pesq_timeout_s,
            "pesq_installed": uses_pesq and importlib.util.find_spec("pesq") is not None,
        }

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Scores:
        """Describe the table of the node at the port `from`."""
        return Scores(metrics=tuple(chosen.column for chosen in self._chosen), scored=inputs["from"][0].node)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return one row an utterance: a column a metric (NaN without a value) and ``status_<column>`` beside it.

        An utterance without a reconstruction has the status `missing_estimate` everywhere.
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
            spec=self._spec(estimate),
        )
        return _as_row((chosen, measure(chosen.name, pair, self.pesq_timeout_s)) for chosen in self._chosen)

    def _spec(self, estimate: Waveform) -> MelSpec:
        return self._preset_spec or estimate.mel or replace(preset("paper"), sr=estimate.sr)

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
        row[status_column(chosen.column)] = result.status.value
    return row
