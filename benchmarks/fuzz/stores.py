"""A small store of which one file is changed, cut, lost or exchanged, and everything that reads stores."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
import pyarrow as pa
import soundfile
from numpy.typing import NDArray

from benchmarks.fuzz.contract import Case, Kind, Wrong, check_message
from benchmarks.fuzz.mutating import mutated
from benchmarks.fuzz.pipelines import restructured
from melmill.errors import Error
from melmill.flows.cli.group import cli
from melmill.flows.execution.run import run
from melmill.flows.pipeline.spec import read
from melmill.flows.planning.plan import make_plan
from melmill.flows.watching.status import StatusReader, run_pages
from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.files.location import Location
from melmill.storage.records import sealed, unsealed
from melmill.storage.store import Store
from melmill.storage.tables import from_parquet, to_parquet, with_seal
from melmill.storage.verify import verify

PIPELINE = """\
name: fuzz
store: store
shard_duration_s: 0.5
stages:
  speech: {uses: audio_folder, root: corpus}
  mel:    {uses: extract, from: speech}
  gla:    {uses: griffin_lim, from: mel, n_iter: 2}
  scores: {uses: score, from: gla, against: speech, metrics: [sc]}
  report: {uses: aggregate, from: scores, examples: 0}
"""
_RUN = "20260101T000000000000"
_TIME = "2026-01-01T00:00:00+00:00"
# Files of a report and records of a run that hold times and versions.
_OF_A_MOMENT = ("index.html", "throughput.csv", "throughput.parquet", "trends.html", "facts.json", "outcome.json")
# Facts of a machine and a moment, by the same for all.
_FACTS: Mapping[str, object] = {
    "started_at": _TIME,
    "compute_s": 1.0,
    "wall_s": 1.0,
    "host": "host",
    "worker": "1",
    "busy_s": None,
    "peak_mem_bytes": 1,
    "versions": {"melmill": "0"},
}
_COMMANDS = (
    ("plan", "pipeline.yaml"),
    ("plan", "pipeline.yaml", "--json"),
    ("status", "store"),
    ("status", "store", "--json"),
    ("verify", "store"),
    ("verify", "store", "--json"),
    ("report", "store"),
    ("report", "store", "--json"),
    ("scores", "store", "--format", "json"),
    ("quarantine", "store", "--json"),
)


class Stores(Kind):
    """A store of three recordings, and one file of it."""

    name = "stores"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "corpus").mkdir()
        for number in range(3):
            y = np.random.default_rng(number).normal(0, 0.1, 4000 + 800 * number)
            path = folder / "corpus" / f"{number}.wav"
            soundfile.write(path, y, 16000)
            os.utime(path, (1_700_000_000, 1_700_000_000))
        bad = folder / "corpus" / "bad.wav"
        bad.write_bytes(b"")
        os.utime(bad, (1_700_000_000, 1_700_000_000))
        (folder / "pipeline.yaml").write_text(PIPELINE + "max_quarantined: 0.5\n")
        self.root = folder / "store"
        self.pipeline = read(PIPELINE + "max_quarantined: 0.5\n", "pipeline.yaml")
        run(make_plan(self.pipeline), "serial")
        _fix(self.root)
        self.files = {str(path.relative_to(self.root)): path.read_bytes() for path in _paths(self.root)}
        # Nothing reads them but people.
        self.names = [name for name in self.files if not name.endswith(_OF_A_MOMENT)]
        self.whole = _contents(Store.open("store"))
        self.plan = make_plan(self.pipeline).n_pending

    def case(self, rng: Random) -> Case:
        """Return a file of the store as it is after a change."""
        name = rng.choice(self.names)
        data = self.files[name]
        match rng.randrange(8):
            case 0:
                return Case(name, b"", rng.choice(("removed", "emptied")))
            case 1:
                return Case(name, self.files[rng.choice(self.names)], "exchanged")
            case 2:
                return Case(name, data[: rng.randrange(len(data) + 1)], "cut")
            case 3 | 4 if name.endswith(".json"):
                return Case(name, _resealed(data, rng), "sealed anew")
            case 3 | 4 if name.endswith(".parquet"):
                return Case(name, _retabled(data, rng), "sealed anew")
        return Case(name, mutated(data, rng), "bytes")

    def judge(self, case: Case) -> bool:
        """Read the changed store in all ways there are, compare, and put the file back."""
        path = self.root / case.name
        try:
            if case.note == "removed":
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(case.data)
            return self._judged(case)
        finally:
            path.write_bytes(self.files[case.name])

    def _judged(self, case: Case) -> bool:
        before = _listing(self.root)
        refusals, named = [], False
        for look in (self._read, self._verify, self._plan, _status, _commands(case)):
            try:
                named = bool(look()) or named
            except (Error, click.ClickException) as error:
                check_message(error)
                refusals.append(error)
        if _listing(self.root) != before:
            raise Wrong("reading a store changes it", case.name)
        honest = case.note != "sealed anew" and not _same(case.name, case.data, self.files[case.name], case.note)
        if honest and not named and not refusals and not _is_exempt(case.name):
            raise Wrong("a change that nothing names", f"{case.name}: {case.note}")
        if case.note != "sealed anew" and not refusals:
            _compare(_contents(Store.open("store")), self.whole, case)
        return not refusals

    def _read(self) -> bool:
        _contents(Store.open("store"))
        return False

    def _verify(self) -> bool:
        return bool(verify(Store.open("store")))

    def _plan(self) -> bool:
        return make_plan(self.pipeline).n_pending != self.plan


def _fix(root: Path) -> None:
    """Replace times, names of machines and the run's id in a store by constants."""
    (run_folder,) = (root / "runs").iterdir()
    run_folder = run_folder.rename(root / "runs" / _RUN)
    for path in _paths(root):
        if path.name in _OF_A_MOMENT:
            path.write_bytes(b"")
    for path in _paths(root):
        if path.name == "manifest.json" or path.parent.name == "records":
            fields = unsealed(path.read_bytes())
            for name, stored in fields.get("files", {}).items():
                if name.endswith(_OF_A_MOMENT):
                    data = (path.parent.parent / name).read_bytes()
                    stored |= {"n_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            new = {"run_id": _RUN, "started_at": _TIME} if path.name == "manifest.json" else _FACTS
            path.write_bytes(sealed({**fields, **{name: value for name, value in new.items() if name in fields}}))
        elif path.name == "state.json":
            fields = json.loads(path.read_bytes())
            fields |= {"run_id": _RUN, "started_at": _TIME, "updated_at": _TIME, "host": "host", "pid": 1}
            path.write_text(json.dumps(fields, indent=1) + "\n")


def _paths(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file())


def _listing(root: Path) -> list[tuple[str, int, int]]:
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _paths(root)]


