"""Convert vocoder checkpoints that pickle a module to plain tensors, in a process of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

from melmill.flows.exchange.vocoder_files import PathOrUrl, read_first, split
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.files.companions import FOUND_CONFIG, WEIGHTS, candidates, parse


def convert(path: PathOrUrl, out: PathOrUrl) -> None:
    """Convert the checkpoint at `path`, which the user trusts, to a plain one at `out`.

    A process that ends afterwards reads the pickle, so that nothing in the pickle can touch this process.

    Raises
    ------
    VocoderError
        The checkpoint can't be read or holds no module.
    StoreError
        Something else is at `out`.
    """
    source, target = _url(path), _url(out)
    command = [sys.executable, "-m", "melmill.flows.exchange.vocoder_conversion", source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise VocoderError(last if done.returncode == 1 else f"{source}: the conversion ended early: {last}")


def _url(path: PathOrUrl) -> str:
    folder, name = split(path)
    return f"{folder.url}/{name}"


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
