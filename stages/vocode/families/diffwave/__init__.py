"""The family `diffwave`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family
from melmill.stages.vocode.layers.schedule import DiffusionOptions

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_TENSORS = {"residual_layers.0.dilated_conv.weight", "diffusion_embedding.projection1.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.state.keys() >= _TENSORS


FAMILY = Family(
    name="diffwave",
    about="DiffWave (Kong et al. 2021).",
    network="melmill.stages.vocode.families.diffwave.network",
    recognises=_recognises,
    one_pass=False,
    options=DiffusionOptions,
)
