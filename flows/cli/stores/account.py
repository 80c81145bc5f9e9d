"""`melmill account`: what of a corpus a node holds, and why not the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from melmill.flows.cli.group import DONE, LocalPath, cli
from melmill.flows.cli.show import as_json, table, write_file
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.runs.addresses import parse_address, resolve

if TYPE_CHECKING:
    import pandas as pd

    from melmill.storage.reading.accounts import Account
    from melmill.storage.runs import NodeEntry
    from melmill.storage.store import Store

# Pieces of each reason on the page.
_SHOWN = 5


@cli.command()
@click.argument("address", metavar="STORE[@RUN][:NODE]")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
@click.option("--page", type=LocalPath(dir_okay=False), help="Write a page with a picture to this file.")
@click.option(
    "--output",
    type=LocalPath(dir_okay=False),
    help="Write a row for each piece of each recording to this file: .csv, .jsonl or .parquet.",
)
def account(address: str, json_: bool, page: Path | None, output: Path | None) -> int:
    """Print what of its corpus a node holds, and why not the rest.

    Without a NODE it is the last one that makes waveforms or mels. All rows together are the corpus, sample for
    sample.

    \b
    Examples:
      melmill account runs/demo:filter
      melmill account runs/demo:mel --page account.html --output pieces.csv
    """
    run = resolve(parse_address(address))
    name = run.node or _last(run.store)
    found = run.store.account(name)
    pieces = found.table()
    rows = found.by_reason()
    if output is not None:
        write_file(output, _bytes(pieces, output))
    if page is not None:
        write_file(page, _page(found, rows, pieces))
    if json_:
        as_json(
            {
                "node": name,
                "corpus": found.corpus,
                "sr": found.sr,
                "n_samples": int(rows["n_samples"].sum()),
                "rows": [_plain(row) for row in rows.to_dict("records")],
            }
        )
        return DONE
    from melmill.stages.report.views.account import length

    shown = [
        (
            one["node"],
            one["reason"],
            f"{one['n_pieces']:,}",
            f"{one['n_samples']:,}",
            length(one["duration_s"]),
            f"{one['share']:.2%}",
        )
        for one in map(_plain, rows.to_dict("records"))
    ]
    total_s = float(rows["duration_s"].sum())
    everything = ("all", "", f"{rows['n_pieces'].sum():,}", f"{rows['n_samples'].sum():,}", length(total_s), "")
    table(("node", "reason", "pieces", "samples", "length", "share"), [*shown, everything], f"{name} of {found.corpus}")
    return DONE


def _last(store: Store) -> str:
    """Return the last node of a run that makes waveforms or mels; raise PipelineError where there is none."""
    names = [name for name, entry in store.nodes.items() if _holds(entry)]
    if not names:
        raise PipelineError(f"no node of {store.location.url!r} makes waveforms or mels: name one, STORE:NODE")
    return names[-1]


def _holds(entry: NodeEntry) -> bool:
    return entry.kind in ("utterances", "waveform", "mel")


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row without the types of NumPy."""
    return {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()}


def _bytes(pieces: pd.DataFrame, output: Path) -> bytes:
    """Return a table as the file's name says; raise PipelineError for others."""
    suffix = output.suffix.lower()
    if suffix == ".parquet":
        return bytes(pieces.to_parquet(index=False))
    if suffix == ".csv":
        return str(pieces.to_csv(index=False)).encode()
    if suffix == ".jsonl":
        lines = (json.dumps(_plain(row), ensure_ascii=False) for row in pieces.to_dict("records"))
        return "".join(f"{line}\n" for line in lines).encode()
    raise PipelineError(f"--output must end in .csv, .jsonl or .parquet, got {str(output)!r}")


def _page(found: Account, rows: pd.DataFrame, pieces: pd.DataFrame) -> bytes:
    from melmill.stages.report.views.account import Example, Part, account_page
    from melmill.storage.reading.accounts import KEPT

    parts = [Part(*row) for row in rows.itertuples(index=False, name=None)]
    dropped = pieces[pieces["reason"] != KEPT].assign(n_samples=lambda one: one["stop"] - one["start"])
    longest = dropped.sort_values("n_samples", ascending=False, kind="stable").groupby(["node", "reason"], sort=False)
    chosen = longest.head(_SHOWN).sort_values(["node", "reason"], kind="stable")
    examples = [
        Example(
            one["utterance_id"],
            one["node"],
            one["reason"],
            one["detail"],
            one["start"] / found.sr,
            one["stop"] / found.sr,
        )
        for one in map(_plain, chosen.to_dict("records"))
    ]
    return account_page(found.name, found.corpus, parts, examples)
