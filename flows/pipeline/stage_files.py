"""Files that stages compute with: read when the graph is built, and again where a task runs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import cast

from melmill.stages.contract import FileStage, Processor, Stage, StageFile, StageFiles
from melmill.stages.errors import FileChanged
from melmill.storage.files.location import folder_and_name

# Role, URL and stamp of each file of a stage.
_Found = tuple[tuple[str, str, str], ...]

# Digests of what this process has read, so that a task does not read again what has the same stamps.
_DIGESTS: dict[_Found, str] = {}
_READING = threading.Lock()


def prepared(stage: Stage) -> Stage:
    """Return a stage that knows its files; one without files is itself.

    Raises
    ------
    StageError, StoreError
        A file is missing, can't be read, or is not what the stage needs.
    """
    if not isinstance(stage, FileStage):
        return stage
    found = _found(stage.files())
    files = _read(found)
    _DIGESTS[found] = _digest(files)
    return stage.prepared(files, _DIGESTS[found])


def ready(stage: Stage) -> Processor:
    """Return what processes a shard in this process.

    Raises
    ------
    FileChanged
        A file is gone or holds other bytes than when the run was planned.
    DeviceMissing
        This process lacks the device.
    """
    if not isinstance(stage, FileStage):
        return cast("Processor", stage)
    found = _found(stage.files())
    read = cache(partial(_planned, stage, found))
    # Threads of a worker begin with the same files at the same time: one reads them, the others find them read.
    with _READING:
        if _DIGESTS.get(found) != stage.digest:
            read()
            _DIGESTS[found] = stage.digest
        return stage.opened(read)


def _planned(stage: FileStage, found: _Found) -> StageFiles:
    """Read the files that a stage was prepared with; raise FileChanged where they are others."""
    files = _read(found)
    if _digest(files) != stage.digest:
        names = ", ".join(url for urls in stage.files().values() for url in urls)
        raise FileChanged(
            f"stage {stage.uses!r}: its files ({names}) changed after the run was planned: run again to plan with them"
        )
    return files


def _found(candidates: Mapping[str, Sequence[str]]) -> _Found:
    """Return the first file that exists of every role."""
    found = []
    for role, urls in candidates.items():
        for url in urls:
            folder, name = folder_and_name(url)
            stamp = folder.stamp(name) if name else None
            if stamp is not None:
                found.append((role, f"{folder.url}/{name}", stamp))
                break
    return tuple(found)


def _read(found: _Found) -> StageFiles:
    return {role: StageFile(url=url, data=_bytes(url)) for role, url, _ in found}


def _bytes(url: str) -> bytes:
    folder, name = folder_and_name(url)
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise FileChanged(f"{url} went away while it was read") from error


def _digest(files: StageFiles) -> str:
    """Return a SHA-256 over the roles and the bytes of files, wherever they lie."""
    facts = [f"{role} {hashlib.sha256(files[role].data).hexdigest()}" for role in sorted(files)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
