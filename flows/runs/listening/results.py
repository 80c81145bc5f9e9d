"""What listeners said: their files into the store, and the statistics beside the metrics of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.listening.stored import (
    StoredTest,
    answers_bytes,
    answers_file,
    folder_of,
    ids_of_tests,
    read_design,
    read_tests,
)
from melmill.stages.numeric.errors import StageError
from melmill.stages.report.contract import HeardTest
from melmill.stages.score.listeners.answers import Answers, ratings, rows
from melmill.stages.score.listeners.design import Design
from melmill.stages.score.listeners.kinds import REFERENCE
from melmill.stages.score.listeners.stimuli import ANCHORS
from melmill.storage.errors import AlreadyThere
from melmill.storage.files.location import Location, folder_and_name
from melmill.storage.product import Address
from melmill.storage.records import unsealed
from melmill.storage.runs import Manifest
from melmill.storage.store import Store

if TYPE_CHECKING:
    from melmill.stages.report.views.page_tables import Cell
    from melmill.stages.score.listeners.analysis import Outcome

_UNCHANGED = (REFERENCE, *ANCHORS)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Say what became of one file: whose answers it holds, and whether they are new."""

    file: str
    test_id: str
    listener: str
    n_answers: int
    is_new: bool


def import_results(store: Store, files: Sequence[str], listener: str | None = None) -> list[Imported]:
    """Store the answers of listeners. All files are checked before any is stored.

    Parameters
    ----------
    store : Store
    files : sequence of str
        Paths or URLs of results, or of folders of them.
    listener : str or None
        Name to store a single result under, in place of its own.

    Raises
    ------
    PipelineError
        A file holds no result of a test of this store, or other answers of a listener whose answers
        are stored.
    """
    named = [found for file in files for found in _found(file)]
    if listener is not None and len(named) != 1:
        raise PipelineError(f"--listener names one result, got {len(named)}")
    checked: dict[tuple[str, str], tuple[str, Answers, bytes]] = {}
    for place, data in named:
        given = _checked(store, place, data, listener)
        content = answers_bytes(given)
        at = (given.test_id, given.listener)
        known = checked.setdefault(at, (place, given, content))
        stored = _stored(store, given)
        for other, where in ((known[2], known[0]), (stored, "the store")):
            if other is not None and other != content:
                raise PipelineError(
                    f"{place}: {where} has other answers of listener {given.listener!r} to test {given.test_id}. "
                    "Answers never change: if it is another person, import the file by itself with --listener NAME"
                )
    return [_put(store, *one) for one in checked.values()]


def _found(file: str) -> Iterator[tuple[str, bytes]]:
    folder, is_remote = Location(file), "://" in file
    names = (
        sorted(name for name in folder.sizes() if name.endswith(".json")) if is_remote or Path(file).is_dir() else []
    )
    if names:
        for name in names:
            yield f"{folder.url}/{name}", folder.read(name)
        return
    location, name = folder_and_name(file)
    if Path(file).is_dir() or location.size(name) is None:
        raise PipelineError(f"{file}: there is no such file, and no folder with results (*.json)")
    yield file, location.read(name)


def _checked(store: Store, place: str, data: bytes, listener: str | None) -> Answers:
    try:
        fields = json.loads(data)
        if isinstance(fields, dict) and "sha256" in fields:
            fields = unsealed(data)  # as `melmill listen serve` stores it
        given = Answers.from_plain(fields)
        if listener is not None:
            given = Answers.from_plain({**given.as_plain(), "listener": listener})
        design = read_design(store, given.test_id) if _is_name(given.test_id) else None
        if design is None:
            there = ", ".join(ids_of_tests(store)) or "none"
            raise StageError(f"is of test {given.test_id!r}, which {store.location.url} does not have (tests: {there})")
        rows(design, given)
    except (StageError, ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, StageError) else f"can't be parsed ({error})"
        raise PipelineError(f"{place} {said}") from error
    return given


