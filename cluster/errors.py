"""The error of a cluster that can't be had as declared.

- Packages that only some types of cluster need.
"""

from __future__ import annotations

from importlib.util import find_spec

from melmill.errors import Error


class ClusterError(Error, ValueError):
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


_MODULES = {
    "ssh": ("asyncssh", "cryptography"),
    "slurm": ("dask_jobqueue", "cryptography"),
    "kubernetes": ("kr8s", "cryptography"),
    "tls": ("cryptography",),
}


def require_extra(extra: str, what: str) -> None:
    """Raise ClusterError, saying how to install it, where a package of an optional extra is missing."""
    missing = [module for module in _MODULES.get(extra, ()) if find_spec(module) is None]
    if missing:
        package = missing[0].replace("_", "-")
        raise ClusterError(f"{what} needs the package {package!r}, which is not here: pip install 'melmill[{extra}]'")
