"""Vocoders from files: a checkpoint, and what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from melmill.flows.tasks.trained import ROLES
from melmill.stages.contract import StageFile
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.family import Checkpoint
from melmill.stages.vocode.files.configuration import EXTRAS, assembled, configurations, parse
from melmill.stages.vocode.loaded import LoadedVocoder, load
from melmill.stages.vocode.shipped import located
from melmill.storage.files.location import Location, folder_and_name

Where = str | os.PathLike[str]


def load_vocoder(
    path: Where,
    family: str | None = None,
    config: Where | Mapping[str, Any] | None = None,
    mel: str | MelSpec | None = None,
    device: str = "cpu",
) -> LoadedVocoder:
    """Load a vocoder; see `melmill.load_vocoder`."""
    return load(read_files(path, config, mel), family, device)


def read_files(
    path: Where, config: Where | Mapping[str, Any] | None = None, mel: str | MelSpec | None = None
) -> Checkpoint:
    """Read a checkpoint with its configuration and what else belongs to it.

    Parameters
    ----------
    path : str or path
        Of the weights, or of the folder of a training's; local or any URL that fsspec knows.
    config : str, path, mapping or None
        The configuration or its file; None: what the weights themselves say, then what lies beside them.
    mel : str, MelSpec or None
        The mel that the vocoder needs, or its preset, above what the configuration says.

    Raises
    ------
    VocoderError
        There is no such file, or one can't be read.
    """
    folder, name = split(path)
    if (folder / name).exists(ROLES["weights"]):
        folder, name = folder / name, ROLES["weights"]
    found = None if config is not None else _found(folder, configurations(name))
    given = config if config is None or isinstance(config, Mapping) else _file(*split(config))
    spec = preset(mel) if isinstance(mel, str) else mel
    extras = {role: file for role, names in EXTRAS.items() if (file := _found(folder, names)) is not None}
    return assembled(_file(folder, name), given, found, spec, **extras)


def split(path: Where) -> tuple[Location, str]:
    """Return the folder and the name of a file."""
    folder, name = folder_and_name(located(os.fspath(path)))
    if not name:
        raise VocoderError(f"expected the file of a checkpoint, got {os.fspath(path)!r}")
    return folder, name


def read_file(folder: Location, name: str) -> bytes:
    """Return the bytes of a file; raise VocoderError where there is none."""
    if name in folder.folders():
        found = ", ".join(sorted((folder / name).sizes())) or "no files"
        raise VocoderError(f"{folder.url}/{name} is a folder: name the weights in it (it holds {found})")
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise VocoderError(f"{folder.url}/{name} does not exist") from error


def beside(folder: Location, name: str) -> dict[str, Any]:
    """Return the first configuration in the checkpoint's folder; empty where there is none."""
    file = _found(folder, configurations(name))
    return {} if file is None else parse(file.name, file.data)


def _found(folder: Location, names: Iterable[str]) -> StageFile | None:
    name = next((name for name in names if folder.exists(name)), None)
    return None if name is None else _file(folder, name)


def _file(folder: Location, name: str) -> StageFile:
    return StageFile(url=f"{folder.url}/{name}", data=read_file(folder, name))
