"""Simulate evaluations that a gate decides: how often it trips without a change, and with a real one.

python -m benchmarks.gates [--store runs/gates] [--corpus ../shared/corpora/LibriSpeech]
                           [--evaluations 1000] [--utterances 50,100,400]

The scores are real: melmill makes them of test-other, where the store lacks them. Two nodes are one
method from two random starts, so that they differ by noise alone. A third is another method, and the
mean difference of each speaker is taken off it. An evaluation draws utterances with replacement. Of
the two starts, a random one is the new one for each utterance. So the truth is known: there is no
change, or a degradation of a rule's margin is added to its metric. The gate's own function decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import melmill
from benchmarks.figure import Figure, table
from melmill.flows.runs.gate import parse_rules
from melmill.stages.report.comparison.differences import decide, inferiority
from melmill.stages.report.comparison.rules import Rule
from melmill.stages.score.metric import Metric

PIPELINE = Path(__file__).parent / "gates.yaml"
STARTS = ("gla[seed=0]", "gla[seed=1]")
OTHER = "admm"

RULES = """\
rules:
  - {metric: pesq_wb, not_worse_than: 0.02}
  - {metric: estoi, not_worse_than: 0.002}
  - {metric: scm, not_worse_than: 0.1}
  - {metric: lsd, not_worse_than: 0.02}
  - {metric: pesq_wb, by: speaker, not_worse_than: 0.1}
"""


@dataclass(frozen=True, kw_only=True)
class Population:
    """Real differences of scores between two systems that are equally good.

    Parameters
    ----------
    name : str
    speakers : ndarray of str, shape (n_utterances,)
    differences : mapping of str to ndarray of float64, shape (n_utterances,)
        By metric; positive is better.
    is_exchangeable : bool
        Whether either of the two may be the new one.
    """

    name: str
    speakers: NDArray[np.str_]
    differences: dict[str, NDArray[np.float64]]
    is_exchangeable: bool

    def evaluations(self, count: int, n: int, seed: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
        """Yield the utterances of simulated evaluations, and the sign of each one's differences."""
        rng = np.random.default_rng(seed)
        for _ in range(count):
            signs = rng.choice([-1.0, 1.0], n) if self.is_exchangeable else np.ones(n)
            yield rng.integers(0, len(self.speakers), n), signs


def real_scores(store: Path, corpus: Path) -> pd.DataFrame:
    """Return the scores of the pipeline, which is run where the store lacks them."""
    melmill.run(PIPELINE, set={"speech.root": str(corpus)}, store=store, executor="serial")
    scores = melmill.open(store).scores()
    assert (scores.filter(regex="^status_") == "ok").all(axis=None), "a score failed: is it another corpus?"
    return scores


def populations(scores: pd.DataFrame, metrics: Sequence[Metric]) -> list[Population]:
    """Return the pairs of systems whose evaluations are simulated."""
    by_node = {str(node): part.set_index("utterance_id") for node, part in scores.groupby("node")}
    first, second, other = (by_node[node].loc[by_node[STARTS[0]].index] for node in (*STARTS, OTHER))
    speakers = first["speaker_id"]
    starts, methods = {}, {}
    for metric in metrics:
        starts[metric.name] = (metric.sign * (second[metric.column] - first[metric.column])).to_numpy(np.float64)
        change = metric.sign * (other[metric.column] - first[metric.column])
        methods[metric.name] = (change - change.groupby(speakers).transform("mean")).to_numpy(np.float64)
    names = speakers.to_numpy(str)
    return [
        Population(name="two random starts", speakers=names, differences=starts, is_exchangeable=True),
        Population(name="another method", speakers=names, differences=methods, is_exchangeable=False),
    ]


def tripped(
    population: Population, rules: Sequence[Rule], worse: int | None, count: int, n: int
) -> tuple[NDArray[np.bool_], float]:
    """Return which rules tripped in simulated evaluations, and the power that the gate told.

    Parameters
    ----------
    population : Population
    rules : sequence of Rule
    worse : int or None
        Number of the rule whose metric is worse by its margin. None: there is no change.
    count, n : int
        Evaluations, and utterances of each.

    Returns
    -------
    tripped : ndarray of bool, shape (count, n_rules)
    power : float
        Mean over the evaluations and the checks of the rule that is worse.
    """
    hits, told = np.zeros((count, len(rules)), dtype=bool), []
    degraded = {} if worse is None else {str(rules[worse].metric): rules[worse].limit}
    for at, (rows, signs) in enumerate(population.evaluations(count, n, seed=0 if worse is None else 1 + worse)):
        owners, found = [], []
        for number, rule in enumerate(rules):
            name = str(rule.metric)
            d = signs * population.differences[name][rows] - degraded.get(name, 0.0)
            speakers = population.speakers[rows]
            parts = [d[speakers == one] for one in np.unique(speakers)] if rule.by else [d]
            owners += [number] * len(parts)
            found += [inferiority(part) for part in parts]
        decisions = decide(found, [rules[number].limit for number in owners])
        for number, decision in zip(owners, decisions, strict=True):
            hits[at, number] |= decision.finding == "tripped"
            if number == worse:
                told.append(decision.power)
    return hits, float(np.mean(told)) if told else 0.0


def figures(population: Population, rules: Sequence[Rule], count: int, n: int) -> Iterator[Figure]:
    """Yield the rate of false alarms of one population, and what each rule notices."""
    about = f"{population.name}, {n} utterances"
    hits, _ = tripped(population, rules, None, count, n)
    yield Figure(name=f"{about}, no change: any rule trips", measured=100 * hits.any(axis=1).mean(), unit="%", goal=5)
    for number, rule in enumerate(rules):
        hits, told = tripped(population, rules, number, count, n)
        what = f"{about}, {rule.metric} {rule.limit:g} worse{' of every speaker' if rule.by else ''}"
        yield Figure(name=f"{what}: its rule trips", measured=100 * hits[:, number].mean(), unit="%")
        yield Figure(name=f"{what}: the gate told, by check", measured=100 * told, unit="%")


def main() -> None:
    """Print the rates as a table."""
    parser = argparse.ArgumentParser(description="Simulate evaluations that a gate decides.")
    parser.add_argument("--store", type=Path, default=Path("runs/gates"))
    parser.add_argument("--corpus", type=Path, default=Path("../shared/corpora/LibriSpeech"))
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--utterances", default="50,100,400")
    arguments = parser.parse_args()
    rules = [placed.rule for placed in parse_rules(RULES, "gate.yaml")]
    metrics = list(dict.fromkeys(metric for rule in rules if (metric := rule.measured) is not None))
    scores = real_scores(arguments.store, arguments.corpus)
    print(f"{scores['utterance_id'].nunique()} utterances of {scores['speaker_id'].nunique()} speakers")
    found = [
        figure
        for population in populations(scores, metrics)
        for n in map(int, arguments.utterances.split(","))
        for figure in figures(population, rules, arguments.evaluations, n)
    ]
    print(table(found))


if __name__ == "__main__":
    main()
