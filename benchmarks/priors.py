"""Measure what a prior gains and loses on speech and on much else, and where `auto` falls back.

python -m benchmarks.priors [--prior NAME|FILE] [--quality Q] [-n N] [--only TEXT] [--each]

Every sound is inverted three times: without a prior, with it, and with it where the rule of
`melmill.stages.numeric.prior` does not say that it would lose. Differences are to the inversion
without one; p is Wilcoxon's, two-sided, over paired sounds. ``MELMILL_REAL_DATA`` names the folder
that holds ``corpora``. Recordings that the prior was trained with say little.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon
from threadpoolctl import threadpool_limits

import melmill
from benchmarks.sounds import judged
from melmill.stages.invert.inversion import pose, solve_all
from melmill.stages.numeric.compiled.start import signs
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior
from melmill.stages.numeric.solver import Problem, Recipe
from melmill.stages.numeric.solvers.auto import Auto, Quality
from melmill.stages.score.metric import metric
from melmill.stages.score.pair import Pair

Array = NDArray[np.float32]
ARMS = ("none", "prior", "auto")
# Metrics, and whether larger is better.
ANY, SPEECH = {"sc": False, "scm": False}, {"pesq_wb": True, "estoi": True}
FEWEST = 6  # paired sounds; of fewer no p is below 0.05


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One sound inverted in every way.

    Parameters
    ----------
    scores : mapping of str to mapping of str to float
        By arm and metric.
    seconds : mapping of str to float
        CPU time by arm, s.
    start : str
        What `auto` started from.
    signs : tuple of float
        Mismatch, and inconsistency with and without the prior, dB.
    """

    scores: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    start: str
    signs: tuple[float, float, float]


def recipes(prior: Prior, quality: Quality) -> dict[str, Recipe]:
    """Return how each arm inverts."""
    auto = Auto(quality=quality)
    method, n_iter = auto.resolved(None)
    guided = Recipe(method=method, n_iter=auto.resolved(None, guided=True)[1], prior=prior)
    return {
        "none": Recipe(method=method, n_iter=n_iter),
        "prior": guided,
        "auto": replace(guided, fallback_n_iter=n_iter),
    }


def judge(y: Array, spec: MelSpec, arms: Mapping[str, Recipe], metrics: Sequence[str]) -> Judged:
    """Invert the mel of a sound in every way and score the results."""
    M = melmill.mel(y, spec)
    problem: Problem = pose(M, spec, arms["auto"], y.size)
    scores, seconds, start = {}, {}, ""
    for arm, recipe in arms.items():
        began = time.process_time()
        (result,) = solve_all([replace(problem, recipe=recipe)], spec)
        seconds[arm] = time.process_time() - began
        both = Pair(reference=y, reference_sr=spec.sr, estimate=result.y, estimate_sr=spec.sr, spec=spec)
        values = {name: metric(name).measure(both).value for name in metrics}
        scores[arm] = {name: math.nan if value is None else value for name, value in values.items()}
        start = result.start
    return Judged(scores=scores, seconds=seconds, start=start, signs=signs(problem.linear, spec, arms["auto"], y.size))


@click.command()
@click.option("--prior", "which", default="paper", show_default=True, help="Name or file of a prior.")
@click.option("--quality", type=click.Choice(["draft", "good", "best"]), default="good", show_default=True)
@click.option("-n", "n", default=20, show_default=True, help="Sounds of each kind, at most.")
@click.option("--only", default="", help="Kinds of sounds whose names contain this text.")
@click.option("--each", is_flag=True, help="Print a row for each sound too, to set the rule's bounds by.")
def main(which: str, quality: Quality, n: int, only: str, each: bool) -> None:
    """Print a Markdown table with a row for each kind of sounds and each metric."""
    prior = melmill.load_prior(which)
    spec, arms = prior.spec, recipes(prior, quality)
    print(
        f"prior {which} ({prior.digest[:12]}), quality {quality}: {arms['none'].n_iter} iterations without it, ", end=""
    )
    print(f"{arms['prior'].n_iter} with it. Worst: largest loss of one sound.\n")
    print("| sounds | n | fell back | metric | none | prior | auto | p of prior | p of auto | worst, prior | auto |")
    print("|---" * 11 + "|")
    every: list[Judged] = []
    with threadpool_limits(1):
        noise = 0.1 * np.random.default_rng(0).standard_normal(spec.sr)
        judge(noise.astype(np.float32), spec, arms, [])  # compiles
        for sounds in judged(spec.sr, n, only):
            metrics = {**ANY, **(SPEECH if sounds.speech and spec.sr >= 16000 else {})}
            found = [judge(y, spec, arms, list(metrics)) for y in sounds.waves]
            for name, larger in metrics.items():
                print(_row(sounds.name, name, found, larger), flush=True)
            if each:
                _print_each(found)
            every += found
    if every:
        _print_times(every)


def _print_times(every: Sequence[Judged]) -> None:
    """Print CPU times relative to those without a prior: of all sounds, and of those that keep it."""

    def relative(arm: str, of: Sequence[Judged]) -> float:
        return sum(one.seconds[arm] for one in of) / sum(one.seconds["none"] for one in of)

    kept = [one for one in every if one.start == "prior"]
    print(f"\n{len(every)} sounds, {1 - len(kept) / len(every):.1%} fell back. CPU time against none: ", end="")
    print(f"prior {relative('prior', every):.2f}, auto {relative('auto', every):.2f}.")
    if kept:
        print(f"The check adds {relative('auto', kept) - relative('prior', kept):.2f} where it keeps the prior.")


def _row(kind: str, name: str, found: Sequence[Judged], larger: bool) -> str:
    values = {arm: np.array([one.scores[arm][name] for one in found]) for arm in ARMS}
    known = np.isfinite(sum(values.values()))
    values = {arm: column[known] for arm, column in values.items()}
    fell_back = np.mean([one.start != "prior" for one in found])
    cells = [kind, str(int(known.sum())), f"{fell_back:.0%}", name]
    cells += [f"{values[arm].mean():.3f}" if known.any() else "" for arm in ARMS]
    losses = {arm: (values["none"] - values[arm]) * (1 if larger else -1) for arm in ARMS[1:]}
    cells += [_p(losses[arm]) for arm in ARMS[1:]]
    cells += [f"{max(0.0, losses[arm].max(initial=0.0)):.3f}" for arm in ARMS[1:]]
    return "| " + " | ".join(cells) + " |"


def _p(losses: NDArray[np.float64]) -> str:
    """Return Wilcoxon's p with the sign of what the arm does: ``+`` gains, ``-`` loses."""
    if losses.size < FEWEST or not losses.any():
        return ""
    return f"{'-' if losses.mean() > 0 else '+'}{wilcoxon(losses).pvalue:.1e}"


def _print_each(found: Sequence[Judged]) -> None:
    for one in sorted(found, key=lambda one: one.scores["none"]["sc"] - one.scores["prior"]["sc"]):
        mismatch, guided, plain = one.signs
        gain = one.scores["none"]["sc"] - one.scores["prior"]["sc"]
        print(f"  SC gain {gain:6.2f} dB, mismatch {mismatch:6.1f}, start {guided:6.2f} / {plain:6.2f} dB: {one.start}")


if __name__ == "__main__":
    main()
