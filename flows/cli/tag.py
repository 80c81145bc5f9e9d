"""`melmill tag`: names for runs, which protect them and serve as baselines."""

from __future__ import annotations

from dataclasses import asdict

import click

from melmill.flows.cli.group import DONE, cli
from melmill.flows.cli.show import as_json, table
from melmill.flows.runs.addresses import Address, parse_address, resolve
from melmill.flows.runs.history import remove_tag, set_tag, tags_of
from melmill.storage.store import Store


@cli.command()
@click.argument("store", metavar="STORE")
@click.argument("words", metavar="[RUN] [NAME]", nargs=-1)
@click.option("--force", is_flag=True, help="Take the name from another run.")
@click.option("--remove", metavar="NAME", help="Remove this tag. Its run stays.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")
def tag(store: str, words: tuple[str, ...], force: bool, remove: str | None, json_: bool) -> int:
    """Give a run of STORE a NAME: the last run, or RUN, an id, its beginning, or another tag.

    A tag protects its run from pruning, and STORE@NAME means that run. It never moves to another
    run by itself: that takes --force. Without a NAME, the tags are listed.

    \b
    Examples:
      melmill tag runs/demo baseline
      melmill tag runs/demo 20260102T030405 before-upgrade
      melmill tag runs/demo --remove before-upgrade
      melmill tag runs/demo
    """
    if len(words) > 2 or (remove and words):
        raise click.UsageError(f"expected STORE [RUN] NAME, or STORE --remove NAME, got {' '.join((store, *words))}")
    address = parse_address(store)
    if address.node is not None or (address.at is not None and len(words) == 2):
        raise click.UsageError(f"expected a store, got the address {store!r} of more")
    if remove is not None:
        removed = remove_tag(Store.open(address.store), remove)
        if json_:
            as_json({"store": address.store, "removed": asdict(removed)})
        else:
            click.echo(f"removed tag {removed.name} of run {removed.run_id}")
        return DONE
    if not words:
        tags = tags_of(Store.open(address.store))
        if json_:
            as_json({"store": address.store, "tags": [asdict(one) for one in tags.values()]})
        elif tags:
            table(("tag", "run", "since", "by"), [(one.name, one.run_id, one.at, one.by) for one in tags.values()])
        else:
            click.echo(f"store {address.store!r} has no tags")
        return DONE
    at = words[0] if len(words) == 2 else address.at
    found = resolve(Address(store=address.store, at=at, text=store if at == address.at else ""))
    made = set_tag(found.store, words[-1], found.run_id, force)
    if json_:
        as_json({"store": address.store, "tag": asdict(made)})
        return DONE
    click.echo(f"{made.name}: run {made.run_id}")
    if found.record.state != "done":
        click.echo(f"note: this run is not done but {found.record.state}", err=True)
    return DONE
