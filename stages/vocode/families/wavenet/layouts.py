"""Read r9y9's WaveNet checkpoints.

Sizes come from the weights, and their meaning from the hyperparameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.families.wavenet.network import Preprocessing, Sizes, WaveNet
from melmill.stages.vocode.families.wavenet.outputs import Categorical, Gaussian, Logistic, Output
from melmill.stages.vocode.families.wavenet.upsampling import Activation, MixedFirst, Smoothed, Transposed, Upsampler
from melmill.stages.vocode.network import Checkpoint, with_weights
from melmill.stages.vocode.settings import conv_shape, fitting, layer_count, whole

_ACTIVATIONS = {
    "ELU": nn.ELU,
    "LeakyReLU": nn.LeakyReLU,
    "ReLU": nn.ReLU,
    "Sigmoid": nn.Sigmoid,
    "Tanh": nn.Tanh,
}
_MIXED, _SMOOTHED, _TRANSPOSED = "upsample_net.upsample.up_layers.", "upsample_net.up_layers.", "upsample_conv."


def build(checkpoint: Checkpoint) -> WaveNet:
    """Make the model of a checkpoint in any of the three layouts."""
    _refuse(checkpoint)
    sizes = _sizes(checkpoint)
    prefix = _upsampling(checkpoint)
    model = WaveNet(
        sizes,
        _output(checkpoint, sizes.out, prefix),
        _upsampler(checkpoint, prefix),
        _spec(checkpoint, prefix),
        _preprocessing(checkpoint),
    )
    return with_weights(model, checkpoint, _renewed(checkpoint, sizes) if prefix == _TRANSPOSED else None)


def _refuse(checkpoint: Checkpoint) -> None:
    for prefix in ("embed_speakers.", "conv_layers.0.conv1x1g."):
        if any(key.startswith(prefix) for key in checkpoint.state):
            raise VocoderError(
                f"{checkpoint.name} is a WaveNet of several speakers (tensor '{prefix}*'), expected one that mels "
                "alone condition"
            )


def _sizes(checkpoint: Checkpoint) -> Sizes:
    config = checkpoint.config
    gate, residual, kernel = conv_shape(checkpoint, "conv_layers.0.conv.weight")
    layers = layer_count(checkpoint, config, "layers", checkpoint.count("conv_layers.{}.conv.weight"))
    stacks = int(_needed(checkpoint, "stacks"))
    if stacks < 1 or layers % stacks:
        raise VocoderError(f"{checkpoint.name}: stacks={stacks} in the config must divide its {layers} layers")
    return Sizes(
        residual=whole(checkpoint, config, "residual_channels", residual),
        gate=whole(checkpoint, config, "gate_channels", gate),
        skip=whole(checkpoint, config, "skip_out_channels", checkpoint.shape("conv_layers.0.conv1x1_skip.weight")[0]),
        out=whole(checkpoint, config, "out_channels", checkpoint.shape("last_conv_layers.3.weight")[0]),
        kernel=whole(checkpoint, config, "kernel_size", kernel),
        layers=layers,
        stacks=stacks,
        condition_bias="conv_layers.0.conv1x1c.bias" in checkpoint.state,
    )


def _output(checkpoint: Checkpoint, n_outputs: int, prefix: str) -> Output:
    kind, classes = str(_needed(checkpoint, "input_type")), checkpoint.config.get("quantize_channels")
    if kind == "mulaw-quantize":
        if classes not in (None, n_outputs):
            raise VocoderError(
                f"{checkpoint.name}: {n_outputs} outputs for quantize_channels={classes!r}: must be equal"
            )
        return Categorical(n_classes=n_outputs)
    if kind not in ("raw", "mulaw"):
        raise VocoderError(f"{checkpoint.name}: input_type {kind!r} is none of 'raw', 'mulaw', 'mulaw-quantize'")
    mu = int(_needed(checkpoint, "quantize_channels")) - 1 if kind == "mulaw" else None
    distribution = checkpoint.config.get("output_distribution", "Logistic")
    if distribution == "Normal" and n_outputs in (2, 3):
        return Gaussian(n_mixtures=1, mu=mu)
    if distribution not in ("Logistic", "Normal") or n_outputs % 3:
        raise VocoderError(
            f"{checkpoint.name}: output_distribution {distribution!r} of {n_outputs} outputs, expected 'Logistic' or "
            "'Normal' of three a component, or 'Normal' of two"
        )
    if distribution == "Normal":
        return Gaussian(n_mixtures=n_outputs // 3, mu=mu)
    floor = checkpoint.config.get("log_scale_min") if prefix == _TRANSPOSED else None
    return Logistic(n_mixtures=n_outputs // 3, mu=mu, log_scale_min=floor)


def _upsampling(checkpoint: Checkpoint) -> str:
    """Return the prefix of the names of the upsampling kernels."""
    for prefix in (_MIXED, _SMOOTHED, _TRANSPOSED):
        if any(key.startswith(prefix) for key in checkpoint.state):
            return prefix
    raise VocoderError(
        f"{checkpoint.name}: no tensor '{_MIXED}*', '{_SMOOTHED}*' or '{_TRANSPOSED}*': this WaveNet reads no mel, or "
        "one at the rate of the samples"
    )


def _kernels(checkpoint: Checkpoint, prefix: str) -> list[tuple[int, int]]:
    """Return how many bands and places each upsampling kernel spans, in order."""
    keys = [key for key in checkpoint.state if key.startswith(prefix) and key.endswith(".weight")]
    keys.sort(key=lambda key: int(key.removeprefix(prefix).split(".")[0]))
    return [(checkpoint.shape(key)[2], checkpoint.shape(key)[3]) for key in keys]


def _scales(checkpoint: Checkpoint, prefix: str) -> list[int]:
    said = _upsampling_params(checkpoint).get("upsample_scales")
    if said is not None:
        return [int(scale) for scale in said]
    return [width if prefix == _TRANSPOSED else width // 2 for _, width in _kernels(checkpoint, prefix)]


def _upsampler(checkpoint: Checkpoint, prefix: str) -> Upsampler:
    params, scales = _upsampling_params(checkpoint), _scales(checkpoint, prefix)
    rows = int(params.get("freq_axis_kernel_size", _kernels(checkpoint, prefix)[0][0]))
    if params.get("mode", "nearest") != "nearest":
        raise VocoderError(f"{checkpoint.name}: upsampling mode {params['mode']!r} in the config, expected 'nearest'")
    if prefix == _TRANSPOSED:
        return Transposed(scales, rows, _activation(checkpoint, "ReLU") or nn.Identity)
    activation = _activation(checkpoint, "none")
    if prefix == _SMOOTHED:
        return Smoothed(scales, rows, activation, int(checkpoint.config.get("cin_pad", 0)))
    n_mels, _, width = checkpoint.shape("upsample_net.conv_in.weight")
    return MixedFirst(n_mels, int(checkpoint.config.get("cin_pad", width // 2)), Smoothed(scales, rows, activation))


def _upsampling_params(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return the hyperparameters of the upsampler: their own mapping, or (2018) all of them."""
    params: Mapping[str, Any] = checkpoint.config.get("upsample_params") or checkpoint.config
    return params


