"""Vocoders from files: a checkpoint, and what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from melmill.stages.contract import StageFile, StageFiles
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.companions import CONFIG, TRAINED_FILES, WEIGHTS, candidates
from melmill.stages.vocode.shipped import located
from melmill.storage.files.location import Location, folder_and_name

if TYPE_CHECKING:
    from melmill.stages.vocode.loaded import LoadedVocoder

PathOrUrl = str | os.PathLike[str]


def load_vocoder(
    path: PathOrUrl,
    family: str | None = None,
    config: PathOrUrl | Mapping[str, Any] | None = None,
    mel: str | MelSpec | None = None,
    device: str = "cpu",
) -> LoadedVocoder:
    """Load a vocoder; see `melmill.load_vocoder`."""
    from melmill.stages.vocode.files.checkpoint import read_files  # here, as they import torch
    from melmill.stages.vocode.loaded import load

    weights = os.fspath(path)
    folder, name = split(weights)
    if (folder / name).exists(TRAINED_FILES[WEIGHTS]):
        weights = f"{folder.url}/{name}/{TRAINED_FILES[WEIGHTS]}"
    spec = preset(mel) if isinstance(mel, str) else mel
    if isinstance(config, Mapping):
        places, given = candidates(located(weights)), config
    else:
        places, given = candidates(located(weights), None if config is None else os.fspath(config)), None
    return load(read_files(read_first(places), spec, given), family, device)


def read_first(candidates: Mapping[str, Sequence[str]]) -> StageFiles:
    """Read the first file that exists of every role.

    Parameters
    ----------
    candidates : mapping of str to sequence of str
        Paths or URLs by role. The weights, and a configuration that was asked for, must exist.

    Raises
    ------
    VocoderError
        There is no file of a role that must have one.
    """
    files = {}
    for role, paths in candidates.items():
        for path in paths:
            folder, name = split(path)
            if role in (WEIGHTS, CONFIG) or folder.exists(name):
                files[role] = StageFile(url=f"{folder.url}/{name}", data=_read(folder, name))
                break
    return files


def split(path: PathOrUrl) -> tuple[Location, str]:
    """Return the folder and the name of a file; raise VocoderError where the path names none."""
    folder, name = folder_and_name(located(os.fspath(path)))
    if not name:
        raise VocoderError(f"expected the file of a checkpoint, got {os.fspath(path)!r}: name the weights in it")
    return folder, name


def _read(folder: Location, name: str) -> bytes:
    if name in folder.folders():
        files = ", ".join(sorted((folder / name).sizes())) or "no files"
        raise VocoderError(f"{folder.url}/{name} is a folder: name the weights in it (it holds {files})")
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise VocoderError(f"{folder.url}/{name} does not exist: check its name") from error
