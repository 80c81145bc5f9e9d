"""Three layouts of HiFi-GAN checkpoints, translated to the names of the first.

They are the official one (``conv_pre``, ``ups.0``, ``resblocks.0.convs1.0``), that of
ParallelWaveGAN and ESPnet (``input_conv``, ``upsamples.0.1``, ``blocks.0.convs1.0.1``, mels
normalised by a stats file) and that of transformers (``upsampler.0``, mels normalised by tensors
among the weights).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.hifigan import PARALLEL_WAVEGAN
from melmill.stages.vocode.families.hifigan.sizes import Sizes, hifigan_mel
from melmill.stages.vocode.network import Checkpoint
from melmill.stages.vocode.settings import changed, fitting

UP = "ups.{}.weight"
# Official slope of all activations but the last.
_SLOPE = 0.1

_PWG_NAMES = (
    (re.compile(r"input_conv\."), "conv_pre."),
    (re.compile(r"upsamples\.(\d+)\.1\."), r"ups.\1."),
    (re.compile(r"blocks\.(\d+)\.convs([12])\.(\d+)\.1\."), r"resblocks.\1.convs\2.\3."),
    (re.compile(r"output_conv\.1\."), "conv_post."),
)
# ParallelWaveGAN's names of the sizes.
_PWG_SIZES = {
    "in_channels": "num_mels",
    "channels": "upsample_initial_channel",
    "upsample_scales": "upsample_rates",
    "upsample_kernel_sizes": "upsample_kernel_sizes",
    "upsample_kernal_sizes": "upsample_kernel_sizes",
    "resblock_kernel_sizes": "resblock_kernel_sizes",
    "resblock_dilations": "resblock_dilation_sizes",
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Say how the implementations differ, apart from names.

    Parameters
    ----------
    mel : callable
        Return the mel of a translated checkpoint with these sizes.
    slope : float
        Slope of the leaky rectifiers, except the last.
    end_kernel : int
        Kernel of the first and the last convolution.
    bias : bool
        The convolutions have a bias.
    exact : bool
        An odd rate multiplies the length exactly. The official padding gives one sample more.
    normalises : bool
        The mel is normalised first: ``(M - mean) / scale``.
    """

    mel: Callable[[Checkpoint, Sizes], MelSpec]
    slope: float = _SLOPE
    end_kernel: int = 7
    bias: bool = True
    exact: bool = False
    normalises: bool = False

    def paddings(self, kernel: int, rate: int) -> tuple[int, int]:
        """Return the padding and the output padding of a transposed convolution."""
        return (rate // 2 + rate % 2, rate % 2) if self.exact else ((kernel - rate) // 2, 0)


def as_hifigan(checkpoint: Checkpoint) -> tuple[Checkpoint, Layout]:
    """Return the checkpoint under the official names of tensors and settings, and its layout."""
    if checkpoint.state.keys() >= PARALLEL_WAVEGAN:
        return _from_pwg(checkpoint)
    if "upsampler.0.weight" in checkpoint.state:
        return _from_transformers(checkpoint)
    return checkpoint, Layout(mel=lambda found, sizes: hifigan_mel(found, sizes, default=preset("hifigan")))


def _from_pwg(checkpoint: Checkpoint) -> tuple[Checkpoint, Layout]:
    params: Mapping[str, Any] = checkpoint.config.get("generator_params", {})
    activation = params.get("nonlinear_activation", "LeakyReLU")
    if activation != "LeakyReLU":
        raise VocoderError(
            f"{checkpoint.name}: nonlinear_activation of generator_params must be 'LeakyReLU', got {activation!r}: "
            "no other is known of HiFi-GAN"
        )
    if not checkpoint.stats and checkpoint.mel is None:
        raise VocoderError(
            f"{checkpoint.name}: its mels are normalised by the recipe's mean and variance, but no stats.npy or "
            "stats.h5 lies beside it: put it there (or give mel=... for mels that are normalised already)"
        )
    paired = any(".convs2." in key for key in checkpoint.state)
    state = {_official(key, paired): value for key, value in checkpoint.state.items()} | dict(checkpoint.stats)
    sizes = {ours: params[theirs] for theirs, ours in _PWG_SIZES.items() if theirs in params}
    layout = Layout(
        mel=_pwg_mel,
        slope=params.get("nonlinear_activation_params", {}).get("negative_slope", _SLOPE),
        end_kernel=params.get("kernel_size", 7),
        bias=params.get("bias", True),
        exact=True,
        normalises=bool(checkpoint.stats),
    )
    config = {**checkpoint.config, **sizes, "resblock": "1" if paired else "2"}
    return replace(checkpoint, state=state, config=config), layout


def _official(key: str, paired: bool) -> str:
    for pattern, name in _PWG_NAMES:
        key = pattern.sub(name, key)
    return key if paired else key.replace(".convs1.", ".convs.")


def _pwg_mel(checkpoint: Checkpoint, sizes: Sizes) -> MelSpec:
    config, spec = checkpoint.config, checkpoint.mel
    if spec is None:
        base = config.get("log_base", 10.0)
        if base not in (10, None):
            raise VocoderError(f"{checkpoint.name}: log_base of its configuration must be 10 or null, got {base!r}")
        n_fft = _said(checkpoint, "fft_size")
        spec = changed(
            checkpoint,
            preset("parallel_wavegan"),
            sr=_said(checkpoint, "sampling_rate"),
            n_fft=n_fft,
            win_length=config.get("win_length") or n_fft,
            hop_length=_said(checkpoint, "hop_size"),
            n_mels=sizes.n_mels,
            fmin=config.get("fmin") or 0.0,
            fmax=config.get("fmax"),
            log="ln" if base is None else "log10",
        )
    return fitting(checkpoint, spec, n_mels=sizes.n_mels, hop_length=sizes.hop_length)


def _said(checkpoint: Checkpoint, field: str) -> int:
    if not isinstance(checkpoint.config.get(field), int):
        raise VocoderError(
            f"{checkpoint.name}: its configuration must say {field} as a whole number, "
            f"got {checkpoint.config.get(field)!r}. Is config.yml beside it?"
        )
    return int(checkpoint.config[field])


def _from_transformers(checkpoint: Checkpoint) -> tuple[Checkpoint, Layout]:
    normalises = bool(checkpoint.config.get("normalize_before", True))
    state = {
        key.replace("upsampler.", "ups."): value
        for key, value in checkpoint.state.items()
        if normalises or key not in ("mean", "scale")
    }
    layout = Layout(
        mel=_transformers_mel,
        slope=checkpoint.config.get("leaky_relu_slope", _SLOPE),
        normalises=normalises,
    )
    config = {**checkpoint.config}
    if "model_in_dim" in config:
        config["num_mels"] = config["model_in_dim"]
    return replace(checkpoint, state=state, config=config), layout


def _transformers_mel(checkpoint: Checkpoint, sizes: Sizes) -> MelSpec:
    spec = checkpoint.mel
    if spec is None and checkpoint.config.get("model_type", "hifigan") == "hifigan":
        spec = changed(checkpoint, preset("speecht5"), sr=checkpoint.config.get("sampling_rate", 16000))
    if spec is None:
        raise VocoderError(
            f"{checkpoint.name}: its configuration does not say how its mels are made "
            f"(model_type {checkpoint.config['model_type']!r}): give mel=..."
        )
    return fitting(checkpoint, spec, n_mels=sizes.n_mels, hop_length=sizes.hop_length)
