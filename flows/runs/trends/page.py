"""The page of trends: one HTML file that loads nothing and needs no server."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup

from melmill.flows.runs.differences import changes_between, flat, shown
from melmill.flows.runs.trends.chart import chart, key_mark
from melmill.flows.runs.trends.series import Series, series_of, version_changes
from melmill.flows.tasks.report import PAGE, TRENDS_PAGE, is_verdict, report_folder
from melmill.flows.watching.progress import duration
from melmill.flows.watching.status import run_id_at
from melmill.stages.contract import Kind
from melmill.storage.files.location import Location
from melmill.storage.product import Address
from melmill.storage.runs import RunRecord
from melmill.storage.store import Store

if TYPE_CHECKING:
    from jinja2 import Environment

# Of many runs a page shows the last ones.
MOST_RUNS = 200
_MOST_FIELDS = 6


@dataclass(frozen=True, kw_only=True)
class StoreRuns:
    """The runs of a store, the oldest first, and where the report of each is.

    Parameters
    ----------
    store : Store
    runs : sequence of RunRecord
    reports : mapping of str to str
        By id of the run: its report's page, relative to the store.
    """

    store: Store
    runs: Sequence[RunRecord]
    reports: Mapping[str, str]


def store_runs(store: Store, runs: Sequence[RunRecord] | None = None) -> StoreRuns:
    """Return the last runs of a store with their reports; `runs` are those of the store if they are known."""
    runs = (store.runs() if runs is None else runs)[-MOST_RUNS:]
    return StoreRuns(store=store, runs=runs, reports=report_pages(store, runs))


def report_pages(store: Store, runs: Sequence[RunRecord]) -> dict[str, str]:
    """Return the newest report of each run that has one: its page, relative to the store.

    A run without a report leads to the newest verdict of its gates.
    """
    made: dict[Address, dict[str, tuple[bool, str]]] = {}
    pages: dict[str, str] = {}
    addresses = [
        {(entry.folder, entry.key) for entry in run.manifest.nodes.values() if entry.kind == Kind.REPORT}
        for run in runs
    ]
    for at, run in enumerate(runs):
        newest = (False, "", "")
        for address in addresses[at]:
            if address not in made:
                records = store.product(*address).records()
                made[address] = {
                    name: (not is_verdict(record), run_id_at(record.started_at)) for name, record in records.items()
                }
            # A later run may have extended the same product.
            until = next(
                (
                    later.run_id
                    for later, theirs in zip(runs[at + 1 :], addresses[at + 1 :], strict=True)
                    if address in theirs
                ),
                None,
            )
            for name, (is_report, began) in made[address].items():
                if until is None or began < until:
                    page = f"{address[0]}/{address[1]}/{report_folder(name)}/{PAGE}"
                    newest = max(newest, (is_report, began, page))
        if newest[2]:
            pages[run.run_id] = newest[2]
    return pages


def trends_page(stores: Sequence[StoreRuns], page: str | None = None, *, served: bool = False) -> bytes:
    """Return the page as UTF-8.

    Parameters
    ----------
    stores : sequence of StoreRuns
    page : str or None
        Where the page will be, a path or URL. Its links to reports are relative to that where they can be.
    served : bool
        Whether a server shows the page of one store: the links lead to its files there.
    """
    style = resources.files("melmill.stages.report").joinpath("page.css").read_text(encoding="utf-8")
    shown_stores = []
    for one in stores:
        prefix = "files" if served else way_to(one.store.location.url, page)
        shown_stores.append(_shown(one, prefix))
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            stores=shown_stores, style=Markup(style), title=_title(stores), most=MOST_RUNS, home="./" if served else ""
        )
        .encode()
    )


@cache
def _environment() -> Environment:
    """Return the environment, which keeps the template that it compiled."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_trends(store: Store) -> str | None:
    """Write the page of trends into the store, in place of an earlier one; return where it is.

    It is there as soon as two runs have scores. None: they have not.
    """
    runs = store.runs()
    if sum(bool(run.outcome and run.outcome.scores) for run in runs) < 2:
        return None
    url = f"{store.location.url}/{TRENDS_PAGE}"
    store.location.replace(TRENDS_PAGE, trends_page([store_runs(store, runs)], url))
    return url


def trends_url(store: str) -> str | None:
    """Return where the page of trends in a store is, None where there is none yet."""
    location = Location(store)
    return f"{location.url}/{TRENDS_PAGE}" if location.exists(TRENDS_PAGE) else None


