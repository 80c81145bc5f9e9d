"""The error of everything that has to do with a vocoder's files."""

from __future__ import annotations

from melmill.stages.numeric.errors import StageError


class VocoderError(StageError):
    """A checkpoint can't be read, or is not what its family or its configuration says."""
