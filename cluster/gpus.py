"""One GPU a worker, where a machine has several."""

from __future__ import annotations

import os

GPU_POOL = "gpu"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_environment(pool: str, index: int) -> dict[str, str]:
    """Return the environment by which a worker of the pool `gpu` sees one GPU of those that this process may see.

    Where there are fewer GPUs than workers, the last ones see none, and what needs one there says so.
    """
    if pool != GPU_POOL:
        return {}
    given = os.environ.get(_VISIBLE)
    if given is None:
        return {_VISIBLE: str(index)}
    visible = [name for name in given.split(",") if name]
    return {_VISIBLE: visible[index] if index < len(visible) else ""}
