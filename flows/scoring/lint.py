"""Lint a corpus: run the pipeline that measures a folder or a store, and keep its card."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from melmill.flows.execution.run import run
from melmill.flows.execution.summary import Summary
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.layouts import contents_of
from melmill.flows.pipeline.located import as_yaml
from melmill.flows.pipeline.spec import load
from melmill.flows.planning.plan import make_plan
from melmill.flows.tasks.report import PAGE
from melmill.storage.errors import StoreMissing
from melmill.storage.files.location import Location
from melmill.storage.store import Store

PIPELINE_FILE, STORE_FOLDER = "pipeline.yaml", "store"
HEADER = "# Written by `melmill lint`, which writes it anew. Copy it to change it."
_SUMMARY = "summary.json"
_INSPECT, _CARD = "inspect", "corpus_card"
_SHARD_S = 60
_RECORDINGS = "utterances"  # kind of the products of ingest stages that have recordings


@dataclass(frozen=True, kw_only=True)
class LintRequest:
    """Say what to lint.

    Parameters
    ----------
    place : str
        A folder of recordings or a store; a path or a URL.
    output : Path
        Folder of the page.
    rules : mapping of str to float
        Fields of the stage `corpus_card` that differ from its defaults.
    players : int
        Recordings that the page plays for each kind of finding.
    jobs : int
        Worker processes.
    """

    place: str
    output: Path
    rules: Mapping[str, float]
    players: int = 3
    jobs: int = 1


@dataclass(frozen=True, kw_only=True)
class Lint:
    """Say what came of linting.

    Parameters
    ----------
    request : LintRequest
    summary : Summary
        That of the run.
    files : tuple of str
        Names of the files of the card, in the folder of the request. Empty if it failed.
    """

    request: LintRequest
    summary: Summary
    files: tuple[str, ...]

    @property
    def output(self) -> Location:
        """Folder of the card."""
        return Location(str(self.request.output.absolute()))

    @property
    def page(self) -> Path | None:
        """The page; None if it failed."""
        return self.request.output / PAGE if self.files else None

    @property
    def corpus(self) -> Mapping[str, Any]:
        """What the corpus is in a few numbers; ``findings`` has the recordings of each kind."""
        if not self.files:
            return {}
        found: dict[str, Any] = json.loads(self.output.read(_SUMMARY))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "page": None if self.page is None else str(self.page),
            "pipeline": str(self.request.output / PIPELINE_FILE),
            "tasks": asdict(self.summary.tasks),
            "notes": list(self.summary.notes),
            **self.corpus,
        }


def lint(request: LintRequest) -> Lint:
    """Measure the recordings of a folder or a store, as far as that was not done before; write the card.

    Raises
    ------
    PipelineError
        The place or the output is not fit for it. Nothing has run.
    StoreError
        The place is not there, or something can't be written.
    RunFailed
        The run can't go on. Nothing computed is lost.
    """
    _check_output(request.output)
    try:
        store: Store | None = Store.open(request.place)
    except StoreMissing:
        store = None
    text = "\n".join(_of_folder(request) if store is None else _of_store(request, store)) + "\n"
    output = Location(str(request.output.absolute()))
    output.make()
    _write(output, PIPELINE_FILE, text.encode())
    path = request.output / PIPELINE_FILE
    plan = make_plan(load(path), follow=store is None, as_catalogued=store is not None)
    before = {name for name in output.sizes() if "/" not in name and name != PIPELINE_FILE}
    summary = run(plan, "serial" if request.jobs == 1 else "dask")
    files: tuple[str, ...] = ()
    if summary.report:
        made = Location(summary.report.rpartition("/")[0])
        files = tuple(sorted(made.sizes()))
        for name in files:
            _write(output, name, made.read(name))
        for name in before - set(files):
            output.remove(name)
    return Lint(request=request, summary=summary, files=files)


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise PipelineError(f"-o {str(output)!r} is a file: name a folder for the page")
    if not output.is_dir() or not any(output.iterdir()):
        return
    try:
        first = Location(str(output.absolute())).read(PIPELINE_FILE).decode(errors="replace").partition("\n")[0]
    except OSError:
        first = ""
    if first != HEADER:
        raise PipelineError(
            f"-o {str(output)!r} holds other files and is no page of `melmill lint`: name an empty or a new folder"
        )


def _of_folder(request: LintRequest) -> Iterator[str]:
    """Yield the lines of the pipeline that lints a folder."""
    contents = contents_of(request.place)
    if not contents.rates:
        what = "mels and no audio" if contents.n_mels is not None else "no audio that can be read"
        raise PipelineError(f"{request.place!r} holds {what}: name a folder of recordings, or a store")
    root = str(contents.layout.fields["root"])
    fields = {
        "uses": contents.layout.uses,
        **contents.layout.fields,
        "root": root if "://" in root else os.path.normpath(Path(root).expanduser().absolute()),
        "sr": next(iter(contents.rates)),
        "audio": "reference",
    }
    yield from _head(request, "lint", _SHARD_S, ())
    yield from _node("speech", fields)
    yield from _tail(request, ["speech"])


def _of_store(request: LintRequest, store: Store) -> Iterator[str]:
    """Yield the lines of the pipeline that lints what a store has ingested. The store is only read."""
    manifest = store.latest_manifest()
    nodes = [] if manifest is None else [name for name, one in manifest.nodes.items() if one.kind == _RECORDINGS]
    if manifest is None or not nodes:
        raise PipelineError(
            f"the last run of store {store.location.url!r} has no recordings: name a folder of them, or run a pipeline"
        )
    pipeline: Mapping[str, Any] = manifest.pipeline
    declared = {name.partition("[")[0]: pipeline["stages"][name.partition("[")[0]] for name in nodes}
    also = (
        store.location.url,
        *([pipeline["also"]] if isinstance(pipeline.get("also"), str) else pipeline.get("also") or ()),
    )
    yield from _head(request, manifest.project, pipeline.get("shard_duration_s"), also)
    for name, fields in declared.items():
        yield from _node(name, {**fields, "pool": "cpu"} if "pool" in fields else fields)
    yield from _tail(request, list(declared))


def _head(request: LintRequest, project: str, shard_s: float | None, also: tuple[str, ...]) -> Iterator[str]:
    yield HEADER
    yield f"#   melmill run {request.output / PIPELINE_FILE}    measure what is new"
    yield f"name: {as_yaml(project)}"
    yield f"store: {as_yaml(str(request.output.absolute() / STORE_FOLDER))}"
    if also:
        yield f"also: {as_yaml(list(also))}"
    if shard_s is not None:
        yield f"shard_duration_s: {as_yaml(shard_s)}"
    yield "max_quarantined: 100 %"
    yield "stages:"


def _tail(request: LintRequest, nodes: list[str]) -> Iterator[str]:
    measured = [_free(f"{name}_facts", nodes) for name in nodes]
    for name, facts in zip(nodes, measured, strict=True):
        yield from _node(facts, {"uses": _INSPECT, "from": name})
    title = f"The corpus {Path(request.place.rstrip('/')).name or request.place}"
    card = {"uses": _CARD, "from": measured, "title": title, "players": request.players, **request.rules}
    yield from _node(_free("card", nodes), card)
    yield f"cluster: {{pools: {{cpu: {{workers: {request.jobs}}}}}}}"


def _free(name: str, taken: list[str]) -> str:
    return f"{name}_of_lint" if name in taken else name


def _node(name: str, fields: Mapping[str, object]) -> Iterator[str]:
    yield f"  {name}:"
    for field, value in fields.items():
        yield f"    {field}: {as_yaml(list(value) if isinstance(value, tuple) else value)}"


def _write(folder: Location, name: str, data: bytes) -> None:
    """Write a file of the card, unless it holds that already."""
    if folder.size(name) != len(data) or folder.read(name) != data:
        folder.replace(name, data)
