"""The family `wavegrad`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family
from melmill.stages.vocode.layers.schedule import DiffusionOptions

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_TENSORS = {"downsample.0.weight", "film.0.input_conv.weight", "first_conv.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.state.keys() >= _TENSORS


FAMILY = Family(
    name="wavegrad",
    about="WaveGrad (Chen et al. 2021).",
    network="melmill.stages.vocode.families.wavegrad.network",
    recognises=_recognises,
    one_pass=False,
    options=DiffusionOptions,
)
