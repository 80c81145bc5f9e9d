"""Find the weights that packages carry, and what tells them apart."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from melmill.stages.numeric.errors import StageError


def packaged(package: str, file: str) -> Path:
    """Return the path of a file in an installed package, which is not imported.

    Raises
    ------
    StageError
        The package is not installed, or lacks the file.
    """
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise StageError(f"package {package!r} is not installed, and {file} is in it: pip install {package}")
    for folder in folders:
        path = Path(folder) / file
        if path.is_file():
            return path
    raise StageError(f"package {package!r} at {folders[0]} lacks {file}: another version of it has that file")


@lru_cache(maxsize=32)
def digest_of(package: str, file: str) -> str:
    """Return the SHA-256 of a file in an installed package."""
    sha256 = hashlib.sha256()
    with packaged(package, file).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()
