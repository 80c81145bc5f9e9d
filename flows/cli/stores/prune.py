"""`melmill du`, `prune` and `copy`: what a store takes, what of it no run needs, and what another store needs."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

from melmill.flows.cli.group import DONE, FAILED, cli
from melmill.flows.cli.show import as_json, one_line, table
from melmill.flows.runs.addresses import parse_address, resolve
from melmill.flows.runs.copying import copy_runs
from melmill.flows.runs.prune import GRACE_S, KEEP, Candidate, Found, Pruned, Rules, candidate_as_plain, look
from melmill.flows.runs.prune import prune as prune_store
from melmill.flows.runs.usage import ProductUsage, Total, size
from melmill.flows.runs.usage import usage as usage_of
from melmill.flows.watching.progress import duration
from melmill.storage.store import Store

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
_KEY = 12
# Not one within the brackets of a node that was fanned out.
_COMMA = re.compile(r",(?![^\[]*\])")

_store = click.argument("store", metavar="STORE")
_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object to standard output.")


class Age(click.ParamType[float]):
    """A time such as 30d, 12h, 90m, 45s or 2w."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time, s."""
        found = _AGE.fullmatch(str(value).strip().lower())
        if found is None or (not found[2] and float(found[1])):
            self.fail(f"{str(value)!r} is not a time such as 30d, 12h, 90m, 45s or 2w", param, ctx)
        return float(found[1]) * _UNITS_S[found[2] or "s"]


@cli.command()
@_store
@click.option(
    "--by",
    type=click.Choice(["node", "key", "run", "tag"]),
    default="node",
    show_default=True,
    help="What a row of the table is.",
)
@_json
def du(store: str, by: str, json_: bool) -> int:
    """Show what STORE takes: bytes, files, utterances, and how long it would take to compute it again.

    Runs share what they have in common. What is exclusive to a run is freed if nobody needs that run.

    \b
    Examples:
      melmill du runs/demo
      melmill du s3://team/store --by run
    """
    used = usage_of(Store.open(store))
    if json_:
        as_json(used.as_dict())
        return DONE
    if by == "node":
        table(
            ("node", "products", "size", "files", "utterances", "compute"),
            [(one.name, one.products, *_sums(one)) for one in used.by_node()],
        )
    elif by == "key":
        table(
            ("node", "key", "stage", "runs", "size", "files", "utterances", "compute"),
            [(one.node, one.key[:_KEY], one.stage, len(one.runs), *_sums(one)) for one in used.products],
        )
    elif by == "run":
        table(
            ("run", "state", "tags", "size", "shared", "exclusive", "files", "utterances", "compute"),
            [(one.name, one.state, ", ".join(one.tags), *_parts(one)) for one in used.by_run()],
        )
    else:
        table(
            ("tag", "run", "size", "shared", "exclusive", "files", "utterances", "compute"),
            [(one.name, one.state, *_parts(one)) for one in used.by_tag()],
        )
    unreached = used.unreached
    if unreached.products:
        click.echo(
            f"{unreached.products} products, {size(unreached.n_bytes)}, are of no run: see `melmill prune {store}`"
        )
    if n_elsewhere := sum(one.n_elsewhere for one in used.products):
        click.echo(f"{n_elsewhere} further records are of files in other stores, which are counted there")
    click.echo(
        f"{size(used.n_bytes)} in {used.n_files} files; computing all of it took {duration(used.compute_s)} of work"
    )
    return DONE


def _sums(one: Total | ProductUsage) -> tuple[object, ...]:
    return size(one.n_bytes), one.n_files, one.n_utterances, duration(one.compute_s)


def _parts(one: Total) -> tuple[object, ...]:
    first, *rest = _sums(one)
    return first, size(one.shared_bytes), size(one.exclusive_bytes), *rest


@cli.command()
@_store
@click.option("--keep", type=int, default=KEEP, show_default=True, help="Keep what this many of the last runs need.")
@click.option("--older-than", type=Age(), metavar="TIME", help="Keep younger runs and products too, such as 30d.")
@click.option(
    "--grace",
    type=Age(),
    default=f"{GRACE_S / 3600:g}h",
    show_default=True,
    metavar="TIME",
    help="Time from the mark to the deletion. 0: delete now.",
)
@click.option("--yes", is_flag=True, help="Mark and delete. Without it, only say what that would do.")
@_json
def prune(store: str, keep: int, older_than: float | None, grace: float, yes: bool, json_: bool) -> int:
    """Free what no run needs in STORE: products that no tag and none of the last runs reaches.

    With --yes, the first call marks them, and a call after the grace deletes them. A run that uses a
    marked product keeps it. Records of runs stay.

    \b
    Examples:
      melmill prune runs/demo
      melmill prune runs/demo --keep 3 --older-than 30d --yes
    """
    rules = Rules(keep=keep, older_than_s=older_than, grace_s=grace)
    opened = Store.open(store)
    if not yes:
        found = look(opened, rules)
        if json_:
            as_json({"store": store, **_found_json(found)})
        else:
            _show_found(found, store, rules)
        return DONE
    done = prune_store(opened, rules, (lambda line: None) if json_ else click.echo)
    if json_:
        as_json({"store": store, **done.as_dict()})
    else:
        _show_done(done, store)
    return DONE


