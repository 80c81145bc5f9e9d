"""Errors that numerical code raises, the root of those that stages raise, and its warnings."""

from __future__ import annotations

from melmill.errors import Error


class StageError(Error, ValueError):
    """A stage can't work with its parameters or inputs."""


class ParameterError(StageError):
    """One parameter is wrong.

    Parameters
    ----------
    field : str
        The parameter's name. An error of a pipeline points at its line.
    message : str
        Continues a sentence that starts with the name: ``"must be at least 1, got 0"``.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)  # both, so that the error can be pickled
        self.field = field

    def __str__(self) -> str:
        return " ".join(self.args)


class ContractError(StageError):
    """One node makes something else than the next one needs."""


class Unusable(StageError):
    """One utterance can't be processed. Its quarantine row shows the message as the reason."""


class DeviceMissing(StageError):
    """The process lacks the device that a stage asks for. No utterance is to blame."""


class EmptyBandWarning(UserWarning):
    """A mel band lies between two FFT bins: it is 0 in every frame of every mel."""


class MelRangeWarning(UserWarning):
    """A mel was probably made otherwise than by the spec that it is read by."""
