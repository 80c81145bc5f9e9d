"""What lies beside a checkpoint, and the checkpoint that all of it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from melmill.stages.vocoders.errors import VocoderError

if TYPE_CHECKING:
    from melmill.stages.dsp.melspec import MelSpec
    from melmill.stages.stage import StageFile
    from melmill.stages.vocoders.family import Checkpoint

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
    from melmill.stages.vocoders.checkpoint import read  # here, as it imports torch
    from melmill.stages.vocoders.schedule import read_schedule
    from melmill.stages.vocoders.stats import read_stats

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
    from melmill.stages.dsp.melspec import MelSpec
    from melmill.stages.errors import ParameterError

    if OWN not in settings:
        return None
    try:
        return MelSpec.from_dict(settings[OWN]["mel"])
    except (ParameterError, TypeError, KeyError) as error:
        raise VocoderError(f"{name}: {OWN}: mel: of its configuration makes no mel: {error}") from error
