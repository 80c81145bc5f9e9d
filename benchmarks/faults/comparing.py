"""Compare the contents of a store with those of an undisturbed one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from melmill.storage.proof.claims import FOLDER
from melmill.storage.store import Store


def fingerprint(store: Path) -> dict[str, str]:
    """Return a hash of every file of a store that any run must make alike."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and same_always(path.relative_to(store))
    }


def same_always(path: Path) -> bool:
    """Tell by its name in the store whether any run must make a file alike."""
    # Records and manifests hold times, and a report shows them in its page and in its table of throughput.
    # What was last seen of a corpus holds the times of its files. Claims and locks name processes.
    named = path.name in {"index.html", "seen.parquet"}
    return not ({"records", "runs", FOLDER} & set(path.parts) or named or path.stem == "throughput")


def differing_bytes(store: Path, undisturbed: Path, expected: Mapping[str, str]) -> dict[str, int]:
    """Return by how many bytes the files of a store differ from the undisturbed ones.

    A file that is missing or surplus counts whole. Hidden files, which killed writers leave behind, do
    not count.
    """
    found = fingerprint(store)
    named = {name for name in found.keys() | expected.keys() if not Path(name).name.startswith(".")}
    return {
        name: _difference(store / name, undisturbed / name)
        for name in sorted(named)
        if found.get(name) != expected.get(name)
    }


def _difference(one: Path, other: Path) -> int:
    return _n_different(*(path.read_bytes() if path.exists() else b"" for path in (one, other)))


def _n_different(one: bytes, other: bytes) -> int:
    a, b = (np.frombuffer(data, dtype=np.uint8) for data in (one, other))
    shared = min(a.size, b.size)
    return int(np.count_nonzero(a[:shared] != b[:shared])) + max(a.size, b.size) - shared


def differing_contents(url: str, undisturbed: Path) -> dict[str, int]:
    """Return by how many bytes the results of a store differ, whatever the shards they lie in.

    A store that has followed its corpus has other shards than one that never had to.
    """
    differing = {}
    mine, other = Store.open(url), Store.open(str(undisturbed))
    for name, node in other.nodes.items():
        if node.kind not in {"scores", "report"}:
            mine_of, other_of = mine[name], other[name]
            for one in sorted({*mine_of, *other_of}):
                pair = [np.asarray(view[one]).tobytes() if one in view else b"" for view in (mine_of, other_of)]
                differing[f"{name} of {one}"] = _n_different(*pair)
    for table in ("scores", "traces", "quarantine"):
        pair = [_lines(getattr(store, table)()) for store in (mine, other)]
        differing[table] = _n_different(*pair)
    return {name: n for name, n in differing.items() if n}


def _lines(table: pd.DataFrame) -> bytes:
    """Return the rows of a table, in an order of their own."""
    return "\n".join(sorted(table.to_csv(index=False).splitlines())).encode()


def lost_utterances(url: str, expected: set[str]) -> set[str]:
    """Return the ids that some product of the last run lacks, or that its records do not prove."""
    opened = Store.open(url)
    lost = set()
    for name, node in opened.nodes.items():
        if node.kind == "scores":
            folder = opened.product(node.folder, node.key)
            lost |= expected - set(folder.read_table("table")["utterance_id"])
        elif node.kind != "report":
            lost |= expected - set(opened[name])
    return lost
