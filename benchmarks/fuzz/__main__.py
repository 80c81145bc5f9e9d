"""Search for faults: ``python -m benchmarks.fuzz --minutes 30 [--seed S]``; see docs/faults.md."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click

from benchmarks.fuzz.campaign import Search, Tally
from benchmarks.fuzz.child import replay
from benchmarks.fuzz.kinds import KINDS, SHARES


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long to search.  [default: 30]")
@click.option("--inputs", "n_inputs", type=click.IntRange(min=1), help="Try this many inputs of each kind instead.")
@click.option("--seed", type=int, help="Seed of a search to repeat. By default a new one is drawn and printed.")
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)), help="Inputs of this kind.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes at a time.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Save findings here.")
@click.option("--replay", "saved", type=click.Path(path_type=Path, exists=True), help="Judge one saved input again.")
def main(
    minutes: float | None,
    n_inputs: int | None,
    seed: int | None,
    only: tuple[str, ...],
    jobs: int,
    folder: Path | None,
    saved: Path | None,
) -> None:
    """Print each new fault, and a table at the end.

    The exit code is 1 if there is a fault.
    """
    if saved is not None:
        print("accepted" if replay(saved) else "refused")
        return
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="melmill-fuzz-found-")) if folder is None else folder.absolute()
    kinds = list(dict.fromkeys(only)) or list(KINDS)
    search = Search(seed=seed, folder=folder, jobs=jobs, say=_say)
    _say(f"seed {seed}: {', '.join(kinds)}; findings go to {folder}")
    started, total = time.monotonic(), sum(SHARES[kind] for kind in kinds)
    tallies = {}
    for kind in kinds:
        duration_s = None if n_inputs else 60 * (30 if minutes is None else minutes) * SHARES[kind] / total
        tallies[kind] = search.run(kind, n_inputs, duration_s)
    _say(table(tallies, time.monotonic() - started))
    sys.exit(any(tally.findings for tally in tallies.values()))


def table(tallies: Mapping[str, Tally], duration_s: float) -> str:
    """Return what was tried and found, a line for each kind, and each fault with its inputs."""
    lines = [f"{'kind':12} {'inputs':>9} {'accepted':>9} {'refused':>9} {'findings':>9} {'faults':>7}"]
    for kind, one in tallies.items():
        lines.append(
            f"{kind:12} {one.inputs:9} {one.accepted:9} {one.refused:9} {one.findings.total():9} {len(one.findings):7}"
        )
    lines += [
        f"{kind}: {count} x {signature}"
        for kind, one in tallies.items()
        for signature, count in one.findings.most_common()
    ]
    n_inputs = sum(one.inputs for one in tallies.values())
    n_faults = sum(len(one.findings) for one in tallies.values())
    lines.append(f"{n_inputs:,} inputs in {duration_s:.0f} s, {n_faults} faults")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