def _is_name(text: str) -> bool:
    return bool(text) and "/" not in text and not text.startswith(".")


def _stored(store: Store, given: Answers) -> bytes | None:
    try:
        return folder_of(store, given.test_id).read(answers_file(given.listener))
    except FileNotFoundError:
        return None


def _put(store: Store, place: str, given: Answers, content: bytes) -> Imported:
    is_new = _stored(store, given) is None
    try:
        folder_of(store, given.test_id).put(answers_file(given.listener), content)
    except AlreadyThere as error:
        raise PipelineError(f"{place}: another import has just stored other answers of {given.listener!r}") from error
    return Imported(
        file=place, test_id=given.test_id, listener=given.listener, n_answers=len(given.answers), is_new=is_new
    )


def heard_tests(tests: Sequence[StoredTest], names: Mapping[Address, str]) -> list[HeardTest]:
    """Return tests as a report shows them, with systems under the names that their products have now.

    Parameters
    ----------
    tests : sequence of StoredTest
    names : mapping of (folder, key) to str
        Names of products. A system whose product has none keeps its own. If that now names another
        product, its key is put behind it.
    """
    return [
        HeardTest(
            test_id=one.design.test_id,
            kind=one.design.kind,
            n_trials=len(one.design.trials),
            notes=one.design.notes,
            ratings=ratings(_renamed(one.design, names), one.answers),
        )
        for one in tests
    ]


def _renamed(design: Design, names: Mapping[Address, str]) -> Design:
    def name_of(system: str) -> str:
        one = next(each for each in design.systems if each.name == system)
        if system in _UNCHANGED or not one.key:
            return system
        now = names.get((one.folder, one.key))
        if now is not None:
            return now
        return f"{system} ({one.key[:6]})" if system in names.values() else system

    return replace(
        design,
        trials=tuple(
            replace(trial, stimuli={token: name_of(system) for token, system in trial.stimuli.items()})
            for trial in design.trials
        ),
    )


@dataclass(frozen=True, kw_only=True)
class HeardResults:
    """Hold a test of a store and what its answers say."""

    design: Design
    outcome: Outcome

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        from melmill.stages.score.listeners.analysis import as_plain

        return {
            "test": self.design.test_id,
            "run": self.design.run_id,
            "seed": self.design.seed,
            "reference": self.design.reference,
            "n_trials": len(self.design.trials),
            "settings": dict(self.design.settings),
            "notes": list(self.design.notes),
            **as_plain(self.outcome),
        }


def results_of(store: Store, manifest: Manifest, test: str | None = None) -> list[HeardResults]:
    """Return what the tests of a store say, compared with the metrics of a run.

    Parameters
    ----------
    store : Store
    manifest : Manifest
        Of the run whose scores are compared.
    test : str or None
        This test alone.

    Raises
    ------
    PipelineError
        The store has no such test.
    """
    from melmill.stages.score.listeners.analysis import outcome

    tests = read_tests(store)
    if test is not None and test not in {one.design.test_id for one in tests}:
        there = ", ".join(one.design.test_id for one in tests) or "none"
        raise PipelineError(f"{store.location.url} has no listening test {test!r} (tests: {there})")
    names = {(entry.folder, entry.key): name for name, entry in manifest.nodes.items()}
    wanted = [one for one in tests if test in (None, one.design.test_id)]
    scores = store.scores() if any(one.answers for one in wanted) else None
    found = heard_tests(wanted, names)
    return [
        HeardResults(design=one.design, outcome=outcome(each.test, each.ratings, scores))
        for one, each in zip(wanted, found, strict=True)
    ]


def shown_tables(made: Outcome) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, columns and rows of the tables of a test, as text."""
    from melmill.stages.report.views.listeners import tables

    return [
        (grid.caption, list(grid.columns), [[_cell(cell) for cell in row] for row in grid.rows])
        for grid in tables(made)
    ]


def _cell(cell: Cell) -> str:
    return f"{cell.text}, {cell.small}" if cell.small else cell.text
