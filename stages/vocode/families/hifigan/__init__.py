"""The family `hifigan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family, Training, needs_log_mels

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

# Its first convolution, upsampling and residual block, in the layout of ParallelWaveGAN and ESPnet.
PARALLEL_WAVEGAN = {"input_conv.weight", "upsamples.0.1.weight", "blocks.0.convs1.0.1.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    keys = checkpoint.state.keys()
    block = {"resblocks.0.convs1.0.weight", "resblocks.0.convs.0.weight"} & keys
    upsampling = {"ups.0.weight", "upsampler.0.weight"} & keys
    return keys >= PARALLEL_WAVEGAN or ("conv_pre.weight" in keys and bool(block) and bool(upsampling))


FAMILY = Family(
    name="hifigan",
    about="HiFi-GAN (Kong et al. 2020).",
    network="melmill.stages.vocode.families.hifigan.network",
    recognises=_recognises,
    training=Training(module="melmill.stages.vocode.families.hifigan.training", refuses=needs_log_mels),
)
