"""Errors of a pipeline as a whole, each of one clear line."""

from __future__ import annotations

from melmill.errors import Error


class PipelineError(Error, ValueError):
    """The pipeline is wrong; nothing has run.

    Parameters
    ----------
    message : str
        What is wrong, got, expected and how to fix it.
    where : str
        ``file:line`` that the message is about, empty where it is about none.
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)


class RunFailed(Error):
    """The run ended early: nothing that was computed is lost, running again goes on."""
