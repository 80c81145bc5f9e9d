"""One root for every error that melmill raises on purpose."""

from __future__ import annotations

import ast
import importlib
import pickle
import sys
from pathlib import Path

import pytest

import melmill
from melmill.flows import cli
from melmill.flows.cli import group

ROOT = Path(__file__).parents[1]
PUBLIC = sorted(name for name in melmill.__all__ if isinstance(getattr(melmill, name), type))
RAISED = [name for name in PUBLIC if issubclass(getattr(melmill, name), BaseException)]
ERRORS = [name for name in RAISED if not issubclass(getattr(melmill, name), Warning)]


# Raised to unwind a task that nobody waits for; the process that raised it catches it.
SIGNALS = {"TaskCancelled"}


def classes(pattern: str) -> list[tuple[str, ast.ClassDef]]:
    """Return every class of the modules that match `pattern`, with the name of its module."""
    return [
        ("melmill." + ".".join(path.relative_to(ROOT).with_suffix("").parts), node)
        for layer in ("cluster", "flows", "stages", "storage")
        for path in sorted((ROOT / layer).rglob(pattern))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    ]


def exception_classes() -> list[tuple[str, str]]:
    """Return module and name of every error and warning that stands in a module called errors."""
    return [(module, node.name) for module, node in classes("errors.py")]


def test_there_are_errors_in_every_layer() -> None:
    layers = {module.split(".")[1] for module, _ in exception_classes()}
    assert layers == {"cluster", "flows", "stages", "storage"}


@pytest.mark.parametrize(("module", "name"), exception_classes())
def test_every_public_error_is_exported_and_has_the_root(module: str, name: str) -> None:
    error = getattr(importlib.import_module(module), name)
    assert issubclass(error, melmill.Error | Warning)
    assert getattr(melmill, name) is error
    assert name in RAISED


def test_every_warning_stands_where_it_is_exported() -> None:
    found = [(module, node.name) for module, node in classes("*.py") if node.name.endswith("Warning")]
    assert {name for _, name in found} == {name for name in RAISED if name not in ERRORS}
    assert {module.rpartition(".")[2] for module, _ in found} == {"errors"}


def test_no_public_error_has_another_root() -> None:
    builtin = {"Exception", "ValueError", "RuntimeError", "OSError", "TypeError", "KeyError", "LookupError"}
    for module, node in classes("*.py"):
        bases = {ast.unparse(base) for base in node.bases}
        if bases & builtin and not node.name.startswith("_") and node.name not in SIGNALS:
            assert "Error" in bases, f"{module}.{node.name} derives from {bases} without melmill.Error"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (melmill.Error("no such thing"), group.BAD_USAGE),
        (melmill.StoreFull("no room"), group.BAD_USAGE),
        (melmill.RunFailed("a shard failed"), group.FAILED),
    ],
)
def test_the_command_line_prints_any_error_in_one_line(
    error: melmill.Error, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["melmill"])
    monkeypatch.setattr(group.cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == status
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_parameter_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(melmill.ParameterError("rho", "must be positive, got -1")))
    assert (error.field, str(error)) == ("rho", "rho must be positive, got -1")
