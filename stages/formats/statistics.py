"""Files in which recipes keep the mean and the standard deviation of each band of their mels."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.formats.npy import decode_npy
from melmill.stages.numeric.errors import Unusable

Numbers = NDArray[np.float64]

# What files call the two. Whether a scale is divided by or multiplied with follows from its name.
_MEANS = ("mel_mean", "mean", "mean_")
_DEVIATIONS = ("mel_std", "std", "scale", "scale_", "stddev")
_BOUNDS = (("spec_min", "spec_max"), ("mel_min", "mel_max"), ("min", "max"))
_SUMS = ("count", "sum", "sum_square")
_EXPECTED = (
    "expected a mean and a deviation of each band: .npy of shape (2, n_mels), .h5, .npz, .json, a pickled mapping in "
    ".npy (mel_mean and mel_std), or a tensor (n_mels,) of deviations in .pth"
)
# The least variance that ESPnet divides by the root of.
_LEAST_VARIANCE = 1e-20
# What an array of numbers takes to unpickle, under NumPy's old and new names.
_PICKLED = {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
}


def read_statistics(name: str, data: bytes) -> tuple[Numbers | None, Numbers | None]:
    """Return mean and standard deviation ``(n_mels,)`` by which a recipe normalises each band.

    These files are known: ParallelWaveGAN's, PaddleSpeech's and TensorFlowTTS's ``stats.npy`` of
    shape ``(2, n_mels)``, and ``stats.h5``; ESPnet's ``feats_stats.npz`` of sums; fairseq's
    ``gcmvn_stats.npz``; Mozilla's and Coqui's ``scale_stats.npy``, which pickles a mapping; Tortoise's
    and XTTS's ``mel_norms.pth``, deviations alone. A ``.json`` or ``.npz`` with ``mean`` and
    ``std``, or with ``spec_min`` and ``spec_max``, is taken too.

    Parameters
    ----------
    name : str
        File name; its suffix says the format.
    data : bytes
        Classes that a pickle names are not made.

    Returns
    -------
    mean, std : ndarray of float64, shape (n_mels,), or None
        None: 0, and 1. Of bounds they are those that scale from -1 to 1.

    Raises
    ------
    Unusable
        It is no such file.
    """
    try:
        found = _arrays(name, data)
    except ImportError as error:
        raise Unusable(f"reading it takes {error.name}: pip install it, or save the numbers as .npy") from error
    # Damaged files raise anything in these readers.
    except (
        Unusable,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        pickle.PickleError,
    ) as error:
        raise Unusable(f"{_EXPECTED}; {error}") from error
    except zipfile.BadZipFile as error:
        raise Unusable(f"{_EXPECTED}; {error}") from error
    return _mean_and_deviation(found)


def _arrays(name: str, data: bytes) -> Mapping[str, Any]:
    """Return what a file holds by name."""
    suffix = name.rpartition(".")[2].lower()
    if suffix in ("h5", "hdf5"):
        import h5py  # here, as it is an extra

        with h5py.File(io.BytesIO(data), "r") as file:
            return {key: np.asarray(value) for key, value in file.items() if isinstance(value, h5py.Dataset)}
    if suffix == "npz":
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    if suffix == "json":
        return _mapping(json.loads(data))
    if suffix in ("pt", "pth", "bin"):
        import torch  # here, as it is heavy

        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return {"std": loaded.numpy()} if isinstance(loaded, torch.Tensor) else _mapping(loaded)
    if suffix != "npy":
        raise Unusable(f"its suffix is .{suffix}")
    return _of_npy(data)


def _of_npy(data: bytes) -> Mapping[str, Any]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0) and np.lib.format.read_array_header_1_0(file)[2].hasobject:
        pickled = _Unpickler(file).load()
        return _mapping(pickled.item() if isinstance(pickled, np.ndarray) and pickled.ndim == 0 else pickled)
    values = decode_npy(data)
    if values.ndim != 2 or len(values) != 2:
        raise Unusable(f"its shape is {values.shape!r}")
    return {"mean": values[0], "std": values[1]}


def _mapping(loaded: Any) -> Mapping[str, Any]:  # noqa: ANN401 - whatever a file holds
    if not isinstance(loaded, Mapping):
        raise Unusable(f"it holds a {type(loaded).__name__}")
    return loaded


class _Inert:
    """Stand for an object whose class is not looked up."""

    def __new__(cls, *arguments: object, **named: object) -> _Inert:
        """Take any arguments and ignore them."""
        return super().__new__(cls)

    def __init__(self, *arguments: object, **named: object) -> None:
        """Do nothing."""

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore an entry."""


class _Unpickler(pickle.Unpickler):
    """Make arrays of numbers and plain containers, and an `_Inert` for all else that a file names."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - classes and functions
        if (module, name) in _PICKLED:
            return super().find_class(module, name)
        return type(name, (_Inert,), {"__module__": module})


def _mean_and_deviation(found: Mapping[str, Any]) -> tuple[Numbers | None, Numbers | None]:
    if all(key in found for key in _SUMS):
        count, total, squares = (np.asarray(found[key], dtype=np.float64) for key in _SUMS)
        mean = np.atleast_1d(total / count)
        return mean, np.sqrt(np.maximum(squares / count - mean * mean, _LEAST_VARIANCE))
    for lowest, highest in _BOUNDS:
        if lowest in found and highest in found:
            low, high = _numbers(found[lowest], lowest), _numbers(found[highest], highest)
            return (low + high) / 2.0, (high - low) / 2.0
    means, deviations = ([key for key in keys if key in found] for keys in (_MEANS, _DEVIATIONS))
    if not means and not deviations:
        held = ", ".join(map(repr, list(found)[:5])) or "nothing"
        raise Unusable(f"{_EXPECTED}; it holds {held}")
    return (
        _numbers(found[means[0]], means[0]) if means else None,
        _numbers(found[deviations[0]], deviations[0]) if deviations else None,
    )


def _numbers(values: Any, key: str) -> Numbers:  # noqa: ANN401 - whatever a file holds
    try:
        array = np.asarray(values.tolist() if hasattr(values, "tolist") else values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise Unusable(f"{_EXPECTED}; {key!r} holds no numbers") from error
    if not np.isfinite(array).all():
        raise Unusable(f"{int((~np.isfinite(array)).sum())} numbers of {key!r} are not finite")
    return array
