"""Score folders of audio against recordings: run the pipeline that stands for it, and keep its report."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pandas as pd

from melmill.cluster.contract import MAX_WORKERS
from melmill.errors import Error
from melmill.flows.execution.errors import RunFailed
from melmill.flows.execution.run import run
from melmill.flows.execution.summary import Summary
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.runs.trends.page import way_to
from melmill.flows.scoring.request import (
    PIPELINE_FILE,
    Request,
    check_request,
    chosen_metrics,
    looked_at,
    named_systems,
    pipeline_text,
    rate_notes,
)
from melmill.flows.tasks.report import PAGE, TRENDS_LINK, TRENDS_PAGE
from melmill.flows.watching.status import run_pages
from melmill.stages.ingest.decode import STAY
from melmill.stages.numeric.checks import MAX_SR, check_choice, check_int, check_texts
from melmill.stages.score.pairing import named
from melmill.storage.files.location import Location
from melmill.storage.store import Store

_MEANS = ("metric", "node", "n", "n_failed", "mean", "ci_low", "ci_high", "median", "std", "n_common", "mean_common")


@dataclass(frozen=True, kw_only=True)
class Card:
    """Say what came of scoring.

    Parameters
    ----------
    request : Request
    summary : Summary
        That of the run.
    files : tuple of str
        Names of the files of the report, in the folder `Request.output`. Empty if it failed.
    notes : tuple of str
        What a person should know, a line each: what has no partner, what differs, what can't be read.
    """

    request: Request
    summary: Summary
    files: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def page(self) -> Path | None:
        """The page of the report; None if it failed."""
        return self.request.output / PAGE if self.files else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON: where everything is, the table of means, and the notes."""
        return {
            "report": None if self.page is None else str(self.page),
            "pipeline": str(self.request.pipeline_path),
            "store": self.summary.store,
            "reference": self.request.reference,
            "systems": dict(self.request.systems),
            "tasks": asdict(self.summary.tasks),
            "table": self._means(),
            "notes": list(self.notes),
        }

    def _means(self) -> list[dict[str, Any]]:
        """Return a row per metric and system: the mean over all recordings, its interval and counts."""
        if not self.files:
            return []
        table = pd.read_csv(BytesIO(self.report.read("summary.csv")), keep_default_na=False, na_values=[""])
        whole = table.loc[table["level"] == "all", list(_MEANS)]
        rows: list[dict[str, Any]] = json.loads(whole.to_json(orient="records", double_precision=15))
        return rows

    @property
    def scores(self) -> pd.DataFrame:
        """One row per recording and system, as `melmill.open(...).scores()` gives them."""
        return Store.open(self.summary.store).scores()

    @property
    def sets(self) -> list[dict[str, Any]]:
        """A row per metric of whole sets and system, as in ``sets.csv``."""
        if "sets.csv" not in self.files:
            return []
        rows = pd.read_csv(BytesIO(self.report.read("sets.csv"))).to_dict("records")
        return [{str(name): value for name, value in row.items()} for row in rows]

    @property
    def report(self) -> Location:
        """Folder of the report."""
        return Location(str(self.request.output.absolute()))


def score_folders(request: Request) -> Card:
    """Score folders, as far as that was not done before, and write the report.

    Parameters
    ----------
    request : Request

    Raises
    ------
    PipelineError
        A folder, a pair of folders or the output is not fit for it. Nothing has run.
    StoreError
        A folder is not there, or something can't be written.
    RunFailed
        The run can't go on. Nothing computed is lost.
    """
    check_request(request)
    contents = looked_at(request)
    output = Location(str(request.output.absolute()))
    output.make()
    _write(output, PIPELINE_FILE, pipeline_text(request, contents).encode())
    plan = make_plan(load(request.pipeline_path), follow=True)
    before = _report_files(request.store_url)
    summary = run(plan, "serial" if request.jobs == 1 else "dask")
    files: tuple[str, ...] = ()
    if summary.report:
        made = Location(summary.report.rpartition("/")[0])
        files = tuple(sorted(made.sizes()))
        trends = f"{way_to(summary.store, f'{output.url}/{PAGE}')}/{TRENDS_PAGE}"
        for name in files:
            data = made.read(name)
            # The copy leads to the same page.
            _write(output, name, data.replace(_href(TRENDS_LINK), _href(trends)) if name == PAGE else data)
        for name in before - set(files):
            output.remove(name)
    # That the files are read where they lie is what anybody expects here.
    said = [note for note in summary.notes if f": {STAY} " not in note]
    notes = (*rate_notes(request, contents), *said, *_unreadable(request.store_url))
    return Card(request=request, summary=summary, files=files, notes=notes)


def score_table(
    reference: str,
    systems: Sequence[str] | Mapping[str, str],
    *,
    sr: int | None,
    metrics: Sequence[str] | None,
    preset: str | None,
    output: str | None,
    lengths: Literal["same", "cut"],
    pairs: str | None,
    store: str | None,
    jobs: int,
) -> pd.DataFrame:
    """Return the scores of folders: a row per recording and system; see `melmill.score`.

    Raises
    ------
    ParameterError
        A parameter has a wrong type or lies outside its range.
    RunFailed
        A task failed. What is scored is stored where there is an `output`.
    """
    check_int("jobs", jobs, at_least=1, at_most=MAX_WORKERS)
    check_choice("lengths", lengths, ("same", "cut"))
    if sr is not None:
        check_int("sr", sr, at_least=1, at_most=MAX_SR)
    if metrics is not None:
        check_texts("metrics", metrics, "pesq_wb")
    with TemporaryDirectory(prefix="melmill-score-") as fresh:
        kept = Path(fresh, "report") if output is None else Path(output).expanduser()
        card = score_folders(
            Request(
                reference=reference,
                systems=named_systems(systems, kept),
                output=kept,
                metrics=chosen_metrics(metrics or ()),
                preset=preset,
                sr=sr,
                lengths=lengths,
                pairs=pairs,
                store=store,
                jobs=jobs,
            )
        )
        if card.summary.tasks.failed:
            raise RunFailed(f"{card.summary.tasks.failed} tasks failed or needed failed ones: call again to retry")
        table = card.scores
        sets = card.sets
    table.attrs["notes"] = list(card.notes)
    table.attrs["sets"] = sets
    return table


def _href(link: str) -> bytes:
    return f'href="{html.escape(link)}"'.encode()


def _report_files(store: str) -> set[str]:
    """Return the names of the files of the store's last report, none if there is none."""
    try:
        report = run_pages(Store.open(store)).report
    except Error:
        return set()
    return set() if report is None else set(report.sizes())


def _unreadable(store: str) -> Iterator[str]:
    """Yield a line on the files of each node that could not be processed."""
    for node, rows in Store.open(store).quarantine().groupby("node", sort=False):
        lost = [f"{row.utterance_id} ({row.reason})" for row in rows.itertuples()]
        yield f"{node}: {len(lost):,} left out, as they can't be processed: {named(lost)}"


def _write(folder: Location, name: str, data: bytes) -> None:
    """Write a file of the report at once, unless it holds that already."""
    if folder.size(name) != len(data) or folder.read(name) != data:
        folder.replace(name, data)
