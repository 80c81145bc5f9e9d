"""Vocoders from files: a checkpoint, and what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.dsp.presets import preset
from melmill.stages.vocoders.checkpoint import read
from melmill.stages.vocoders.configuration import parse
from melmill.stages.vocoders.errors import VocoderError
from melmill.stages.vocoders.family import Checkpoint
from melmill.stages.vocoders.loaded import LoadedVocoder, load
from melmill.stages.vocoders.stats import read_stats
from melmill.storage.location import Location

# Looked for in this order, after files called like the checkpoint.
_CONFIGURATIONS = (
    "config.json",
    "config.yaml",
    "config.yml",
    "params.json",
    "hparams.json",
    "hparams.yaml",
    "args.yml",
)
_SUFFIXES = (".json", ".yaml", ".yml")
_STATS = ("stats.npy", "stats.h5")

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
    """Read a checkpoint with its configuration and its statistics.

    Parameters
    ----------
    path : str or path
        Of the weights, local or any URL that fsspec knows.
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
    checkpoint = read(name, read_file(folder, name))
    if config is None:
        settings = {**beside(folder, name), **checkpoint.config}
    else:
        settings = dict(config) if isinstance(config, Mapping) else _parsed(*split(config))
    stats = next((read_stats(found, folder.read(found)) for found in _STATS if folder.exists(found)), {})
    spec = preset(mel) if isinstance(mel, str) else mel
    return replace(checkpoint, config=settings, stats=stats, mel=spec)


def split(path: Where) -> tuple[Location, str]:
    """Return the folder and the name of a file."""
    folder, _, name = os.fspath(path).rstrip("/").rpartition("/")
    if not name:
        raise VocoderError(f"expected the file of a checkpoint, got {os.fspath(path)!r}")
    return Location(folder or ("/" if os.fspath(path).startswith("/") else ".")), name


def read_file(folder: Location, name: str) -> bytes:
    """Return the bytes of a file; raise VocoderError where there is none."""
    if name in folder.folders():
        found = ", ".join(sorted((folder / name).sizes())) or "no files"
        raise VocoderError(f"{folder.url}/{name} is a folder: name the weights in it (it holds {found})")
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise VocoderError(f"{folder.url}/{name} does not exist") from error


def _parsed(folder: Location, name: str) -> dict[str, Any]:
    return parse(name, read_file(folder, name))


def beside(folder: Location, name: str) -> dict[str, Any]:
    """Return the first configuration in the checkpoint's folder; empty where there is none."""
    stem = name.rpartition(".")[0] or name
    own = [f"{base}{suffix}" for base in dict.fromkeys((name, stem)) for suffix in _SUFFIXES]
    found = next((other for other in (*own, *_CONFIGURATIONS) if other != name and folder.exists(other)), None)
    return {} if found is None else _parsed(folder, found)
