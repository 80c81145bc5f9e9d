"""Read what a checkpoint's configuration says: numbers, sections, and the mel needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.network import Checkpoint

# More than any network or frame is large. Beyond it, a setting would ask for all memory there is.
_LARGEST = 1 << 20
# The names that came with Tacotron 2, and ours.
_TACOTRON_NAMES = {
    "sampling_rate": "sr",
    "filter_length": "n_fft",
    "win_length": "win_length",
    "hop_length": "hop_length",
    "mel_fmin": "fmin",
    "mel_fmax": "fmax",
}


def section(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    """Return one section of the configuration, empty where it is not there."""
    section = checkpoint.config.get(name, {})
    if not isinstance(section, Mapping):
        raise wrong(checkpoint, name, "a mapping of settings", section)
    return section


def whole(checkpoint: Checkpoint, settings: Mapping[str, Any], field: str, otherwise: int) -> int:
    """Return a size among the settings, or `otherwise`."""
    value = settings.get(field, otherwise)
    if not is_size(value):
        raise wrong(checkpoint, field, f"a whole number from 1 to {_LARGEST}", value)
    return int(value)


def layer_count(checkpoint: Checkpoint, settings: Mapping[str, Any], field: str, otherwise: int) -> int:
    """Return a number of layers among the settings, or `otherwise`: no more than there are tensors."""
    value = whole(checkpoint, settings, field, otherwise)
    if value > len(checkpoint.state):
        raise wrong(checkpoint, field, f"at most {len(checkpoint.state)}, the number of its tensors", value)
    return value


def wholes(
    checkpoint: Checkpoint, settings: Mapping[str, Any], field: str, otherwise: Sequence[int]
) -> tuple[int, ...]:
    """Return a list of whole numbers from 1 among the settings, or `otherwise`."""
    value = settings.get(field, otherwise)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value or not all(map(is_size, value)):
        raise wrong(checkpoint, field, f"a list of whole numbers from 1 to {_LARGEST}", value)
    return tuple(value)


def number(checkpoint: Checkpoint, settings: Mapping[str, Any], field: str, otherwise: float) -> float:
    """Return a number from 0 among the settings, or `otherwise`."""
    value = settings.get(field, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise wrong(checkpoint, field, "a finite number from 0", value)
    return float(value)


def is_size(value: object) -> bool:
    """Tell whether a setting is a whole number from 1 that a network can have."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def wrong(checkpoint: Checkpoint, field: str, expected: str, got: object) -> VocoderError:
    """Return the error of a setting that is not what is expected."""
    return VocoderError(f"{checkpoint.name}: {field} of its configuration must be {expected}, got {got!r}")


def conv_shape(checkpoint: Checkpoint, key: str) -> tuple[int, int, int]:
    """Return the shape of a convolution's weight.

    Raises
    ------
    VocoderError
        It is missing or has other axes.
    """
    shape = checkpoint.shape(key)
    if len(shape) != 3:
        raise VocoderError(
            f"{checkpoint.name}: tensor {key!r} has shape {shape}, but a convolution over time has three axes: "
            "is it another family's?"
        )
    return shape[0], shape[1], shape[2]


def half_kernel(checkpoint: Checkpoint, key: str) -> int:
    """Return the rate of an upsampling whose kernel is twice its stride.

    MelGAN and UnivNet have such kernels.
    """
    kernel = conv_shape(checkpoint, key)[2]
    if kernel % 2:
        raise VocoderError(
            f"{checkpoint.name}: tensor {key!r} has a kernel of {kernel}, but kernels here are twice the rate"
        )
    return kernel // 2


def tacotron_mel(
    checkpoint: Checkpoint, settings: Mapping[str, Any], base: MelSpec, *, n_mels: int, hop_length: int
) -> MelSpec:
    """Return the mel that settings in Tacotron 2's names describe, or the one that the user says.

    Parameters
    ----------
    checkpoint : Checkpoint
    settings : mapping
        The section that speaks of audio.
    base : MelSpec
        What the family's own code does. It fills in what the settings leave out.
    n_mels, hop_length : int
        Bands that the layers take, and samples that they make of a frame.

    Raises
    ------
    VocoderError
        The mel is impossible, or does not fit the layers.
    """
    if checkpoint.mel is not None:
        return fitting(checkpoint, checkpoint.mel, n_mels=n_mels, hop_length=hop_length)
    said = {ours: settings[theirs] for theirs, ours in _TACOTRON_NAMES.items() if theirs in settings}
    try:
        spec = replace(base, **{"n_mels": n_mels, "hop_length": hop_length, **said})
    except (ParameterError, TypeError) as error:
        raise VocoderError(f"{checkpoint.name}: its configuration describes an impossible mel: {error}") from error
    return fitting(checkpoint, spec, n_mels=n_mels, hop_length=hop_length)


def changed(checkpoint: Checkpoint, base: MelSpec, **fields: Any) -> MelSpec:  # noqa: ANN401 - as configured
    """Return `base` with the fields that a configuration says.

    Raises
    ------
    VocoderError
        They make no mel.
    """
    try:
        return replace(base, **fields)
    except (ParameterError, TypeError) as error:
        raise VocoderError(
            f"{checkpoint.name}: its configuration says {fields}, which makes no mel: {error}. "
            "Correct it, or give mel=..."
        ) from error


def fitting(checkpoint: Checkpoint, spec: MelSpec, *, n_mels: int, hop_length: int) -> MelSpec:
    """Return `spec`.

    Raises
    ------
    VocoderError
        The network takes other bands or makes another number of samples.
    """
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
