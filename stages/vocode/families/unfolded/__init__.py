"""The family `unfolded`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_TENSORS = {"steps.0.blocks.0.dwconv.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.state.keys() >= _TENSORS


FAMILY = Family(
    name="unfolded",
    about="Learned steps from a PGHI start, as `train_vocoder` makes them.",
    network="melmill.stages.vocode.families.unfolded.network",
    recognises=_recognises,
)
