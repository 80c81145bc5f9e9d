"""What the nested settings of MelGAN, UnivNet and WaveGlow say, and what the weights say where they are silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.family import Checkpoint
from melmill.stages.vocode.mels import fitting

# The names that came with Tacotron 2, and ours.
_NAMES = {
    "sampling_rate": "sr",
    "filter_length": "n_fft",
    "win_length": "win_length",
    "hop_length": "hop_length",
    "mel_fmin": "fmin",
    "mel_fmax": "fmax",
}


def section(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    """Return one section of the configuration, empty where it is not there."""
    found = checkpoint.config.get(name, {})
    if not isinstance(found, Mapping):
        raise _wrong(checkpoint, name, "a mapping of settings", found)
    return found


def whole(checkpoint: Checkpoint, settings: Mapping[str, Any], field: str, otherwise: int) -> int:
    """Return a whole number from 1 among the settings, or `otherwise`."""
    value = settings.get(field, otherwise)
    if not _is_size(value):
        raise _wrong(checkpoint, field, "a whole number from 1", value)
    return int(value)


def wholes(
    checkpoint: Checkpoint, settings: Mapping[str, Any], field: str, otherwise: Sequence[int]
) -> tuple[int, ...]:
    """Return a list of whole numbers from 1 among the settings, or `otherwise`."""
    value = settings.get(field, otherwise)
    if isinstance(value, str) or not isinstance(value, Sequence) or not value or not all(map(_is_size, value)):
        raise _wrong(checkpoint, field, "a list of whole numbers from 1", value)
    return tuple(value)


def number(checkpoint: Checkpoint, settings: Mapping[str, Any], field: str, otherwise: float) -> float:
    """Return a number from 0 among the settings, or `otherwise`."""
    value = settings.get(field, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise _wrong(checkpoint, field, "a number from 0", value)
    return float(value)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _wrong(checkpoint: Checkpoint, field: str, expected: str, got: object) -> VocoderError:
    return VocoderError(f"{checkpoint.name}: {field} of its configuration must be {expected}, got {got!r}")


def conv_shape(checkpoint: Checkpoint, key: str) -> tuple[int, int, int]:
    """Return the shape of a convolution's weight; raise VocoderError where it is missing or none."""
    shape = checkpoint.shape(key)
    if len(shape) != 3:
        raise VocoderError(
            f"{checkpoint.name}: tensor {key!r} has shape {shape}, but a convolution over time has three axes: "
            "is it another family's?"
        )
    return shape[0], shape[1], shape[2]


def half_kernel(checkpoint: Checkpoint, key: str) -> int:
    """Return the rate of an upsampling whose kernel is twice its stride, as that of MelGAN and UnivNet is."""
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
        The section that speaks of audio; what it does not say is `base`'s.
    base : MelSpec
        What the family's own code does.
    n_mels, hop_length : int
        What the layers take and make.

    Raises
    ------
    VocoderError
        The mel is impossible, or does not fit the layers.
    """
    if checkpoint.mel is not None:
        return fitting(checkpoint, checkpoint.mel, n_mels=n_mels, hop_length=hop_length)
    said = {ours: settings[theirs] for theirs, ours in _NAMES.items() if theirs in settings}
    try:
        spec = replace(base, **{"n_mels": n_mels, "hop_length": hop_length, **said})
    except (ParameterError, TypeError) as error:
        raise VocoderError(f"{checkpoint.name}: its configuration describes an impossible mel: {error}") from error
    return fitting(checkpoint, spec, n_mels=n_mels, hop_length=hop_length)
