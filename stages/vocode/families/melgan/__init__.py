"""The family `melgan`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint

# A dilated convolution of a residual block, in the layouts of descript and of seungwonpark.
_BLOCK = re.compile(r"model\.\d+\.block\.2\.weight|generator\.\d+\.blocks\.\d+\.2\.weight")


def _recognises(checkpoint: Checkpoint) -> bool:
    return any(map(_BLOCK.fullmatch, checkpoint.state))


FAMILY = Family(
    name="melgan",
    about="MelGAN (Kumar et al. 2019).",
    network="melmill.stages.vocode.families.melgan.network",
    recognises=_recognises,
)
