"""Errors of pipelines."""

from __future__ import annotations

from melmill.errors import Error


class PipelineError(Error, ValueError):
    """The pipeline is wrong. Nothing has run.

    Parameters
    ----------
    message : str
        What is wrong, what was got and expected, and how to fix it.
    where : str
        ``file:line`` that the message is about. Empty if it is about none.
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
