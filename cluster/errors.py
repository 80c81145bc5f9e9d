"""The error of a cluster that can't be started or reached."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from melmill.errors import Error


class ClusterError(Error, ValueError):
    """A cluster can't be started or reached as declared.

    Parameters
    ----------
    message : str
        Where, what, got, expected and how to fix it.
    field : str or None
        The field of the block that is to blame. An error of a pipeline points at its line.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def require_packages(modules: Iterable[str], requirement: str, owner: str) -> None:
    """Raise ClusterError, naming `requirement` to install, if a module of `owner` is missing."""
    for module in modules:
        if find_spec(module) is None:
            package = module.replace("_", "-")
            raise ClusterError(
                f"{owner} needs the package {package!r}, which is not installed: pip install {requirement!r}"
            )