def _status() -> bool:
    StatusReader(Store.open("store")).read()
    run_pages(Store.open("store"))
    return False


def _commands(case: Case) -> Callable[[], bool]:
    """Return a function that runs one command, another for each input."""
    command = _COMMANDS[sum(case.data[:64]) % len(_COMMANDS)]

    def called() -> bool:
        with redirect_stdout(io.TextIOWrapper(io.BytesIO())), redirect_stderr(io.StringIO()):
            cli.main(list(command), standalone_mode=False)
        return False

    return called


Contents = dict[str, NDArray[Any] | str]


def _contents(store: Store) -> Contents:
    """Return all arrays and tables of a store by name."""
    found: Contents = {}
    for name, entry in store.nodes.items():
        try:
            view = store[name]
        except StoreError:
            if entry.kind in ("waveform", "mel", "utterances"):
                raise
            continue
        for utterance_id in view:
            found[f"{name}/{utterance_id}"] = view[utterance_id]
    tables = (store.utterances, store.scores, store.quarantine, store.traces)
    return found | {table.__name__: table().to_csv(index=False) for table in tables}


def _compare(found: Contents, whole: Contents, case: Case) -> None:
    """Raise Wrong if what is read differs from what was written; data may be missing where it is named."""
    for name, value in found.items():
        wanted = whole.get(name)
        if isinstance(value, np.ndarray):
            if not isinstance(wanted, np.ndarray) or not np.array_equal(value, wanted, equal_nan=True):
                raise Wrong("other data than was written, in silence", f"{name} after {case.name}: {case.note}")
        elif not case.name.startswith(("runs/", "report/")) and "records/" not in case.name and value != wanted:
            raise Wrong("another table than was written, in silence", f"{name} after {case.name}: {case.note}")


def _same(name: str, data: bytes, whole: bytes, note: str) -> bool:
    """Tell whether a changed file says what it said."""
    if data == whole and note != "removed":
        return True
    try:
        if name.endswith("zarr.json"):
            return bool(json.loads(data) == json.loads(whole))
        if name.endswith(".json"):
            return unsealed(data) == unsealed(whole)
        if "/catalogue/" in name:
            parts = []
            for content in (data, whole):
                Location("memory://same").replace("part-000000.parquet", content)
                parts.append(Catalogue.read(Location("memory://same")).table)
            return bool(parts[0].equals(parts[1]))
    except (ValueError, Error):
        return False
    return False


def _is_exempt(name: str) -> bool:
    """Tell whether nothing depends on a file: the state of a run, or its estimates."""
    return name.endswith("state.json")


def _resealed(data: bytes, rng: Random) -> bytes:
    """Return a JSON file one of whose values is another, with a seal that fits."""
    fields = json.loads(data)
    seal = fields.pop("sha256", None) if isinstance(fields, dict) else None
    for _ in range(rng.randint(1, 2)):
        fields = restructured(fields, rng)
    try:
        if seal is None or not isinstance(fields, dict):
            return json.dumps(fields).encode("utf-8", "surrogatepass")
        return sealed(fields)
    except (TypeError, ValueError):
        return b"{}"


def _retabled(data: bytes, rng: Random) -> bytes:
    """Return a Parquet file that lacks a column, or has another of that name."""
    table = from_parquet(data, "whole")
    at = rng.randrange(table.num_columns)
    name, n = table.column_names[at], table.num_rows
    match rng.randrange(4):
        case 0:
            table = table.remove_column(at)
        case 1:
            value = rng.choice((None, 0, -1, 1 << 62, 1.5, float("nan"), "x", "../x", b"\xff", True, [1]))
            table = table.set_column(at, name, pa.array([value] * n))
        case 2:
            table = table.slice(0, rng.randrange(n + 1))
        case _:
            table = table.rename_columns([f"{other}x" if other == name else other for other in table.column_names])
    if b"sha256" in (table.schema.metadata or {}):
        head = {key: value for key, value in table.schema.metadata.items() if key != b"sha256"}
        try:
            table = with_seal(table.replace_schema_metadata(head))
        except (TypeError, ValueError, AttributeError, pa.ArrowException):
            return data[:-1]
    return to_parquet(table)
