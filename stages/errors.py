"""Errors that a stage raises: each names where, what, got and expected, and how to fix it."""

from __future__ import annotations


class StageError(ValueError):
    """A stage got parameters or inputs that it can't work with."""


class ParameterError(StageError):
    """One parameter is wrong; `field` names it so that a pipeline error can point at its line."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field


class ContractError(StageError):
    """What one node makes is not what the next one needs."""


class Unusable(StageError):
    """One utterance can't be processed; its message is the reason shown in quarantine."""


class FileChanged(StageError):
    """A file that a stage computes with is not the one that the run was planned with; no utterance is to blame."""


class DeviceMissing(StageError):
    """The device that a stage asks for is not in this process; no utterance is to blame."""


class CompilerFailed(StageError):
    """Torch's compiler can't make what a stage asks it for in this process; no utterance is to blame."""
