"""The family `unfolded`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.family import Family, Training

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_TENSORS = {"steps.0.blocks.0.dwconv.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.state.keys() >= _TENSORS


def _refuses(spec: MelSpec) -> str | None:
    if spec.center is not True:
        return f"learns from centred frames, but the mel has center: {spec.center!r}: extract with center: true"
    return None


FAMILY = Family(
    name="unfolded",
    about="Learned steps from a PGHI start, as `train_vocoder` makes them.",
    network="melmill.stages.vocode.families.unfolded.network",
    recognises=_recognises,
    training=Training(module="melmill.stages.vocode.families.unfolded.training", refuses=_refuses),
)
