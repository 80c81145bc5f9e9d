"""Stage `error_budget`: what a mel loses and where, as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from melmill.stages.contract import Input, Kind, OneOf, Product, Report, Scores
from melmill.stages.numeric.checks import check_int
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.score.metric import metric

if TYPE_CHECKING:
    from melmill.stages.report.contract import ReportData, ReportFiles

ROLES = ("base", "bank", "floor", "inverted", "plain", "vocoder", "retrieved", "kept_phase", "kept_magnitude")


@dataclass(frozen=True, kw_only=True)
class ErrorBudget:
    """Say how much of the loss is the mel bank, the log's floor, the phase, the method and the vocoder.

    Parts whose nodes are not scored are left out. ``flows/error_budget.yaml`` has all of them.

    Parameters
    ----------
    base : str
        Scored node that loses nothing: the recordings, through the STFT and back.
    bank, floor : str
        Mels with the recordings' phase: without a log, and with a log and its floor.
    inverted, plain : str
        The best inversion of the latter, and the plainest.
    vocoder : str
        A vocoder's output.
    retrieved : str
        The recordings' magnitude with a phase that was retrieved from it.
    kept_phase, kept_magnitude : str
        The best inversion with the recordings' phase, and with their magnitude.
    error, quality : str
        Metrics of the scatter plot: an error of mels, and what should follow from it.
    preset : str
        Mel of the demonstrations.
    title : str
        Heading of the page.
    seed : int
        Of the bootstrap and of the demonstrations.
    """

    uses: ClassVar[str] = "error_budget"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.SCORES}), many=True)}

    base: str = "base"
    bank: str = "bank"
    floor: str = "floor"
    inverted: str = "inverted"
    plain: str = "plain"
    vocoder: str = "vocoder"
    retrieved: str = "retrieved"
    kept_phase: str = "kept_phase"
    kept_magnitude: str = "kept_magnitude"
    error: str = "scm"
    quality: str = "pesq_wb"
    preset: Annotated[str, OneOf(preset_names)] = "paper"
    title: str = "What a mel spectrogram loses"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        preset(self.preset)
        for name in (self.error, self.quality):
            metric(name)
        check_int("seed", self.seed, at_least=0)

    def identity(self) -> Mapping[str, Any]:
        """Return every field; the preset counts by its mel."""
        return {**asdict(self), "preset": preset(self.preset).as_dict()}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Report:
        """Check that the inputs are scores of the metrics, and that the base and another part are among them.

        Raises
        ------
        ContractError, ParameterError
            They are not.
        """
        scored, columns = [], set[str]()
        for product in inputs.get("from", ()):
            if not isinstance(product, Scores):
                raise ContractError(f"error_budget takes scores, got {product.kind}; give it a score node")
            scored.append(product.scored)
            columns |= set(product.metrics)
        for field, name in (("error", self.error), ("quality", self.quality)):
            if metric(name).column not in columns:
                raise ParameterError(field, f"must be a metric of the scores, got {name!r}: add it to their metrics")
        names = ", ".join(sorted(scored)) or "none"
        if self.base not in scored:
            raise ParameterError("base", f"must be a scored node, got {self.base!r} (scored: {names})")
        if not any(getattr(self, role) in scored for role in ROLES[1:]):
            raise ContractError(f"error_budget finds none of its parts among the scored nodes ({names}): name them")
        return Report()

    def report(self, data: ReportData) -> ReportFiles:
        """Return the page, and the losses as a table."""
        from melmill.stages.report.budget.page import Settings, budget_files

        settings = Settings(
            roles={role: getattr(self, role) for role in ROLES},
            error=self.error,
            quality=self.quality,
            preset=self.preset,
            title=self.title,
            seed=self.seed,
        )
        return budget_files(settings, data)
