"""The error of a cluster that can't be had as declared."""

from __future__ import annotations


class ClusterError(ValueError):
    """A cluster can't be had as declared.

    Parameters
    ----------
    message : str
        Where, what, got, expected and how to fix it.
    field : str or None
        The field of the block that is to blame, so that a pipeline's error can point at its line.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field
