"""`melmill verify`, `repair` and `quarantine`: find and repair what is wrong in a store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from melmill.flows.cli.group import DONE, FAILED, LocalPath, cli
from melmill.flows.cli.show import as_json, table
from melmill.flows.pipeline.spec import load
from melmill.flows.runs.repair import drop_incomplete, remake_catalogue
from melmill.storage.files.location import Location
from melmill.storage.product import CATALOGUE
from melmill.storage.store import Store
from melmill.storage.verify import repair as repair_store
from melmill.storage.verify import verify as verify_store

_store = click.argument("store", metavar="STORE")
_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")


@cli.command()
@_store
@_json
def verify(store: str, json_: bool) -> int:
    """Reread everything in STORE and compare checksums.

    Name what is damaged, and exit with 1 if anything is.

    \b
    Example:
      melmill verify runs/demo
    """
    opened = Store.open(store)
    damages = verify_store(opened)
    if json_:
        as_json({"store": store, "damaged": [asdict(damage) for damage in damages]})
    elif damages:
        table(("node", "record", "file", "problem"), [(d.node, d.record, d.file, d.problem) for d in damages])
        click.echo(f"{len(damages)} files are damaged: `melmill repair {store}` drops their records; then run again")
    else:
        click.echo(f"{store} is whole")
        if elsewhere := [name for name, entry in opened.nodes.items() if entry.recordings is not None]:
            click.echo(
                f"recordings of {', '.join(elsewhere)} stay in the corpus: each read checks them, verify does not"
            )
    return FAILED if damages else DONE


@cli.command()
@_store
@click.option(
    "--pipeline",
    type=LocalPath(dir_okay=False),
    help="Rebuild a damaged catalogue from the corpus of this pipeline.",
)
@_json
def repair(store: str, pipeline: Path | None, json_: bool) -> int:
    """Drop the records of damaged files in STORE, so that the next run makes exactly those again.

    \b
    Example:
      melmill repair runs/demo && melmill run pipeline.yaml
    """
    Store(Location(store)).rewrite_marker()
    opened = Store.open(store)
    damages = verify_store(opened)
    catalogues = [] if pipeline is None else [damage for damage in damages if damage.file == CATALOGUE]
    if pipeline is not None:
        for damage in catalogues:
            remake_catalogue(opened, (damage.node, damage.key), load(pipeline))
    repair_store(opened, [damage for damage in damages if damage not in catalogues])
    if json_:
        as_json({"store": store, "dropped": [asdict(damage) for damage in damages]})
    elif damages:
        table(("node", "record", "file", "problem"), [(d.node, d.record, d.file, d.problem) for d in damages])
        click.echo(f"dropped {len({(d.node, d.key, d.record) for d in damages})} records: run the pipeline again")
    else:
        click.echo(f"{store} is whole: nothing to repair")
    return DONE


@cli.command()
@_store
@click.option("--detail", is_flag=True, help="Show the traceback of each.")
@click.option("--retry", is_flag=True, help="Drop the records of their shards, so that the next run tries them again.")
@_json
def quarantine(store: str, detail: bool, retry: bool, json_: bool) -> int:
    """List the utterances that a node of STORE's last run could not process, with the reasons.

    \b
    Example:
      melmill quarantine runs/demo --detail
    """
    opened = Store.open(store)
    rows = opened.quarantine().to_dict(orient="records")
    if json_:
        dropped = {"dropped": drop_incomplete(opened)} if retry else {}
        as_json({"store": store, "quarantined": rows, **dropped})
        return DONE
    if rows:
        table(("utterance", "node", "reason"), [(row["utterance_id"], row["node"], row["reason"]) for row in rows])
    else:
        click.echo("nothing is in quarantine")
    for row in rows if detail else ():
        click.echo(f"\n{row['utterance_id']} at {row['node']}:\n{row['detail']}")
    if retry:
        click.echo(f"dropped {drop_incomplete(opened)} records: run the pipeline again")
    return DONE
