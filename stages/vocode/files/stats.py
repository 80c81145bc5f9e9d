"""Mean and scale of a recipe's mels, as ParallelWaveGAN and ESPnet keep them."""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor

from melmill.stages.vocode.errors import VocoderError


def read_stats(name: str, data: bytes) -> dict[str, Tensor]:
    """Return ``mean`` and ``scale``, float32 ``(n_mels,)``.

    Parameters
    ----------
    name : str
        File name: ``.h5`` holds two arrays of these names, ``.npy`` one of shape ``(2, n_mels)``.
    data : bytes

    Raises
    ------
    VocoderError
        It is neither, or h5py is not installed.
    """
    try:
        mean, scale = _from_h5(data) if name.endswith(".h5") else np.load(io.BytesIO(data), allow_pickle=False)
    except ImportError as error:
        raise VocoderError(f"{name}: reading it takes h5py: pip install 'melmill[h5]'") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise VocoderError(
            f"{name}: expected a mean and a scale (.npy of shape (2, n_mels), or .h5 with both): {error}"
        ) from error
    return {"mean": _as_tensor(mean), "scale": _as_tensor(scale)}


def _from_h5(data: bytes) -> list[np.ndarray]:
    import h5py

    with h5py.File(io.BytesIO(data), "r") as file:
        return [np.asarray(file[name]) for name in ("mean", "scale")]


def _as_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
