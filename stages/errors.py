"""Errors that stages raise; `melmill.stages.numeric.errors` has those of numerical code."""

from __future__ import annotations

from melmill.stages.numeric.errors import StageError


class FileChanged(StageError):
    """A file that a stage computes with has changed since the plan. No utterance is to blame."""


class CompilerFailed(StageError):
    """Torch's compiler fails in this process. No utterance is to blame."""


class RecogniserFailed(StageError):
    """The command that hears words for word errors fails here. No utterance is to blame."""


class PackageMissing(StageError, ImportError):
    """The process lacks an optional package that a file takes. No utterance is to blame."""


class CorpusUnreadable(StageError):
    """A machine can't read files of a corpus. No file is to blame."""


class UnknownStage(StageError):
    """No stage is registered under a name."""


class NotComparable(StageError):
    """Two runs, or a run and the rules of a gate, can't be compared as they were asked to be."""
