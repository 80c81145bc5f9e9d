"""Checkpoints of vocoders: load one with its companion files, or convert one that pickles a module.

``python -m`` of this module is the process that reads the pickle.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from melmill.stages.contract import StageFile, StageFiles, TrainedVocoder
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.companions import CONFIG, FOUND_CONFIG, WEIGHTS, candidates, parse
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
    trained = TrainedVocoder.files[WEIGHTS]
    if (folder / name).exists(trained):
        weights = f"{folder.url}/{name}/{trained}"
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
        There is no file of a role that must have one, or it is a folder.
    """
    files = {}
    for role, paths in candidates.items():
        for folder, name in map(split, paths):
            if role not in (WEIGHTS, CONFIG) and not folder.exists(name):
                continue
            url = f"{folder.url}/{name}"
            if name in folder.folders():
                inside = ", ".join(sorted((folder / name).sizes())) or "no files"
                raise VocoderError(f"{url} is a folder: name the weights in it (it holds {inside})")
            try:
                files[role] = StageFile(url=url, data=folder.read(name))
            except FileNotFoundError as error:
                raise VocoderError(f"{url} does not exist: check its name") from error
            break
    return files


def split(path: PathOrUrl) -> tuple[Location, str]:
    """Return the folder and the name of a file; raise VocoderError where the path names none."""
    folder, name = folder_and_name(located(os.fspath(path)))
    if not name:
        raise VocoderError(f"expected the file of a checkpoint, got {os.fspath(path)!r}: name the weights in it")
    return folder, name


def convert(path: PathOrUrl, out: PathOrUrl) -> None:
    """Convert the checkpoint at `path`, which the user trusts, to a plain one at `out`.

    A process of its own reads the pickle, so that nothing in the pickle can touch this process.

    Raises
    ------
    VocoderError
        The checkpoint can't be read or holds no module.
    StoreError
        Something else is at `out`.
    """
    source, target = (f"{folder.url}/{name}" for folder, name in map(split, (path, out)))
    command = [sys.executable, "-m", "melmill.flows.exchange.vocoder_files", source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise VocoderError(last if done.returncode == 1 else f"{source}: the conversion ended early: {last}")


def convert_here(path: str, out: str) -> None:
    """Convert in this process; see `convert`."""
    import torch  # here, as it is slow to import

    from melmill.stages.vocode.files.unpickling import plain

    files = read_first(candidates(path))
    state, settings = plain(files[WEIGHTS].name, files[WEIGHTS].data)
    companion = files.get(FOUND_CONFIG)
    config = {} if companion is None else parse(companion.name, companion.data)
    content: dict[str, Any] = {"state_dict": state, "config": {**config, **settings}}
    data = io.BytesIO()
    torch.save(content, data)
    folder, name = split(out)
    folder.put(name, data.getvalue())


if __name__ == "__main__":
    try:
        convert_here(*sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
