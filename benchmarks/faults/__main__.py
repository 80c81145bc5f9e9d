"""Run the fault campaign: ``python -m benchmarks.faults --rounds 50 [--seed S]``.

The speech is LibriSpeech if ``MELMILL_REAL_DATA`` names the folder that holds
``corpora/LibriSpeech``, otherwise the demo corpus. docs/faults.md describes the faults.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import click

from benchmarks.faults.campaign import Campaign, Round
from benchmarks.faults.disk import Disk
from benchmarks.faults.judging import Verdict
from benchmarks.faults.schedule import Kind, schedule
from benchmarks.faults.workshop import Workshop


@click.command()
@click.option("--rounds", "n_rounds", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--seed", type=int, help="Seed of a schedule to repeat. By default a new one is drawn and printed.")
@click.option("--only", multiple=True, type=click.Choice([kind.value for kind in Kind]), help="Faults of this kind.")
def main(n_rounds: int, seed: int | None, only: tuple[str, ...]) -> None:
    """Print one line for each round, and a summary.

    The exit code is 1 if an utterance was lost or a byte differs.
    """
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="melmill-faults-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Disk(folder / "disk") as disk:
        good = _play(Workshop(folder, disk), n_rounds, seed, [Kind(name) for name in only] or list(Kind))
    if good:
        shutil.rmtree(folder)
    else:
        _say(f"what went wrong is kept in {folder}")
    sys.exit(not good)


def _play(workshop: Workshop, n_rounds: int, seed: int, wanted: list[Kind]) -> bool:
    started = time.monotonic()
    skipped = {kind: why for kind, why in workshop.impossible().items() if kind in wanted}
    kinds = [kind for kind in wanted if kind not in skipped]
    rounds = schedule(seed, n_rounds, kinds) if kinds else []
    _say(f"seed {seed}: {n_rounds} rounds on {len(workshop.utterances)} utterances of {workshop.corpus}")
    if Kind.NO_CACHE in kinds:
        workshop.bare  # noqa: B018 - it takes minutes, while which no run should go on
    campaign = Campaign(workshop)
    verdict = Verdict()
    try:
        for number, faults in enumerate(rounds, start=1):
            played = campaign.play(faults)
            verdict += played.verdict
            _say(_line(number, played))
    finally:
        campaign.close()
    _say(_summary(campaign.injected, campaign.missed.total(), skipped, verdict, time.monotonic() - started))
    return verdict.good


def _line(number: int, played: Round) -> str:
    strikes = "; ".join(
        f"{struck.fault.kind} {struck.says}".strip() + " (missed)" * struck.missed for struck in played.strikes
    )
    verdict = played.verdict
    line = (
        f"round {number}: {strikes}: {verdict.redone} tasks redone, {verdict.lost} utterances lost, "
        f"{verdict.n_bytes} bytes differ, {played.duration_s:.1f} s"
    )
    return "\n".join([line, *(f"  WRONG: {complaint}" for complaint in verdict.complaints)])


def _summary(
    injected: Counter[Kind], n_missed: int, skipped: Mapping[Kind, str], verdict: Verdict, duration_s: float
) -> str:
    lines = [f"{kind:24} {injected[kind]:4}" for kind in Kind if injected[kind]]
    lines += [f"{kind:24} skipped: {why}" for kind, why in skipped.items()]
    lines += [
        f"faults injected          {injected.total():4}",
        f"strikes that missed      {n_missed:4}",
        f"kinds skipped            {len(skipped):4}",
        f"tasks redone             {verdict.redone:4}",
        f"utterances lost          {verdict.lost:4}",
        f"differing bytes          {verdict.n_bytes:4}",
        f"other complaints         {len(verdict.complaints):4}",
        f"in {duration_s:.0f} s: {'all is as if nothing had happened' if verdict.good else 'NOT as it should be'}",
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
