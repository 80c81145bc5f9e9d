"""Stage `trust`: recordings of a corpus damaged in known steps, and every metric of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

from melmill.stages.contract import Input, Item, Kind, OneOf, Outcome, Product, TrustRows, Waveform, as_float, each
from melmill.stages.numeric.checks import check_int
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.score.metric import Metric
from melmill.stages.score.stage import Measuring, default_spec
from melmill.stages.score.trust.damages import DAMAGES
from melmill.stages.score.trust.judgement import FEWEST
from melmill.stages.score.trust.measuring import SHORTEST_S, columns, measured

MAX_UTTERANCES = 100_000


def _damages() -> tuple[str, ...]:
    return tuple(DAMAGES)


@dataclass(frozen=True, kw_only=True)
class Trust(Measuring):
    """Damage some recordings in known steps, and measure every step with every metric.

    The report says then which metric hears which damage, from which step on, and which of them are
    moved by what nobody hears: a shift, another level. ``trust: true`` on a `score` node makes such
    a node beside it.

    Parameters
    ----------
    utterances : int
        About so many recordings are taken, by a hash of their ids; all of a smaller corpus.
    damages : tuple of str
        Kinds of damage, see `melmill.stages.score.trust.damages`.
    metrics, preset, predictors, asr
        See `melmill.stages.score.stage.Measuring`. The phase is scrambled such that this mel stays.
    """

    uses: ClassVar[str] = "trust"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}), absent_ok=True)}

    utterances: int = 30
    damages: tuple[Annotated[str, OneOf(_damages)], ...] = tuple(DAMAGES)

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_int("utterances", self.utterances, at_least=FEWEST, at_most=MAX_UTTERANCES)
        for name in self.damages:
            if name not in DAMAGES:
                raise ParameterError("damages", f"must be of {', '.join(DAMAGES)}, got {name!r}")
        if not self.damages or len(set(self.damages)) < len(self.damages):
            raise ParameterError("damages", f"must name at least one, and each once, got {list(self.damages)!r}")

    @property
    def sample_size(self) -> int:
        """About how many utterances it works on; see `SampledStage`."""
        return self.utterances

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the values, and how many utterances are measured."""
        return {**super().identity(), "utterances": self.utterances, "damages": list(self.damages)}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> TrustRows:
        """Describe the rows of the node at the port `from`."""
        return TrustRows(metrics=tuple(chosen.column for chosen in self._chosen), damaged=inputs["from"][0].node)

    def measured(
        self, items: Sequence[Item], inputs: Mapping[str, Product], metrics: Sequence[Metric]
    ) -> Sequence[Outcome]:
        """Return how many versions of each recording were measured, and the measurements as its trace.

        Utterances that are not of the sample, and those under `SHORTEST_S`, have none.
        """
        source = cast("Waveform", inputs["from"])
        return each(items, lambda item: self._outcome(item, source, metrics))

    def _outcome(self, item: Item, source: Waveform, metrics: Sequence[Metric]) -> Outcome:
        y = item.inputs.get("from")
        if y is None or y.size < SHORTEST_S * source.sr:
            return Outcome(row={"n_measured": 0})
        spec = self._preset_spec or source.mel or default_spec(source.sr)
        found = columns(
            measured(
                as_float(y), source.sr, metrics, spec, seed=item.seed, text=item.utterance.text, damages=self.damages
            )
        )
        return Outcome(row={"n_measured": len(found["step"])}, trace=found)
