"""The mel that a vocoder needs, read from its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.mel import from_bands
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.hifigan.sizes import Sizes
from melmill.stages.vocode.family import Checkpoint

# HiFi-GAN's names, which BigVGAN keeps, and ours.
_NAMES = {
    "sampling_rate": "sr",
    "n_fft": "n_fft",
    "win_size": "win_length",
    "hop_size": "hop_length",
    "num_mels": "n_mels",
    "fmin": "fmin",
    "fmax": "fmax",
}


def silence_of(spec: MelSpec) -> float:
    """Return the mel value of digital silence.

    >>> round(silence_of(MelSpec(log="ln", floor=1e-5)), 4)
    -11.5129
    """
    return float(from_bands(np.zeros((spec.n_mels, 1), dtype=np.float32), spec).min())


def hifigan_mel(checkpoint: Checkpoint, sizes: Sizes, default: MelSpec | None = None) -> MelSpec:
    """Return the mel of a HiFi-GAN or BigVGAN configuration, or the one that the user says.

    Parameters
    ----------
    checkpoint : Checkpoint
    sizes : Sizes
        Say the bands and the hop where the configuration does not.
    default : MelSpec or None
        Where the configuration says nothing of mels at all.

    Raises
    ------
    VocoderError
        A field is missing, or the mel does not fit the layers.
    """
    if checkpoint.mel is not None:
        return fitting(checkpoint, checkpoint.mel, n_mels=sizes.n_mels, hop_length=sizes.hop_length)
    said = {ours: checkpoint.config[theirs] for theirs, ours in _NAMES.items() if theirs in checkpoint.config}
    if not said and default is not None:
        return fitting(checkpoint, default, n_mels=sizes.n_mels, hop_length=sizes.hop_length)
    said = {"n_mels": sizes.n_mels, "hop_length": sizes.hop_length, **said}
    missing = [theirs for theirs, ours in _NAMES.items() if ours not in said]
    if missing:
        raise VocoderError(
            f"{checkpoint.name}: its configuration lacks {missing[0]!r}, which the mel needs: add it, or give mel=..."
        )
    spec = changed(checkpoint, preset("hifigan"), **said)
    return fitting(checkpoint, spec, n_mels=sizes.n_mels, hop_length=sizes.hop_length)


def changed(checkpoint: Checkpoint, base: MelSpec, **fields: Any) -> MelSpec:  # noqa: ANN401 - as configured
    """Return `base` with the fields that a configuration says; raise VocoderError where they make no mel."""
    try:
        return replace(base, **fields)
    except (ParameterError, TypeError) as error:
        raise VocoderError(
            f"{checkpoint.name}: its configuration says {fields}, which makes no mel: {error}. "
            "Correct it, or give mel=..."
        ) from error


def fitting(checkpoint: Checkpoint, spec: MelSpec, *, n_mels: int, hop_length: int) -> MelSpec:
    """Return `spec`; raise VocoderError where the network takes other bands or makes another number of samples."""
    if spec.n_mels != n_mels:
        raise VocoderError(
            f"{checkpoint.name}: its layers take {n_mels} mel bands, but its mel has n_mels={spec.n_mels}. "
            "Give the configuration of this checkpoint, or mel=..."
        )
    if spec.hop_length != hop_length:
        raise VocoderError(
            f"{checkpoint.name}: its layers make {hop_length} samples a frame, but its mel has "
            f"hop_length={spec.hop_length}. Give the configuration of this checkpoint, or mel=..."
        )
    return spec
