"""Functions that numba compiles, and where their machine code is kept."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config
from numba.core.caching import FunctionCache


def kernels(*places: Path) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles the functions of modules in `places`, which are folders and files.

    They run without the GIL, and their machine code is kept on disk. The code is made again when the
    source of any of these modules changes. Numba alone would look at the function's own file, but
    not at what it calls. Where numba has no folder to write to, the code is kept in a temporary
    one. A cache that fails later, say on a full disk, costs a warning and time.
    """
    sources = sorted(path for place in places for path in (place.glob("*.py") if place.is_dir() else [place]))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return lambda function: _compiled(function, digest)


def _compiled(function: Callable[..., Any], digest: str) -> Any:  # noqa: ANN401 - a numba dispatcher
    function.__qualname__ = f"{function.__qualname__}_{digest}"
    dispatcher: Any = njit(nogil=True, error_model="numpy")(function)
    try:
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # numba found no folder that it can write to
        folder = _temporary_cache()
        if folder:
            # Numba looks at the setting now. Other packages' functions keep theirs.
            settings = vars(config)
            before, settings["CACHE_DIR"] = settings["CACHE_DIR"], folder
            try:
                dispatcher._cache = _Cache(function)
            finally:
                settings["CACHE_DIR"] = before
    return dispatcher


class _Cache(FunctionCache):
    """A function's code on disk. If it can't be read or written, the function is compiled.

    Numba's own raises then, in the middle of the computation that calls the function.
    """

    def load_overload(self, sig: object, target_context: object) -> object:
        """Return the code for a signature; None if there is none that can be used."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a damaged file raises anything
            _warn_of_cache(self.cache_path, error)
            return None

    def save_overload(self, sig: object, data: object) -> None:
        """Keep the code for a signature, if that can be done."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _warn_of_cache(self.cache_path, error)


_warned_of: set[str] = set()


def _warn_of_cache(folder: str, error: Exception) -> None:
    """Warn, once for each folder."""
    if folder in _warned_of:
        return
    _warned_of.add(folder)
    warnings.warn(
        f"compiled code can't be kept in or taken from {folder} ({type(error).__name__}: {error}), so melmill "
        "compiles it again: remove the folder, or set NUMBA_CACHE_DIR to one that can be written to",
        RuntimeWarning,
        stacklevel=3,
    )


@cache
def _temporary_cache() -> str:
    """Return the user's own cache in the temporary folder, which all processes share; warn.

    Empty: there is none, and every process compiles for itself. Numba runs what it finds in a cache,
    so nobody else may be able to write there.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"melmill-numba-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        found = str(folder) if is_own and os.access(folder, os.W_OK | os.X_OK) else ""
    except OSError:
        found = ""
    what = f"keeps compiled code in {found}" if found else "compiles its code in every process"
    warnings.warn(
        f"numba has no folder where it may keep compiled code, so melmill {what}: "
        "set NUMBA_CACHE_DIR to a folder that can be written to",
        RuntimeWarning,
        stacklevel=2,
    )
    return found
