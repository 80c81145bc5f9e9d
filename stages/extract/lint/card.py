"""Stage `corpus_card`: what a corpus is like and what looks wrong in it, as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from melmill.stages.contract import Input, Inspections, Kind, Product, Report
from melmill.stages.extract.lint.findings import Rules
from melmill.stages.numeric.checks import check_float, check_int
from melmill.stages.numeric.errors import ContractError

if TYPE_CHECKING:
    from melmill.stages.report.contract import ReportData, ReportFiles

MAX_PLAYERS = 200


@dataclass(frozen=True, kw_only=True)
class CorpusCard:
    """Describe a corpus by what `inspect` measured: hours, speakers, histograms, texts and findings.

    ``melmill lint`` makes such a node. The page plays the worst recordings of each kind of finding.

    Parameters
    ----------
    title : str or None
        Heading of the page. None uses the pipeline's name.
    players : int
        Recordings that are played for each kind of finding.
    clipped_runs, cliff_db, hum_below_db, rate_factor, snr_db, level_off_db, active_share, offset
        From where on something is a finding, see `melmill.stages.extract.lint.findings.Rules`.
    """

    uses: ClassVar[str] = "corpus_card"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.INSPECTIONS}), many=True)}

    title: str | None = None
    players: int = 3
    clipped_runs: int = Rules.clipped_runs
    cliff_db: float = Rules.cliff_db
    hum_below_db: float = Rules.hum_below_db
    rate_factor: float = Rules.rate_factor
    snr_db: float = Rules.snr_db
    level_off_db: float = Rules.level_off_db
    active_share: float = Rules.active_share
    offset: float = Rules.offset

    def __post_init__(self) -> None:
        """Check every field."""
        check_int("players", self.players, at_least=0, at_most=MAX_PLAYERS)
        check_int("clipped_runs", self.clipped_runs, at_least=1, at_most=1_000_000_000)
        for name in ("cliff_db", "hum_below_db", "snr_db", "level_off_db"):
            check_float(name, getattr(self, name))
        check_float("rate_factor", self.rate_factor, above=1)
        check_float("active_share", self.active_share, at_least=0, at_most=1)
        check_float("offset", self.offset, above=0)

    @property
    def rules(self) -> Rules:
        """From where on something is a finding."""
        return Rules(**{field.name: getattr(self, field.name) for field in fields(Rules)})

    def identity(self) -> Mapping[str, Any]:
        """Return every field, as each changes the page."""
        return asdict(self)

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Report:
        """Check that the inputs are inspections; raise ContractError."""
        for source in inputs.get("from", ()):
            if not isinstance(source, Inspections):
                raise ContractError(f"corpus_card takes inspections, got {source.kind}: name a node of inspect")
        if not inputs.get("from"):
            raise ContractError("corpus_card needs at least one node of inspect in 'from', got none")
        return Report()

    def report(self, data: ReportData) -> ReportFiles:
        """Return the page, the findings and the facts as tables, and counts of findings as the headline."""
        from melmill.stages.extract.lint.page import card_files

        return card_files(data, self.rules, self.title or data.pipeline, self.players)
