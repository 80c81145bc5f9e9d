"""Stage `aggregate`: make summary tables, paired tests and one self-contained page from scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from melmill.stages.contract import EmbeddingRows, Input, Kind, Product, Report, Scores, TrustRows
from melmill.stages.numeric.checks import check_int
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.report.contract import Example, ReportData, ReportFiles

if TYPE_CHECKING:
    import pandas as pd

    from melmill.stages.report.contract import Pick, Tables
    from melmill.stages.score.sets.values import EmbeddedSet

GROUPINGS = ("subset", "speaker")


# Each is a row of players and pictures on the page.
MAX_EXAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """Summarise the scores of several nodes over all utterances.

    Parameters
    ----------
    baseline : str or None
        Scored node that the others are compared with, utterance by utterance.
    by : tuple of str
        Groups that get summaries of their own, outer first: ``subset``, ``speaker``.
    examples : int
        Number of utterances to play on the page. One is the median; two are the median and the
        worst; more are spread from the worst to the best.
    title : str or None
        Heading of the page. None uses the pipeline's name.
    seed : int
        Seed of the bootstrap.
    """

    uses: ClassVar[str] = "aggregate"
    version: ClassVar[int] = 3
    inputs: ClassVar[Mapping[str, Input]] = {
        "from": Input(kinds=frozenset({Kind.SCORES, Kind.TRUST, Kind.EMBEDDINGS}), many=True)
    }

    baseline: str | None = None
    by: tuple[str, ...] = GROUPINGS
    examples: int = 2
    title: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        for name in self.by:
            if name not in GROUPINGS:
                raise ParameterError("by", f"must hold only {' and '.join(GROUPINGS)}, got {name!r}")
        if len(set(self.by)) < len(self.by):
            raise ParameterError("by", f"must name each group once, got {list(self.by)!r}")
        check_int("examples", self.examples, at_least=0, at_most=MAX_EXAMPLES)
        check_int("seed", self.seed, at_least=0)

    def identity(self) -> Mapping[str, Any]:
        """Return every field, as each changes the report."""
        return {**asdict(self), "by": list(self.by)}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Product:
        """Check that all inputs are scores and that the baseline is a scored node."""
        scored = []
        for product in inputs.get("from", ()):
            if isinstance(product, TrustRows | EmbeddingRows):
                continue
            if not isinstance(product, Scores):
                raise ContractError(f"aggregate takes scores, got {product.kind.value}; give it a score node")
            scored.append(product.scored)
        if not scored:
            raise ContractError("aggregate needs at least one score node in 'from', got none")
        self._check_baseline(scored)
        return Report()

    def report(self, data: ReportData) -> ReportFiles:
        """Return the page and the tables, with the mean scores of each node as the headline.

        Raises
        ------
        ParameterError
            `baseline` isn't a scored node.
        """
        from melmill.stages.report.contract import Tables

        scores, traces, quarantine, pairs = data.scores, data.traces, data.quarantine, data.pairs
        trust = data.trust
        tables = Tables(
            scores=scores,
            throughput=data.throughput,
            made=data.provenance,
            versions=data.versions,
            pipeline=data.pipeline,
            trends=data.trends,
            notes=data.notes,
            pair_notes=data.pair_notes,
            pairs=pairs if len(pairs) else None,
            listening=data.listening,
            trust=trust if len(trust) else None,
            sets=data.sets,
            # Without rows the defaults know the types of the columns.
            **({"traces": traces} if len(traces) else {}),
            **({"quarantine": quarantine} if len(quarantine) else {}),
        )
        found = [(data.example(pick.utterance_id), pick.why) for pick in self.pick(scores)]
        examples = [replace(example, why=why) for example, why in found if example is not None]
        return ReportFiles(files=self.render(tables, examples), headline=self.headline(scores, tables.sets).to_csv())

    def pick(self, scores: pd.DataFrame) -> list[Pick]:
        """Return the utterances that the page plays, by the first metric that has values."""
        from melmill.stages.report.examples import pick

        return pick(scores, self.examples)

    def headline(self, scores: pd.DataFrame, sets: Sequence[EmbeddedSet] = ()) -> pd.DataFrame:
        """Return a row per node and a column of ``mean ± interval`` per metric."""
        from melmill.stages.report.tables import headline, summarised

        return headline(*summarised(scores, sets, by=(), seed=self.seed))

    def render(self, tables: Tables, examples: Sequence[Example] = ()) -> dict[str, bytes]:
        """Return files by name: ``index.html``, and each table as CSV and Parquet.

        Parameters
        ----------
        tables : Tables
            All scores, and what else the page shows.
        examples : sequence of Example
            Audio of the utterances that `pick` named.

        Raises
        ------
        ParameterError
            `baseline` isn't a scored node.
        """
        from melmill.stages.report.page import Settings, page
        from melmill.stages.report.tables import files, results

        self._check_baseline(tables.scores["node"].unique().tolist())
        result = results(tables, by=self.by, baseline=self.baseline, seed=self.seed)
        title = self.title or tables.pipeline or "melmill"
        settings = Settings(title=title, baseline=self.baseline, by=self.by, seed=self.seed)
        return {"index.html": page(tables, result, examples, settings), **files(tables, result)}

    def _check_baseline(self, scored: Sequence[str]) -> None:
        if self.baseline is not None and self.baseline not in scored:
            names = ", ".join(sorted(scored))
            raise ParameterError("baseline", f"must be a scored node, got {self.baseline!r} (scored: {names})")
