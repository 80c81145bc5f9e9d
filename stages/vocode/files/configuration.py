"""Configurations that lie beside checkpoints or inside them, read as plain data.

- What lies beside a checkpoint, and the checkpoint that all of it makes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import yaml

from melmill.stages.vocode.errors import VocoderError

# YAML 1.1 wants a dot in a float: upstream files write 1e-4 and mean the number.
_FLOAT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")


class _PlainLoader(yaml.SafeLoader):
    """Read any tag as the plain mapping, list or scalar under it: nothing that a file names is ever made."""


def _plain(loader: _PlainLoader, suffix: str, node: yaml.Node) -> Any:  # noqa: ANN401 - YAML may hold anything
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_PlainLoader.add_multi_constructor("", _plain)
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def parse(name: str, data: bytes | str) -> dict[str, Any]:
    r"""Return the mapping that a JSON or YAML file holds; YAML documents of one file are merged in order.

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
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
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


if TYPE_CHECKING:
    from melmill.stages.contract import StageFile
    from melmill.stages.numeric.melspec import MelSpec
    from melmill.stages.vocode.family import Checkpoint

# By role: what a recipe normalised its mels by, and the noise schedule that was chosen for a WaveGrad.
EXTRAS: Mapping[str, tuple[str, ...]] = {"stats": ("stats.npy", "stats.h5"), "schedule": ("noise_schedule.npy",)}

# Where a configuration that a training of ours wrote says the whole mel, which the official fields can't.
OWN = "melmill"

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


def configurations(name: str) -> list[str]:
    """Return the names that the configuration of a checkpoint may have, the likeliest first.

    >>> configurations("g_0.pt")[:4]
    ['g_0.pt.json', 'g_0.pt.yaml', 'g_0.pt.yml', 'g_0.json']
    """
    stem = name.rpartition(".")[0] or name
    own = [f"{base}{suffix}" for base in dict.fromkeys((name, stem)) for suffix in _SUFFIXES]
    return [other for other in (*own, *_CONFIGURATIONS) if other != name]


def assembled(
    weights: StageFile,
    config: StageFile | Mapping[str, Any] | None = None,
    beside: StageFile | None = None,
    mel: MelSpec | None = None,
    **extras: StageFile,
) -> Checkpoint:
    """Return the checkpoint of some files.

    Parameters
    ----------
    weights : StageFile
    config : StageFile, mapping or None
        A configuration that was asked for: the only one then.
    beside : StageFile or None
        One that was found; what the weights themselves say goes first.
    mel : MelSpec or None
        The mel that the vocoder needs, above what the configuration says.
    **extras : StageFile
        What was found of `EXTRAS`.

    Raises
    ------
    VocoderError
        One of the files can't be read.
    """
    from melmill.stages.vocode.files.checkpoint import read  # here, as it imports torch
    from melmill.stages.vocode.files.stats import read_stats
    from melmill.stages.vocode.layers.schedule import read_schedule

    def parsed(file: StageFile) -> dict[str, Any]:
        return parse(file.name, file.data)

    checkpoint = read(weights.name, weights.data)
    if config is None:
        settings = {**({} if beside is None else parsed(beside)), **checkpoint.config}
    else:
        settings = dict(config) if isinstance(config, Mapping) else parsed(config)
    stats, schedule = extras.get("stats"), extras.get("schedule")
    return replace(
        checkpoint,
        config=settings,
        mel=mel or own_mel(checkpoint.name, settings),
        stats={} if stats is None else read_stats(stats.name, stats.data),
        schedule=() if schedule is None else read_schedule(schedule.name, schedule.data),
    )


def own_mel(name: str, settings: Mapping[str, Any]) -> MelSpec | None:
    """Return the whole mel that a training of ours wrote into the configuration; None where there is none."""
    from melmill.stages.numeric.errors import ParameterError
    from melmill.stages.numeric.melspec import MelSpec

    if OWN not in settings:
        return None
    try:
        return MelSpec.from_dict(settings[OWN]["mel"])
    except (ParameterError, TypeError, KeyError) as error:
        raise VocoderError(f"{name}: {OWN}: mel: of its configuration makes no mel: {error}") from error
