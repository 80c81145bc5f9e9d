"""The family `wavenet`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_TENSORS = {"first_conv.weight", "conv_layers.0.conv.weight", "last_conv_layers.3.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.state.keys() >= _TENSORS


FAMILY = Family(
    name="wavenet",
    about="WaveNet (van den Oord et al. 2016).",
    network="melmill.stages.vocode.families.wavenet.layouts",
    recognises=_recognises,
    one_pass=False,
)
