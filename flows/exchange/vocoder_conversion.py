"""Vocoder checkpoints that pickle a module, converted to plain tensors in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from melmill.flows.exchange.vocoder_files import Where, beside, read_file, split
from melmill.stages.vocode.errors import VocoderError


def convert(path: Where, out: Where) -> None:
    """Convert the checkpoint at `path`, trusted by the user, to a plain one at `out`.

    The pickle is read in a process that ends with it, so that nothing that it does can touch this one.

    Raises
    ------
    VocoderError
        It can't be read or holds no module.
    StoreError
        Something else is at `out`.
    """
    source, target = _whole(path), _whole(out)
    command = [sys.executable, "-m", "melmill.flows.exchange.vocoder_conversion", source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise VocoderError(last if done.returncode == 1 else f"{source}: the conversion ended early: {last}")


def _whole(path: Where) -> str:
    folder, name = split(path)
    return f"{folder.url}/{name}"


def convert_here(path: str, out: str) -> None:
    """Convert in this process."""
    import io

    import torch

    from melmill.stages.vocode.files.unpickling import plain

    folder, name = split(path)
    state, settings = plain(name, read_file(folder, name))
    content: dict[str, Any] = {"state_dict": state, "config": {**beside(folder, name), **settings}}
    data = io.BytesIO()
    torch.save(content, data)
    target, target_name = split(out)
    target.put(target_name, data.getvalue())


if __name__ == "__main__":
    try:
        convert_here(*sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