def _title(stores: Sequence[StoreRuns]) -> str:
    projects = dict.fromkeys(run.manifest.project for one in stores for run in one.runs)
    return f"Trends of {', '.join(projects)}" if projects else "Trends"


def way_to(store: str, page: str | None) -> str:
    """Return what leads from a page to a store: relative, if both are on one file system or bucket.

    >>> way_to("/data/a#b", "/site/trends.html"), way_to("s3://team/a", "/site/trends.html")
    ('../data/a%23b', 's3://team/a')
    """
    if page is None:
        return store
    here, there = Location(page).url, store
    roots = ["/".join(url.split("/")[:3]) if "://" in url else "/" for url in (here, there)]
    return quote(posixpath.relpath(there, posixpath.dirname(here))) if roots[0] == roots[1] else there


def _shown(one: StoreRuns, prefix: str) -> dict[str, Any]:
    links = {run_id: f"{prefix}/{page}" for run_id, page in one.reports.items()}
    scored = [run for run in one.runs if run.outcome is not None and run.outcome.scores]
    versions: dict[str, list[str]] = {}
    fields: dict[str, str] = {}
    for before, run in zip([None, *one.runs], one.runs, strict=False):
        versions[run.run_id] = version_changes(before, run)
        fields[run.run_id] = "" if before is None else _fields(before, run)
    # A run without scores is not in the charts. What changed with it is marked at the next one.
    marks = {run.run_id: version_changes(before, run) for before, run in zip([None, *scored], scored, strict=False)}
    charts: dict[str, list[Series]] = {}
    for series in series_of(one.runs):
        charts.setdefault(series.metric, []).append(series)
    return {
        "url": one.store.location.url,
        "charts": [
            {
                **described(metric),
                "svg": chart(series, scored, marks, links),
                "series": [(key_mark(at), line.scored) for at, line in enumerate(series)],
                "changes": _change_lines(series),
            }
            for metric, series in charts.items()
        ],
        "runs": [_row(run, links, versions[run.run_id], fields[run.run_id]) for run in reversed(one.runs)],
    }


def described(column: str) -> dict[str, str]:
    """Return name, unit and direction of a metric by its column; its column alone where it is of no package here."""
    from melmill.stages.numeric.errors import ParameterError
    from melmill.stages.score.metric import metric

    try:
        known = metric(column)
    except ParameterError:
        return {"column": column, "name": column, "unit": "", "better": ""}
    return {"column": column, "name": known.title, "unit": known.unit, "better": known.better}


def _change_lines(series: Sequence[Series]) -> list[str]:
    lines = []
    for one in series:
        for before, point in zip(one.points, one.points[1:], strict=False):
            if point.is_change:
                means = f"{before.score.mean:.4g} → {point.score.mean:.4g}"
                lines.append(f"{one.scored}: {means} at run {point.run.run_id}")
    return lines


def _fields(before: RunRecord, run: RunRecord) -> str:
    found = [
        f"{change.name.removeprefix('stages.')} {shown(change.before)} → {shown(change.after)}"
        for change in changes_between(flat(before.manifest.pipeline), flat(run.manifest.pipeline))
    ]
    more = f", and {len(found) - _MOST_FIELDS} more" if len(found) > _MOST_FIELDS else ""
    return "; ".join(found[:_MOST_FIELDS]) + more


def _row(run: RunRecord, links: Mapping[str, str], versions: Sequence[str], fields: str) -> dict[str, Any]:
    facts, outcome = run.facts, run.outcome
    nodes = [] if outcome is None else list(outcome.nodes.values())
    return {
        "id": run.run_id,
        "report": links.get(run.run_id),
        "tags": run.tags,
        "state": "" if run.state == "unknown" else run.state,
        "started": datetime.fromisoformat(run.started_at).strftime("%Y-%m-%d %H:%M"),
        "took": "" if run.duration_s is None else duration(run.duration_s),
        "tasks": "" if outcome is None else f"{sum(n.done for n in nodes)} run, {sum(n.reused for n in nodes)} reused",
        "failed": sum(node.failed for node in nodes),
        "quarantined": "" if outcome is None or outcome.quarantined is None else outcome.quarantined,
        "commit": ""
        if facts is None or not facts.git_commit
        else facts.git_commit[:10] + ("*" if facts.git_dirty else ""),
        "changed": "; ".join(filter(None, (fields, ", ".join(versions)))),
    }


def _resource(name: str) -> str:
    return resources.files("melmill.flows.runs.trends").joinpath(name).read_text(encoding="utf-8")