def _found_json(found: Found) -> dict[str, object]:
    usages = [one.usage for one in found.candidates]
    return {
        "kept_runs": list(found.kept_runs),
        "kept_products": found.n_kept,
        "candidates": [candidate_as_plain(one) for one in found.candidates],
        "leftovers": {"files": len(found.leftovers), "bytes": sum(found.leftovers.values())},
        "bytes": sum(one.n_bytes for one in usages),
        "compute_s": sum(one.compute_s for one in usages),
    }


def _show_found(found: Found, store: str, rules: Rules) -> None:
    if found.candidates:
        table(
            ("node", "key", "stage", "size", "files", "to compute again", "with --yes"),
            [(*_row(one.usage), _what_happens(one, rules)) for one in found.candidates],
        )
        click.echo(f"{_total(one.usage for one in found.candidates)}; {found.n_kept} products stay")
    else:
        click.echo(f"nothing to prune: the runs that are kept need all {found.n_kept} products of {store}")
    if found.leftovers:
        click.echo(f"{len(found.leftovers)} files of killed writers, {size(sum(found.leftovers.values()))}, go too")
    if found.candidates or found.leftovers:
        click.echo("nothing was changed: add --yes")


def _what_happens(one: Candidate, rules: Rules) -> str:
    if one.mark is None:
        return "marked" if rules.grace_s else "deleted"
    return f"deleted in {duration(one.due_in_s)}" if one.due_in_s else "deleted"


def _show_done(done: Pruned, store: str) -> None:
    if done.deleted:
        click.echo(f"deleted: {_total(done.deleted)}")
    for product in done.in_use:
        click.echo(f"kept {product.node}/{product.key[:_KEY]}: a run uses it now")
    if done.leftovers:
        click.echo(f"removed {len(done.leftovers)} files of killed writers, {size(sum(done.leftovers.values()))}")
    if done.marked:
        due_in_s = min(one.due_in_s for one in done.marked)
        click.echo(
            f"marked: {_total(one.usage for one in done.marked)}; `melmill prune {store} --yes` deletes it from "
            f"{duration(due_in_s)} on"
        )
    if not (done.deleted or done.in_use or done.leftovers or done.marked):
        click.echo(f"nothing to prune in {store}")


def _row(one: ProductUsage) -> tuple[object, ...]:
    return one.node, one.key[:_KEY], one.stage, size(one.n_bytes), one.n_files, duration(one.compute_s)


def _total(products: Iterable[ProductUsage]) -> str:
    products = list(products)
    n_bytes, compute_s = sum(one.n_bytes for one in products), sum(one.compute_s for one in products)
    return f"{len(products)} products, {size(n_bytes)}, which took {duration(compute_s)} of work"


@cli.command()
@click.argument("source", metavar="A")
@click.argument("target", metavar="B")
@click.option("--nodes", metavar="NODES", help="Copy these nodes only: names with commas between them.")
@click.option("--all", "all_", is_flag=True, help="Copy what any run of A means, not only its last run.")
@click.option(
    "--with-run", is_flag=True, help="Copy the record of the run too, so that names in B mean what they do in A."
)
@_json
def copy(source: str, target: str, nodes: str | None, all_: bool, with_run: bool, json_: bool) -> int:
    """Copy products of the last run of A, or of the run A@TAG, to the store B.

    A run of the same pipeline in B then finds them done. Checksums are compared on the way. If it is
    interrupted, call it again.

    \b
    Examples:
      melmill copy runs/demo s3://team/demo
      melmill copy s3://team/demo@baseline runs/demo --nodes mel,gla
    """
    address = parse_address(source)
    resolved = resolve(address)
    if all_ and address.at is not None:
        raise click.UsageError(f"--all takes every run, and {source!r} names one: give one of them")
    names = None if nodes is None else [name.strip() for name in _COMMA.split(nodes) if name.strip()]
    if resolved.node is not None:
        names = [*(names or ()), resolved.node]
    if names == []:
        raise click.BadParameter("must name a node", param_hint="--nodes")
    runs = Store(resolved.location).runs() if all_ else [resolved.record]
    say = (lambda line: None) if json_ else click.echo
    done = copy_runs(Store(resolved.location), target, runs, names, with_runs=with_run, say=say)
    if json_:
        as_json({"source": source, "target": target, **done.as_dict()})
        return FAILED if done.problems else DONE
    click.echo(
        f"copied {done.records} records, {size(done.n_bytes)}, of {done.products} products; {done.there} were there"
    )
    for problem in done.problems:
        click.echo(f"error: not copied: {one_line(problem)}", err=True)
    return FAILED if done.problems else DONE
