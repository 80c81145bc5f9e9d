"""Packages that only some types of cluster need."""

from __future__ import annotations

from importlib.util import find_spec

from melmill.cluster.errors import ClusterError

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
