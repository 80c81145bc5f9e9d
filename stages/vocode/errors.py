"""The error of everything that concerns a vocoder's files."""

from __future__ import annotations

from melmill.stages.numeric.errors import StageError


class VocoderError(StageError):
    """A checkpoint can't be read, or it does not fit its family or its configuration."""
