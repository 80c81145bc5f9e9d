"""The family `bigvgan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_TENSORS = {"ups.0.0.weight", "activation_post.act.alpha", "conv_post.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.state.keys() >= _TENSORS


FAMILY = Family(
    name="bigvgan",
    about="BigVGAN (Lee et al. 2023).",
    network="melmill.stages.vocode.families.bigvgan.network",
    recognises=_recognises,
)
