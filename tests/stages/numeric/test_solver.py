"""Solvers describe themselves, and are found by name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest

import melmill
from melmill.stages.invert.stages import inverter_stage
from melmill.stages.numeric import solver as module
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.solver import Solver, solver_class, solver_names
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.auto import Auto
from melmill.stages.numeric.solvers.pghi import Pghi
from melmill.stages.registry import stage_class, stage_names

NAMES = ["admm", "admm_gla", "auto", "griffin_lim", "ipalm", "pghi", "raar"]


@dataclass(frozen=True, kw_only=True)
class Plain(Solver):
    """Iterate as Griffin-Lim does, on the CPU alone."""

    name = "plain"
    version = 2
    compiled = "melmill.stages.numeric.compiled.griffin_lim"

    momentum: float = 0.0


def test_all_solvers_are_found() -> None:
    assert solver_names() == NAMES
    assert set(stage_names()) >= {"invert", *NAMES} - {"auto"}
    assert "auto" not in stage_names()


@pytest.mark.parametrize("name", NAMES)
def test_a_solver_has_a_module_for_each_engine(name: str) -> None:
    solver, n_iter = solver_class(name)().resolved(None)
    if solver is None:
        assert n_iter == 0
        return
    assert n_iter > 0
    assert solver.batched is not None
    for form, functions in ((solver.compiled, ("begin", "run")), (solver.batched, ("begin", "step"))):
        made = importlib.import_module(form)
        assert all(callable(getattr(made, function)) for function in functions)


def test_the_user_chooses_the_iterations() -> None:
    assert Admm().resolved(7) == (Admm(), 7)
    assert Auto(quality="best").resolved(7)[1] == 7
    assert Auto(quality="best").resolved(None)[1] == 200
    assert Pghi().resolved(7) == (None, 0)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install `Plain` as another package would, under its name and under another."""
    entries = {name: EntryPoint(name=name, group=module.GROUP, value="its:Plain") for name in ("plain", "misnamed")}
    monkeypatch.setattr(EntryPoint, "load", lambda self: Plain)
    monkeypatch.setattr(module, "_installed", lambda: entries)
    inverter_stage.cache_clear()
    yield
    inverter_stage.cache_clear()


@pytest.mark.usefixtures("plugin")
def test_a_solver_of_another_package_is_a_method_and_a_stage() -> None:
    M = np.abs(np.random.default_rng(0).standard_normal((80, 9))).astype(np.float32)
    mine, theirs = (melmill.invert(M, method=method, n_iter=2) for method in ("plain", "griffin_lim"))
    assert mine.tobytes() == theirs.tobytes()
    stage = stage_class("plain")
    assert stage.version == stage_class("griffin_lim").version + 2
    assert stage().identity() == stage_class("griffin_lim")().identity()


@pytest.mark.usefixtures("plugin")
def test_a_solver_without_a_form_for_a_gpu_says_so() -> None:
    stage: Any = stage_class("plain")
    with pytest.raises(ParameterError, match="device must be 'cpu', got 'cuda': 'plain' has no form for a GPU"):
        stage(device="cuda")


@pytest.mark.usefixtures("plugin")
def test_an_entry_point_must_be_a_solver_of_its_name() -> None:
    with pytest.raises(ParameterError, match=r"'misnamed' is registered as .*Plain.*: expected a Solver of that name"):
        solver_class("misnamed")


def test_an_unknown_solver_has_a_near_one() -> None:
    with pytest.raises(ParameterError, match=r"method must be one of admm, .*, got 'rar'; did you mean 'raar'"):
        solver_class("rar")
