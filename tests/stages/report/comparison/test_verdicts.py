"""Rules of a gate: what trips, what passes, what can't be judged, and how often they err."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from melmill.stages.errors import NotComparable
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.report.comparison.rules import Rule
from melmill.stages.report.comparison.verdicts import Judgement, Placed, judge
from tests.stages.report.comparison.conftest import Numbers, numbers

BASE = np.random.default_rng(1).uniform(0.5, 0.9, 60)


def judged(run: Numbers, *rules: dict[str, Any], baseline: Numbers | None = None, **more: str) -> Judgement:
    placed = [Placed(rule=Rule(**rule), where=f"gate.yaml:{at}") for at, rule in enumerate(rules, start=2)]
    return judge(run, placed, baseline, **more)


def changed(shift: float, noise: float, metric: str = "estoi", seed: int = 0) -> Numbers:
    d = np.random.default_rng(seed).normal(0, noise, 60)
    return numbers({metric: BASE + d - d.mean() + shift})


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ({"metric": "estoi", "at_least": 0.69}, "passed"),
        ({"metric": "estoi", "at_least": 0.71}, "tripped"),
        ({"metric": "estoi", "at_most": 0.69}, "tripped"),
        ({"metric": "estoi", "at_most": 0.7}, "passed"),  # the limit itself is allowed
        ({"metric": "estoi", "at_least": 0.65, "by": ("speaker",)}, "tripped"),  # s0 has 0.6
        ({"failed_share": 0.25}, "passed"),
        ({"failed_share": 0.24}, "tripped"),
        ({"failed_share": "20 %", "by": ("speaker",)}, "tripped"),  # 0 of s0 and half of s1 failed
        ({"failed_share": 0.24, "metric": "lsd"}, "passed"),
        ({"quarantined_share": 0.2}, "passed"),
        ({"quarantined_share": "19%"}, "tripped"),
        ({"quarantined_share": 0.1, "node": "mel"}, "passed"),
        ({"throughput": 5.0, "node": "gla"}, "passed"),
        ({"throughput": 5.0}, "tripped"),  # mel is slower
        ({"disk": "3 kB"}, "passed"),
        ({"disk": 2999}, "tripped"),
        ({"disk": 1000, "node": "mel"}, "passed"),
    ],
)
def test_facts_are_compared_with_their_limits(rule: dict[str, Any], state: str) -> None:
    run = numbers({"estoi": [0.6, 0.8, 0.6, 0.8], "lsd_db": [1.0, 1.0, 1.0, 1.0]})
    if "failed_share" in rule:
        run.scores.loc[[1, 3], "estoi"] = math.nan
        run.scores.loc[[1, 3], "status_estoi"] = "too_short"
    run.quarantined = {"mel": frozenset({"x"}), "gla": frozenset({"x", "y"})}
    run.disk_bytes = {"mel": 1000, "gla": 2000}
    run.throughput = pd.DataFrame(
        {"node": ["mel", "gla"], "audio_s": [4.0, 60.0], "compute_s": [1.0, 12.0], "utterances": [4, 4]}
    )
    found = judged(run, rule)
    assert (found.state(1), found.passed) == (state, state == "passed")
    assert len(found.tripped) == (state == "tripped")


def test_a_metric_without_any_value_trips() -> None:
    found = judged(numbers({"estoi": [math.nan] * 3}), {"metric": "estoi", "at_least": 0.1})
    assert found.tripped == ["gate.yaml:2: estoi: at least 0.1: tripped: gla: no value at all"]


@pytest.mark.parametrize(
    ("shift", "noise", "margin", "state"),
    [
        (0.0, 0.0, 0.0, "passed"),  # the very same scores
        (0.0, 0.01, 0.02, "passed"),
        (-0.01, 0.01, 0.02, "passed"),  # worse for certain, but within the margin
        (-0.03, 0.01, 0.02, "tripped"),
        (-0.03, 0.0, 0.02, "tripped"),  # by the same everywhere
        (-0.019, 0.01, 0.02, "tripped"),  # worse for certain, and perhaps by more than the margin
        (0.03, 0.01, 0.02, "passed"),
        (0.0, 0.3, 0.02, "unsure"),  # the noise hides the margin
        (-0.03, 0.3, 0.02, "unsure"),
    ],
)
@pytest.mark.parametrize("metric", ["estoi", "lsd_db"])
def test_a_run_must_not_be_worse_than_its_baseline(
    shift: float, noise: float, margin: float, state: str, metric: str
) -> None:
    sign = 1 if metric == "estoi" else -1
    run = changed(sign * shift, noise, metric)
    found = judged(run, {"metric": metric, "not_worse_than": margin}, baseline=numbers({metric: BASE}))
    (check,) = found.checks
    assert (check.state, check.n) == (state, 60)
    assert check.value == pytest.approx(sign * shift, abs=1e-12)
    assert (check.value - check.bound) * sign >= 0
    assert found.passed == (state != "tripped")


def test_what_shows_nothing_trips_where_it_is_asked_to() -> None:
    run, baseline = changed(0.0, 0.3), numbers({"estoi": BASE})
    rule = {"metric": "estoi", "not_worse_than": 0.02}
    assert judged(run, rule, baseline=baseline).unsure
    strict = judged(run, {**rule, "unsure": "trip"}, baseline=baseline)
    assert "0.02 less would trip with a chance of" in strict.tripped[0]


def test_a_group_that_got_worse_trips_alone() -> None:
    d = np.where(np.arange(60) % 2 == 0, -0.2, 0.2) + np.random.default_rng(0).normal(0, 0.01, 60)
    run, baseline = numbers({"estoi": BASE + d}), numbers({"estoi": BASE})
    rule = {"metric": "estoi", "not_worse_than": 0.1}
    assert judged(run, rule, baseline=baseline).passed
    found = judged(run, {**rule, "by": ("speaker",)}, baseline=baseline)
    assert [(check.group, check.state) for check in found.checks] == [
        ("speaker s0", "tripped"),
        ("speaker s1", "passed"),
    ]


def test_a_first_run_has_no_baseline_yet() -> None:
    rule = {"metric": "estoi", "not_worse_than": 0.1}
    found = judged(numbers({"estoi": [0.5]}), rule, unjudged="there is no baseline yet")
    assert (found.passed, found.state(1)) == (True, "unjudged")
    with pytest.raises(NotComparable, match=r"gate\.yaml:2: not_worse_than needs a baseline"):
        judged(numbers({"estoi": [0.5]}), rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"metric": "pesq_wb", "at_least": 3.6}, r"pesq_wb of 'gla' was not scored in run \(scored: estoi\): add it"),
        ({"metric": "estoi", "node": "glo", "at_least": 0.1}, "run has no scores of 'glo'; did you mean 'gla'"),
        (
            {"metric": "estoi", "not_worse_than": 0.1},
            "estoi of 'gla' was measured otherwise in the baseline old: other version",
        ),
        ({"quarantined_share": 0.1, "node": "mle"}, "run has no node 'mle'; did you mean 'mel'"),
    ],
)
def test_what_can_not_be_judged_is_refused(rule: dict[str, Any], message: str) -> None:
    run = numbers({"estoi": [0.5, 0.6]}, how={"estoi": {"version": 2}}, quarantined={"mel": frozenset()})
    baseline = numbers({"estoi": [0.5, 0.6]}, label="old", how={"estoi": {"version": 1}})
    with pytest.raises(NotComparable, match=f"gate.yaml:2: {message}"):
        judged(run, rule, baseline=baseline)


def test_another_node_of_the_baseline_is_named_or_nothing_is_compared() -> None:
    run, rule = numbers({"estoi": [0.5, 0.6]}), {"metric": "estoi", "not_worse_than": 0.1}
    baseline = numbers({"estoi": [0.5, 0.6]}, node="gla[n_iter=8]", label="old")
    with pytest.raises(NotComparable, match=r"old has no scores of 'gla', but of gla\[n_iter=8\]: name the node"):
        judged(run, rule, baseline=baseline)
    assert judged(run, rule, baseline=baseline, baseline_node="gla[n_iter=8]").passed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "a rule must have one limit, and this one limits nothing"),
        ({"metric": "estoi", "at_least": 1.0, "at_most": 1.0}, "limits at_least and at_most at once"),
        ({"at_least": 1.0}, "at_least limits a metric, and the rule names none"),
        ({"metric": "estoy", "at_least": 1.0}, "metric 'estoy' is none; did you mean 'estoi'"),
        ({"metric": "estoi", "disk": 1.0}, "metric has no use with disk"),
        ({"metric": "fad", "at_least": 1.0}, "metric 'fad' has one value for a whole set"),
        ({"metric": "estoi", "not_worse_than": -0.1}, "not_worse_than must not be negative, got -0.1"),
        ({"metric": "estoi", "at_least": math.nan}, "at_least must be a finite number"),
        ({"failed_share": 1.5}, "failed_share must be a share from 0 to 1, or 1 %, got 1.5"),
        ({"failed_share": "few"}, "failed_share must be a share such as 0.01 or 1 %, got 'few'"),
        ({"disk": "20 PB"}, "disk must be bytes, or a size such as 20 GB or 20 GiB, got '20 PB'"),
        ({"throughput": 0.0}, "throughput must be positive"),
        ({"disk": 1.0, "by": ("speaker",)}, "by can't group disk"),
        ({"disk": 1.0, "unsure": "trip"}, "unsure has no use with disk"),
        ({"metric": "estoi", "not_worse_than": 0.1, "unsure": "fail"}, "unsure must be one of pass, trip, got 'fail'"),
    ],
)
def test_rules_that_mean_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Rule(**fields)


@pytest.mark.parametrize(("text", "n_bytes"), [("20 GB", 20e9), ("2GiB", 2 * 2**30), ("512", 512), ("1.5 kB", 1500)])
def test_sizes_are_read(text: str, n_bytes: float) -> None:
    assert Rule(disk=text).limit == n_bytes
