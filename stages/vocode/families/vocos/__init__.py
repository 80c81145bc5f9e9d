"""The family `vocos`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family, Training, needs_log_mels

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

_TENSORS = {"backbone.embed.weight", "head.out.weight", "backbone.convnext.0.dwconv.weight"}


def _recognises(checkpoint: Checkpoint) -> bool:
    return checkpoint.state.keys() >= _TENSORS


FAMILY = Family(
    name="vocos",
    about="Vocos (Siuzdak 2024).",
    network="melmill.stages.vocode.families.vocos.network",
    recognises=_recognises,
    training=Training(module="melmill.stages.vocode.families.vocos.training", refuses=needs_log_mels),
)
