"""Small vocoders of every family: random tensors under their published names, with a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.families.bigvgan.network import BigVgan
from melmill.stages.vocode.families.bigvgan.periodic import Snake
from melmill.stages.vocode.families.diffwave.network import DiffWave
from melmill.stages.vocode.families.diffwave.network import Sizes as DiffWaveSizes
from melmill.stages.vocode.families.hifigan.layouts import Layout
from melmill.stages.vocode.families.hifigan.network import HifiGan
from melmill.stages.vocode.families.hifigan.sizes import Sizes, hifigan_mel
from melmill.stages.vocode.families.melgan.network import MelGan
from melmill.stages.vocode.families.melgan.sizes import Layout as MelGanLayout
from melmill.stages.vocode.families.melgan.sizes import MelGanSizes
from melmill.stages.vocode.families.univnet.kernels import LvcSizes
from melmill.stages.vocode.families.univnet.network import UnivNet
from melmill.stages.vocode.families.vocos.network import Vocos, VocosSizes
from melmill.stages.vocode.families.waveglow.network import WaveGlow
from melmill.stages.vocode.families.waveglow.sizes import WaveGlowSizes
from melmill.stages.vocode.families.wavegrad.network import WaveGrad
from melmill.stages.vocode.families.wavenet.network import Preprocessing, WaveNet
from melmill.stages.vocode.families.wavenet.network import Sizes as WaveNetSizes
from melmill.stages.vocode.families.wavenet.outputs import Logistic
from melmill.stages.vocode.families.wavenet.upsampling import MixedFirst, Smoothed
from melmill.stages.vocode.network import Vocoder

Content = tuple[dict[str, Any], dict[str, Any]]
"""What a checkpoint holds, and its configuration."""

_HIFIGAN = {
    "resblock": "1", "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]], "num_mels": 6, "n_fft": 32,
    "hop_size": 8, "win_size": 32, "sampling_rate": 8000, "fmin": 0, "fmax": None,
}  # fmt: skip
_SIZES = Sizes(
    n_mels=6, channels=8, rates=(4, 2), kernels=(8, 4), block_kernels=(3, 5), dilations=((1, 3, 5), (1, 2, 4)),
    paired=True,
)  # fmt: skip
_SPEC = replace(preset("hifigan"), sr=8000, n_mels=6, n_fft=32, win_length=32, hop_length=8, fmax=None)


def _hifigan() -> Content:
    return {"generator": _state(HifiGan(_SIZES, _SPEC, Layout(mel=hifigan_mel)))}, _HIFIGAN


def _bigvgan() -> Content:
    model = BigVgan(_SIZES, _SPEC, Snake(kind="snakebeta", log_scale=True), tanh=True, last_bias=True)
    return {"generator": _state(model)}, {**_HIFIGAN, "activation": "snakebeta", "snake_logscale": True}


def _melgan() -> Content:
    layout = MelGanLayout(root="model", block="", stacked=False, normalises=False, audio=None, preset="melgan")
    sizes = MelGanSizes(n_mels=6, widths=(16, 8, 4), rates=(4, 2), end_kernel=7, block_kernel=3, dilations=(1, 3, 9))
    model = MelGan(sizes, replace(preset("melgan"), n_mels=6, hop_length=8), layout)
    return {f"model.{name}": value for name, value in _state(model).items()}, {"ngf": 4, "n_residual_layers": 3}


def _univnet() -> Content:
    lvc = LvcSizes(
        n_mels=6,
        width=4,
        dilations=(1, 3),
        kernel=3,
        hidden=4,
        n_residuals=3,
        hidden_kernel=3,
        input_kernel=5,
        slope=0.2,
    )
    model = UnivNet(lvc, (2, 2), 5, replace(preset("univnet"), n_mels=6, hop_length=4))
    gen = {
        "strides": [2, 2],
        "noise_dim": 5,
        "channel_size": 4,
        "dilations": [1, 3],
        "lReLU_slope": 0.2,
        "kpnet_conv_size": 3,
    }
    audio = {"n_mel_channels": 6, "filter_length": 1024, "hop_length": 4, "win_length": 1024, "sampling_rate": 24000,
    "mel_fmin": 0.0, "mel_fmax": 12000.0}  # fmt: skip
    return {"model_g": _state(model)}, {"gen": gen, "audio": audio}


def _vocos() -> Content:
    sizes = VocosSizes(n_mels=6, width=8, hidden=12, n_blocks=2, scaled=True, n_fft=32, hop_length=8, center=True)
    model = Vocos(sizes, replace(preset("vocos_24khz"), n_mels=6, n_fft=32, win_length=32, hop_length=8))
    config = {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {"sample_rate": 24000, "n_fft": 32, "hop_length": 8, "n_mels": 6, "padding": "center"},
        },
        "backbone": {
            "class_path": "vocos.models.VocosBackbone",
            "init_args": {"input_channels": 6, "dim": 8, "intermediate_dim": 12, "num_layers": 2},
        },
        "head": {
            "class_path": "vocos.heads.ISTFTHead",
            "init_args": {"dim": 8, "n_fft": 32, "hop_length": 8, "padding": "center"},
        },
    }
    return _state(model), config


def _waveglow() -> Content:
    sizes = WaveGlowSizes(n_mels=6, n_group=4, widths=(4, 4, 2, 2), n_layers=2, width=8, kernel=3, up_kernel=16)
    model = WaveGlow(sizes, replace(preset("waveglow"), n_mels=6, hop_length=4), 1.0)
    config = {
        "waveglow_config": {
            "n_mel_channels": 6, "n_flows": 4, "n_group": 4, "n_early_every": 2, "n_early_size": 2,
            "WN_config": {"n_layers": 2, "n_channels": 8, "kernel_size": 3},
        },
        "data_config": {"sampling_rate": 22050, "filter_length": 1024, "hop_length": 4, "win_length": 1024,
        "mel_fmin": 0.0, "mel_fmax": 8000.0},
    }  # fmt: skip
    return {"state_dict": _state(model)}, config


def _wavegrad() -> Content:
    spec = replace(preset("wavegrad"), n_mels=6, hop_length=12)
    model = WaveGrad((4, 6, 8), (10, 8, 6, 4), (3, 2, 2), spec)
    return {"model": _state(model)}, {"hop_samples": 12, "factors": [3, 2, 2], "noise_schedule": [1e-4, 0.01, 0.3]}


def _diffwave() -> Content:
    sizes = DiffWaveSizes(channels=6, n_features=16, embedding=10, n_layers=5, cycle=2, kernels=((3, 8), (5, 12)))
    training = [0.01, 0.02, 0.05, 0.1, 0.2]
    model = DiffWave(sizes, training, replace(preset("diffwave"), n_mels=6, hop_length=24))
    return {"model": _state(model)}, {"noise_schedule": training, "dilation_cycle_length": 2, "residual_channels": 6}


def _wavenet() -> Content:
    spec = replace(preset("wavenet_r9y9"), n_mels=6, hop_length=6)
    sizes = WaveNetSizes(residual=5, gate=8, skip=7, out=9, kernel=3, layers=6, stacks=2, condition_bias=False)
    model = WaveNet(sizes, Logistic(n_mixtures=3), MixedFirst(6, 2, Smoothed((2, 3), 1, None)), spec, Preprocessing())
    config = {
        "input_type": "raw", "output_distribution": "Logistic", "quantize_channels": 256, "stacks": 2, "cin_pad": 2,
        "hop_size": 6, "upsample_params": {"upsample_scales": [2, 3], "upsample_activation": "none"},
    }  # fmt: skip
    return {"state_dict": _state(model)}, config


FAMILIES: Mapping[str, Callable[[], Content]] = {
    "hifigan": _hifigan,
    "bigvgan": _bigvgan,
    "melgan": _melgan,
    "univnet": _univnet,
    "vocos": _vocos,
    "waveglow": _waveglow,
    "wavegrad": _wavegrad,
    "diffwave": _diffwave,
    "wavenet": _wavenet,
}


def _state(model: Vocoder) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=generator) / max(1, value[0].numel()) ** 0.5 if value.ndim else value
        for name, value in model.state_dict().items()
    }
