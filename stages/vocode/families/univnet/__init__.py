"""The family `univnet`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint


def _recognises(checkpoint: Checkpoint) -> bool:
    return any(key.startswith("res_stack.0.kernel_predictor.") for key in checkpoint.state)


FAMILY = Family(
    name="univnet",
    about="UnivNet (Jang et al. 2021).",
    network="melmill.stages.vocode.families.univnet.network",
    recognises=_recognises,
)
