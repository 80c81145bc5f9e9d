"""Who is to blame for an exception: the utterance that raised it, or the machine that worked on it.

This table is the only one. `docs/faults.md` describes it for users.
"""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from enum import IntEnum

from melmill.stages.errors import CompilerFailed, FileChanged, RecogniserFailed
from melmill.stages.numeric.errors import DeviceMissing, Unusable


class Blame(IntEnum):
    """Who is to blame, from the utterance alone to the machine alone."""

    UTTERANCE = 0
    """A stage refused the utterance on purpose."""
    LIKELY_UTTERANCE = 1
    """An exception that data usually cause. If all utterances raise it alike, they did not."""
    LIKELY_MACHINE = 2
    """An exception that machines usually cause. An utterance may, say by its length."""
    MACHINE = 3
    """An exception that no utterance can cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Say who is to blame for an exception, and what a person should look at.

    Parameters
    ----------
    blame : Blame
    remedy : str
        Continues a sentence in the imperative. Empty where the exception's own message says it.
    """

    blame: Blame
    remedy: str = ""


REFUSED = Verdict(blame=Blame.UTTERANCE)

_GPU = Verdict(blame=Blame.MACHINE, remedy="check the GPU and its driver (nvidia-smi), and start the worker again")
_MEMORY = Verdict(blame=Blame.LIKELY_MACHINE, remedy="give each worker more memory, or run fewer of them there")
_THREADS = Verdict(blame=Blame.MACHINE, remedy="raise the limits of threads and processes there (ulimit -u)")
_ROOM = Verdict(blame=Blame.MACHINE, remedy="free some room there, also in its scratch folder (TMPDIR)")
_FILES = Verdict(blame=Blame.MACHINE, remedy="raise the limit of open files there (ulimit -n)")
_DISK = Verdict(blame=Blame.MACHINE, remedy="check the disks there")
_RIGHTS = Verdict(blame=Blame.MACHINE, remedy="let this user read and write there, also in the scratch folder (TMPDIR)")
_NETWORK = Verdict(blame=Blame.MACHINE, remedy="check the network there, and the server that it asks")
_SERVER = Verdict(blame=Blame.LIKELY_MACHINE, remedy="check the network there, and the server that it asks")
_CHILD = Verdict(blame=Blame.LIKELY_MACHINE, remedy="check that the machine can start and keep child processes")
_MODULE = Verdict(blame=Blame.MACHINE, remedy="install there what the other machines have")
_NUMBA = Verdict(
    blame=Blame.MACHINE,
    remedy="set NUMBA_CACHE_DIR to a new folder that can be written to, and check numba and llvmlite there",
)
_COMPILER = Verdict(blame=Blame.MACHINE, remedy="check torch and its compiler there")
_OWN = Verdict(blame=Blame.MACHINE)

_ERRNOS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _ROOM),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _FILES),
    **dict.fromkeys((errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EREMOTEIO, errno.EBUSY), _DISK),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH), _NETWORK),
    **dict.fromkeys((errno.EAGAIN, errno.ECHILD, errno.ENOEXEC, errno.ETXTBSY), _THREADS),
    errno.ENOMEM: _MEMORY,
}

# What is wrong with one file, or with its name, where only it is read.
_OF_A_FILE = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
    }
)

# The first row that fits decides.
_TYPES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Verdict], ...] = (
    ((DeviceMissing, CompilerFailed, FileChanged, RecogniserFailed), _OWN),
    (MemoryError, _MEMORY),
    (ImportError, _MODULE),
    ((subprocess.SubprocessError, BrokenExecutor, ChildProcessError), _CHILD),
    ((ConnectionError, TimeoutError), _SERVER),
)

# Named, as importing these packages takes seconds. A name of a class, or all of a package.
_NAMES = {
    "torch.OutOfMemoryError": _MEMORY,
    "torch.AcceleratorError": _GPU,
    "torch._dynamo": _COMPILER,
    "torch._inductor": _COMPILER,
    "triton": _COMPILER,
    "numba": _NUMBA,
    "llvmlite": _NUMBA,
    **dict.fromkeys(("aiohttp", "botocore", "gcsfs", "httpcore", "httpx", "obstore", "requests", "urllib3"), _NETWORK),
}

# What libraries say that raise a plain RuntimeError or OSError.
_MESSAGES = tuple(
    (re.compile(pattern, re.IGNORECASE), verdict)
    for pattern, verdict in (
        (r"out of memory|can(no|')?t allocate memory|unable to allocate|DefaultCPUAllocator|bad_alloc", _MEMORY),
        (r"\b(CUDA|HIP|cuDNN|cuBLAS\w*|cuFFT|cuSPARSE|cuSOLVER|NCCL|NVRTC|NVML|MPS|XPU)\b.{0,40}\berror\b", _GPU),
        (r"\b(CUDNN|CUBLAS|CUSPARSE|CUSOLVER|NVRTC)_(STATUS|ERROR)_|\bCUFFT_|\bCUDA_ERROR_|\bcudaError", _GPU),
        (r"device-side assert|no kernel image is available|NVIDIA driver|CUDA driver|CUDA initialization", _GPU),
        (r"can'?t start new thread|Resource temporarily unavailable", _THREADS),
        (r"cannot open shared object file|cannot load library|undefined symbol|invalid ELF header", _MODULE),
        (r"DLL load failed|Library not loaded|GLIBC\w*_[\d.]+' not found", _MODULE),
        (r"cannot cache function|no locator available|\bLLVM\b.{0,40}\berror\b", _NUMBA),
        (r"No space left on device|Disk quota exceeded", _ROOM),
        (r"Too many open files", _FILES),
        (r"Read-only file system", _RIGHTS),
        (r"Input/output error|Stale file handle", _DISK),
    )
)


def blame(error: BaseException) -> Verdict:
    """Return who is to blame for an exception, by it and by those that it was raised from.

    >>> blame(ValueError("too short")).blame.name, blame(MemoryError()).blame.name
    ('LIKELY_UTTERANCE', 'LIKELY_MACHINE')
    """
    if isinstance(error, Unusable):
        return REFUSED
    return _alone(culprit(error))


def is_of_file(error: OSError) -> bool:
    """Tell whether a file can't be read for a reason of its own: it is gone, locked, or no file.

    Any other reason may pass, or holds for all files that this machine reads.

    >>> is_of_file(FileNotFoundError("a.wav")), is_of_file(OSError(errno.EIO, "Input/output error"))
    (True, False)
    """
    # File systems of other packages raise these without a number.
    own = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
    return error.errno in _OF_A_FILE or (error.errno is None and isinstance(error, own))


def culprit(error: BaseException) -> BaseException:
    """Return the one that decides, of an exception and those that it was raised from."""
    return max(_chain(error), key=lambda one: _alone(one).blame)


def headline(error: BaseException) -> str:
    """Return an exception in one line: its type, and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__


def _alone(error: BaseException) -> Verdict:
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return _ERRNOS[error.errno]
    for kinds, verdict in _TYPES:
        if isinstance(error, kinds):
            return verdict
    for kind in type(error).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        for prefix, verdict in _NAMES.items():
            if name == prefix or name.startswith(f"{prefix}."):
                return verdict
    if isinstance(error, RuntimeError | OSError | SystemError):
        text = str(error)
        for pattern, verdict in _MESSAGES:
            if pattern.search(text):
                return verdict
    return Verdict(blame=Blame.LIKELY_UTTERANCE)
