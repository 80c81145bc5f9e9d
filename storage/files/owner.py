"""Processes that hold something in a store, and whether they still run."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_PROC = Path("/proc")
# Fields of /proc/PID/stat after the name: the state, and when the process began.
_STATE, _BEGAN = 0, 19
_GONE = ("Z", "X")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process, told from every other.

    Parameters
    ----------
    host : str
        Name of its machine, for messages.
    machine : str
        Differs between machines, between boots of one, and between containers.
    pid : int
    began : str
        When the process began, as the kernel says it, so that another of the same number is not
        taken for it. Empty where the kernel does not say it.
    """

    host: str
    machine: str
    pid: int
    began: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        pid = os.getpid()
        return cls(host=platform.node(), machine=_machine(), pid=pid, began=_stat(pid)[1])

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Owner:
        """Return the owner that `as_dict` describes; raise TypeError for other fields."""
        return cls(**fields)

    def as_dict(self) -> dict[str, object]:
        """Return plain values, which JSON can hold."""
        return asdict(self)

    @property
    def runs(self) -> bool | None:
        """Whether it runs, or is stopped.

        None where nobody here can tell: it is of another machine, or the kernel hides the processes
        of other users (``hidepid``).
        """
        if self.machine != _machine():
            return None
        state, began = _stat(self.pid)
        if not state or state in _GONE:
            return False
        return began == self.began if began or not self.began else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@cache
def _machine() -> str:
    try:
        return f"{_BOOT.read_text().strip()} {_NAMESPACE.readlink()}"
    except OSError:
        return platform.node()


def _stat(pid: int) -> tuple[str, str]:
    """Return the state of a process and when it began, each empty where there is none to be seen."""
    try:
        # The name before may hold anything, brackets too.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[_STATE], fields[_BEGAN]
    except (OSError, IndexError):
        pass
    # There may be no /proc, or it may hide the processes of other users.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "", ""
    except PermissionError:
        pass
    return "R", ""
