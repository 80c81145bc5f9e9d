"""A Vocos with random weights, and the configuration that is published with it."""

from __future__ import annotations

import torch
from torch import nn

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.generators import Fresh, draw_weights
from melmill.stages.train.recipe import Size
from melmill.stages.vocode.families.vocos.network import Vocos, VocosSizes

# Width, hidden width and number of blocks.
_SIZES = {"small": (256, 768, 6), "base": (512, 1536, 8)}


def fresh(size: Size, spec: MelSpec) -> Fresh:
    """Make a generator for mels of `spec`; see `melmill.stages.train.generators.fresh`."""
    width, hidden, n_blocks = _SIZES[size]
    sizes = VocosSizes(
        n_mels=spec.n_mels,
        width=width,
        hidden=hidden,
        n_blocks=n_blocks,
        scaled=True,
        n_fft=spec.n_fft,
        hop_length=spec.hop_length,
        center=spec.center is True,
    )
    model = Vocos(sizes, spec)
    draw_weights(model, lambda weight: nn.init.trunc_normal_(weight, std=0.02))
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 1.0 / n_blocks)
    model.head.istft.window.copy_(torch.hann_window(spec.n_fft))
    padding = "center" if sizes.center else "same"
    config = {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {
                "sample_rate": spec.sr,
                "n_fft": spec.n_fft,
                "hop_length": spec.hop_length,
                "n_mels": spec.n_mels,
                "padding": padding,
            },
        },
        "backbone": {
            "class_path": "vocos.models.VocosBackbone",
            "init_args": {
                "input_channels": spec.n_mels,
                "dim": width,
                "intermediate_dim": hidden,
                "num_layers": n_blocks,
            },
        },
        "head": {
            "class_path": "vocos.heads.ISTFTHead",
            "init_args": {"dim": width, "n_fft": spec.n_fft, "hop_length": spec.hop_length, "padding": padding},
        },
    }
    return Fresh(model=model, config=config, learning_rate=5e-4)
