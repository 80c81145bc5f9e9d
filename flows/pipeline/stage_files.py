"""Read the files that stages compute with, for the graph and again where a task runs."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import cast

from melmill.stages.contract import FileStage, Processor, Stage, StageFile, StageFiles
from melmill.stages.errors import FileChanged
from melmill.storage.files.location import folder_and_name

# Role, URL and stamp of each file of a stage. A stamp changes whenever the file does.
_Stamped = tuple[tuple[str, str, str], ...]

# Digests of the files that this process has read. Files with the same stamps are not read again.
_DIGESTS: dict[_Stamped, str] = {}
_READING = threading.Lock()


def prepared(stage: Stage) -> Stage:
    """Return a stage that knows its files. A stage without files is returned as it is.

    Raises
    ------
    StageError, StoreError
        A file is missing, can't be read or is not what the stage needs.
    """
    if not isinstance(stage, FileStage) or not stage.files():
        return stage
    stamped = _stamped(stage.files())
    files = _read(stamped)
    _DIGESTS[stamped] = _digest(files)
    return stage.prepared(files, _DIGESTS[stamped])


def ready(stage: Stage) -> Processor:
    """Return the object that processes a shard in this process.

    Raises
    ------
    FileChanged
        A file is gone, or holds other bytes than when the run was planned.
    DeviceMissing
        This process lacks the device.
    """
    if not isinstance(stage, FileStage) or not stage.files():
        return cast("Processor", stage)
    stamped = _stamped(stage.files())
    read = cache(partial(_planned, stage, stamped))
    # Threads of a worker start with the same files at once: one reads them, the others wait.
    with _READING:
        if _DIGESTS.get(stamped) != stage.digest:
            read()
            _DIGESTS[stamped] = stage.digest
        return stage.opened(read)


def _planned(stage: FileStage, stamped: _Stamped) -> StageFiles:
    """Return the files that a stage was prepared with; raise FileChanged if they have changed."""
    files = _read(stamped)
    if _digest(files) != stage.digest:
        names = ", ".join(url for urls in stage.files().values() for url in urls)
        raise FileChanged(
            f"stage {stage.uses!r}: its files ({names}) changed after the run was planned: run again to plan with them"
        )
    return files


def _stamped(candidates: Mapping[str, Sequence[str]]) -> _Stamped:
    """Return, for each role, the first file that exists."""
    files = []
    for role, urls in candidates.items():
        for url in urls:
            folder, name = folder_and_name(url)
            stamp = folder.stamp(name) if name else None
            if stamp is not None:
                files.append((role, f"{folder.url}/{name}", stamp))
                break
    return tuple(files)


def _read(stamped: _Stamped) -> StageFiles:
    return {role: StageFile(url=url, data=_bytes(url)) for role, url, _ in stamped}


def _bytes(url: str) -> bytes:
    folder, name = folder_and_name(url)
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise FileChanged(f"{url} was removed while it was read: put it back and run again") from error


def _digest(files: StageFiles) -> str:
    """Return a SHA-256 of the roles and bytes of files. Where they lie does not matter."""
    facts = [f"{role} {hashlib.sha256(files[role].data).hexdigest()}" for role in sorted(files)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
