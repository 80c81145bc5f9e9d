"""Every number of a pipeline has a range, and a plan refuses what lies outside."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

import melmill
from melmill.cluster.contract import Pool
from melmill.flows.pipeline.convert import build, choices, field_types
from melmill.flows.pipeline.errors import PipelineError
from melmill.flows.pipeline.graph import build_graph
from melmill.flows.pipeline.located import Located
from melmill.flows.pipeline.spec import load
from melmill.stages.registry import stage_class, stage_names
from tests.flows.pipeline.test_spec import GOOD, written

# A seed is any whole number of 63 bits.
SEED = "seed"


def numbers(cls: type) -> list[str]:
    """Return the names of the fields that take numbers."""
    return [name for name, hint in field_types(cls).items() if {int, float} & set(choices(hint))]


def needed(cls: Any) -> dict[str, object]:
    """Return values for the fields without a default, and what else a stage can't be without."""
    missing = dataclasses.MISSING
    fields = [field for field in dataclasses.fields(cls) if field.init]
    required = {f.name: "x" for f in fields if f.default is missing and f.default_factory is missing}
    return {**required, **({"preset": "paper"} if cls.uses in ("mel_folder", "transcode") else {})}


FIELDS = [
    (uses, name)
    for uses in stage_names()
    for name in numbers(stage_class(uses))
    # the families of vocoders share theirs
    if name != SEED or uses in ("vocoder", "admm", "aggregate", "train_vocoder", "train_prior")
]


@pytest.mark.parametrize(("uses", "name"), FIELDS)
def test_a_number_outside_of_every_range_is_refused_at_its_line(uses: str, name: str) -> None:
    cls = stage_class(uses)
    fields = {other: Located(value, "p.yaml:1") for other, value in needed(cls).items()}
    build(cls, fields, uses, "p.yaml:1")
    possible = choices(field_types(cls)[name])
    for value in (-1e308, 1e308) if float in possible else (-(2**62), 2**62)[: 1 if name == SEED else 2]:
        with pytest.raises(PipelineError, match=rf"^p\.yaml:7: .*{name} .*got "):
            build(cls, {**fields, name: Located(value, "p.yaml:7")}, uses, "p.yaml:1")


def test_a_pool_has_a_range() -> None:
    for name, value in itertools.product(("workers", "threads"), (0, -1, 2**62)):
        with pytest.raises(melmill.ClusterError, match=name):
            Pool(**{name: value})  # type: ignore[arg-type]
    for amount in (0.0, -1.0, 1e308, float("nan")):
        with pytest.raises(melmill.ClusterError, match=r"resources must be positive and at most 1e\+09, got disk: "):
            Pool(resources={"disk": amount})


@pytest.mark.parametrize("number", ["9223372036854775808", "1" + "0" * 400, "1" + "0" * 5000, "1e400", ".inf", ".nan"])
@pytest.mark.parametrize("field", ["speech.sr", "mel.n_fft", "gla.seed", "gla.momentum", "shard_duration_s"])
def test_numbers_that_no_field_can_have_are_refused_in_a_line(tmp_path: Path, field: str, number: str) -> None:
    with pytest.raises(PipelineError) as caught:
        build_graph(load(written(tmp_path, GOOD), [f"{field}={number}"]))
    assert str(caught.value).startswith(f"--set {field}=")
    assert len(str(caught.value)) < 500


def test_a_fan_out_of_too_many_nodes_is_refused_before_it_is_built(tmp_path: Path) -> None:
    lists = [f"gla.{name}=[{','.join(str(i) for i in range(1, 1001))}]" for name in ("n_iter", "seed")]
    momenta = f"gla.momentum=[{','.join(str(i / 1000) for i in range(1000))}]"
    begin = time.perf_counter()
    with pytest.raises(PipelineError, match=r":6: the lists of 'gla' .* make 1,000,000,000 nodes of it, .* 10,000"):
        build_graph(load(written(tmp_path, GOOD), [*lists, momenta]))
    assert time.perf_counter() - begin < 5
    # nodes add up
    with pytest.raises(PipelineError, match="make 6,000 nodes of it"):
        build_graph(
            load(written(tmp_path, GOOD), [f"mel.n_mels=[{','.join(map(str, range(20, 80)))}]", *short_lists()])
        )
    assert len(build_graph(load(written(tmp_path, GOOD), short_lists()))) == 2 + 100 + 100


def short_lists() -> list[str]:
    pairs = itertools.product(["gla.n_iter", "gla.seed"], [range(1, 11)])
    return [f"{name}=[{','.join(map(str, values))}]" for name, values in pairs]


def test_python_refuses_what_a_pipeline_refuses() -> None:
    y = [0.0] * 4000
    for parameters in ({"n_iter": 10**400}, {"n_iter": 10**5000}, {"seed": 2**64}, {"rho": 10**400}, {"rho": 1e308}):
        with pytest.raises(melmill.ParameterError, match="must be"):
            melmill.invert(melmill.mel(y), method="admm", **parameters)
    for fields in ({"sr": 10**400}, {"n_fft": 2**40}, {"floor": 1e-300}, {"shift": 1e308}):
        with pytest.raises(melmill.ParameterError, match="must be"):
            melmill.MelSpec(**fields)
