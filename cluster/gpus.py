"""One GPU a worker, where a machine has several."""

from __future__ import annotations

GPU_POOL = "gpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_environment(pool: str, index: int, visible: str | None = None) -> dict[str, str]:
    """Return the environment by which a worker of the pool `gpu` sees one GPU of its machine; others see all.

    Parameters
    ----------
    pool : str
    index : int
        Of the worker among those of the pool on that machine. Where there are fewer GPUs, the last see none, and
        what needs one there says so.
    visible : str or None
        GPUs that may be seen there at all, as the variable itself names them; None: every one.
    """
    if pool != GPU_POOL:
        return {}
    if visible is None:
        return {VISIBLE: str(index)}
    names = [name for name in visible.split(",") if name]
    return {VISIBLE: names[index] if index < len(names) else ""}