def _activation(checkpoint: Checkpoint, usual: str) -> Activation | None:
    params = _upsampling_params(checkpoint)
    name = params.get("upsample_activation", usual)
    if name == "none":
        return None
    if name not in _ACTIVATIONS:
        raise VocoderError(
            f"{checkpoint.name}: upsample_activation {name!r} is none of none, {', '.join(_ACTIVATIONS)}"
        )
    return partial(_ACTIVATIONS[name], **params.get("upsample_activation_params", {}))


def _spec(checkpoint: Checkpoint, prefix: str) -> MelSpec:
    config, usual = checkpoint.config, preset("wavenet_r9y9")
    sr, scales = int(config.get("sample_rate", usual.sr)), _scales(checkpoint, prefix)
    hop = config.get("hop_size") or int((config.get("frame_shift_ms") or 0.0) / 1000 * sr) or math.prod(scales)
    if hop != math.prod(scales):
        raise VocoderError(
            f"{checkpoint.name}: upsample_scales {scales} make {math.prod(scales)} samples of a frame, but the config "
            f"says hop_size={hop}"
        )
    if prefix == _TRANSPOSED and checkpoint.mel is None:
        raise VocoderError(
            f"{checkpoint.name} is a WaveNet of 2018 ('{prefix}*'), whose mels were framed by lws, which no preset is: "
            "say which mel you give it"
        )
    window = int(config.get("win_length") or usual.stft.win_length)
    spec = replace(
        usual,
        sr=sr,
        n_mels=int(config.get("cin_channels", checkpoint.shape("conv_layers.0.conv1x1c.weight")[1])),
        hop_length=hop,
        win_length=window if window > 0 else int(config["win_length_ms"] / 1000 * sr),
        n_fft=int(config.get("fft_size", usual.n_fft)),
        fmin=float(config.get("fmin", usual.fmin)),
        fmax=config.get("fmax", usual.fmax),
    )
    return fitting(checkpoint, checkpoint.mel or spec, n_mels=spec.n_mels, hop_length=hop)


def _preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    undone = checkpoint.config.get("postprocess") or "none"
    if undone not in ("none", "inv_preemphasis"):
        raise VocoderError(f"{checkpoint.name}: postprocess {undone!r} is none of 'none', 'inv_preemphasis'")
    gain = float(checkpoint.config.get("global_gain_scale") or 1.0)
    return Preprocessing(
        # In the official code a negative gain means none.
        gain=gain if gain > 0 else 1.0,
        emphasised=undone == "inv_preemphasis",
        mean=checkpoint.stats.get("mean"),
        scale=checkpoint.stats.get("scale"),
    )


def _renewed(checkpoint: Checkpoint, sizes: Sizes) -> dict[str, Tensor]:
    """Return the tensors of a WaveNet of 2018 as later ones have them.

    It multiplied the running sum of skips by ``sqrt(1 / 2)`` at every layer except the first, or,
    with ``legacy=False``, not at all. Later ones multiply the whole by ``sqrt(1 / layers)``. Both
    are factors of the skips' weights.
    """
    state = {key.replace(_TRANSPOSED, _SMOOTHED): tensor for key, tensor in checkpoint.state.items()}
    halvings = 0.5 if checkpoint.config.get("legacy", True) else 1.0
    for i in range(sizes.layers):
        share = math.sqrt(halvings ** (sizes.layers - max(i, 1)) * sizes.layers)
        for kind in ("weight", "bias"):
            key = f"conv_layers.{i}.conv1x1_skip.{kind}"
            if key in state:
                state[key] = state[key] * share
    return state


def _needed(checkpoint: Checkpoint, field: str) -> Any:  # noqa: ANN401 - fields differ in type
    if field not in checkpoint.config:
        raise VocoderError(
            f"{checkpoint.name}: the weights don't say {field!r}: give the hyperparameters (hparams.json) as config"
        )
    return checkpoint.config[field]
