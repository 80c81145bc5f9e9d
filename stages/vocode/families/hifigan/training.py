"""A HiFi-GAN with random weights for any hop, and the configuration that is published with it."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.generators import Fresh, draw_weights
from melmill.stages.train.recipe import Size
from melmill.stages.vocode.families.hifigan.layouts import Layout
from melmill.stages.vocode.families.hifigan.network import HifiGan
from melmill.stages.vocode.families.hifigan.sizes import Sizes

_CHANNELS = {"small": 128, "base": 512}
_BLOCK_KERNELS = (3, 7, 11)
_DILATIONS = ((1, 3, 5),) * 3
_MOST_RATE = 8


def fresh(size: Size, spec: MelSpec) -> Fresh:
    """Make a generator for mels of `spec`; see `melmill.stages.train.generators.fresh`."""
    rates = factors(spec.hop_length)
    sizes = Sizes(
        n_mels=spec.n_mels,
        channels=_CHANNELS[size],
        rates=rates,
        # As wide as needed to overlap by half, and of the parity that keeps the length a multiple
        # of the rate.
        kernels=tuple(2 * rate if rate % 2 == 0 else 2 * rate + 1 for rate in rates),
        block_kernels=_BLOCK_KERNELS,
        dilations=_DILATIONS,
        paired=True,
    )
    config = {
        "resblock": "1",
        "upsample_rates": list(sizes.rates),
        "upsample_kernel_sizes": list(sizes.kernels),
        "upsample_initial_channel": sizes.channels,
        "resblock_kernel_sizes": list(sizes.block_kernels),
        "resblock_dilation_sizes": [list(dilations) for dilations in sizes.dilations],
        "num_mels": spec.n_mels,
        "n_fft": spec.n_fft,
        "hop_size": spec.hop_length,
        "win_size": spec.stft.win_length,
        "sampling_rate": spec.sr,
        "fmin": spec.fmin,
        "fmax": spec.top_hz,
    }
    model = HifiGan(sizes, spec, Layout(mel=lambda checkpoint, sizes: spec))
    draw_weights(model, lambda weight: nn.init.normal_(weight, std=0.01))
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            weight_norm(module)
    return Fresh(model=model, config=config, learning_rate=2e-4)


def factors(hop_length: int) -> tuple[int, ...]:
    """Return rates of at most 8 whose product is a hop, the largest first.

    A prime beyond 8 stays whole.

    >>> factors(256)
    (8, 8, 4)
    >>> factors(300)
    (6, 5, 5, 2)
    """
    rates = []
    while hop_length > 1:
        rate = max((r for r in range(2, _MOST_RATE + 1) if hop_length % r == 0), default=hop_length)
        rates.append(rate)
        hop_length //= rate
    return tuple(rates)
