"""What lies beside a checkpoint: its configuration, and files that its recipe left there.

A stage, `melmill.load_vocoder` and a training name these files in the same way, by `candidates`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from melmill.stages.formats.npy import decode_npy
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.schedule import checked_betas

# The files of a vocoder by role. Keys of products depend on the names of the roles: they stay as
# they are.
WEIGHTS = "weights"
CONFIG = "config"  # the configuration that was asked for
FOUND_CONFIG = "beside"  # one that was found in the folder of the weights
STATS = "stats"  # what a recipe normalised its mels by
SCHEDULE = "schedule"  # the noise schedule that was chosen for a WaveGrad

# The section in which a training writes the whole mel, for which the official settings have no
# words.
OWN = "melmill"

# Names in the folder of the weights, the likeliest first. Names like the checkpoint's own go before
# the configurations.
_NAMES: Mapping[str, Sequence[str]] = {STATS: ("stats.npy", "stats.h5"), SCHEDULE: ("noise_schedule.npy",)}
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

# YAML 1.1 wants a dot in a float, but upstream files write 1e-4 and mean the number.
_FLOAT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _PlainLoader(yaml.SafeLoader):
    """Read any tag as the plain mapping, list or scalar under it.

    Nothing that a file names is made.
    """


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:  # noqa: ANN401 - YAML may hold anything
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_PlainLoader.add_multi_constructor("", _plain)
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def parse(name: str, data: bytes | str) -> dict[str, Any]:
    r"""Return the mapping that a JSON or YAML file holds.

    YAML documents of one file are merged in order.

    Parameters
    ----------
    name : str
        File name, for messages; ``.json`` is read as JSON, all else as YAML.
    data : bytes or str

    Raises
    ------
    VocoderError
        It is neither, or not a mapping.

    >>> parse("args.yml", "!!python/object:argparse.Namespace\nngf: 32\nlr: 1e-4")
    {'ngf': 32, 'lr': 0.0001}
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        documents = [json.loads(text)] if name.endswith(".json") else list(yaml.load_all(text, Loader=_PlainLoader))
    # A value of a wrong form raises anything in PyYAML: `!!bool x` a KeyError, `!!timestamp x` an AttributeError.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise VocoderError(
            f"{name}: can't be read as {'JSON' if name.endswith('.json') else 'YAML'}: {problem}"
        ) from error
    merged: dict[str, Any] = {}
    for document in documents:
        if not isinstance(document, Mapping):
            raise VocoderError(f"{name}: expected a mapping of settings, got {type(document).__name__}")
        merged.update(document)
    return merged


def candidates(weights: str, config: str | None = None) -> dict[str, tuple[str, ...]]:
    """Return where the files of a vocoder may be, by role; the first that exists counts.

    Parameters
    ----------
    weights : str
        Path or URL of the checkpoint.
    config : str or None
        Path or URL of its configuration; None: look for one in the folder of the weights.

    >>> candidates("voc/g_0.pt")["beside"][:4]
    ('voc/g_0.pt.json', 'voc/g_0.pt.yaml', 'voc/g_0.pt.yml', 'voc/g_0.json')
    """
    folder, slash, name = weights.rpartition("/")
    stem = name.rpartition(".")[0] or name
    own = [f"{base}{suffix}" for base in dict.fromkeys((name, stem)) for suffix in _SUFFIXES]
    names = {FOUND_CONFIG: [other for other in (*own, *_CONFIGURATIONS) if other != name], **_NAMES}
    places = {role: tuple(folder + slash + other for other in others) for role, others in names.items()}
    if config is not None:
        places[CONFIG] = (config,)
        del places[FOUND_CONFIG]
    return {WEIGHTS: (weights,), **places}


def stated_mel(name: str, settings: Mapping[str, Any]) -> MelSpec | None:
    """Return the mel that a training wrote into a configuration as a whole.

    None: there is none.

    Raises
    ------
    VocoderError
        Its fields make no mel.
    """
    if OWN not in settings:
        return None
    try:
        return MelSpec.from_dict(settings[OWN]["mel"])
    except (ParameterError, TypeError, KeyError) as error:
        raise VocoderError(f"{name}: {OWN}: mel: of its configuration makes no mel: {error}") from error


def read_stats(name: str, data: bytes) -> dict[str, NDArray[np.float32]]:
    """Return ``mean`` and ``scale`` of a recipe's mels, each ``(n_mels,)``.

    ParallelWaveGAN and ESPnet keep them so.

    Parameters
    ----------
    name : str
        File name. ``.h5`` holds two arrays of these names, ``.npy`` one of shape ``(2, n_mels)``.
    data : bytes

    Raises
    ------
    VocoderError
        It is neither, or h5py is not installed.
    """
    try:
        mean, scale = _from_h5(data) if name.endswith(".h5") else decode_npy(data)
    except ImportError as error:
        raise VocoderError(f"{name}: reading it takes h5py: pip install 'melmill[h5]'") from error
    except (Unusable, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise VocoderError(
            f"{name}: expected a mean and a scale (.npy of shape (2, n_mels), or .h5 with both): {error}"
        ) from error
    return {
        key: np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        for key, values in (("mean", mean), ("scale", scale))
    }


def _from_h5(data: bytes) -> list[NDArray[Any]]:
    import h5py  # here, as it is an extra

    with h5py.File(io.BytesIO(data), "r") as file:
        return [np.asarray(file[name]) for name in ("mean", "scale")]


def read_schedule(name: str, data: bytes) -> tuple[float, ...]:
    """Return the noise variances that a ``.npy`` file holds, in order of diffusion.

    The file has the shape ``(n_steps,)``.

    Raises
    ------
    VocoderError
        It is no such file, is empty, or holds something that is no variance.
    """
    try:
        betas = decode_npy(data)
        if betas.ndim != 1 or betas.dtype.kind not in "fiu":
            raise ValueError(f"got {betas.dtype} of shape {betas.shape}")
        return checked_betas(betas.tolist())
    except (Unusable, ValueError, VocoderError) as error:
        raise VocoderError(
            f"{name}: expected the noise variance of each step (.npy of floats, shape (n_steps,)): {error}. "
            "Save the schedule again, or move the file away to use what the checkpoint says"
        ) from error
