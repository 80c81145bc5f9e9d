"""An unfolded inversion with random weights, which answers with its start."""

from __future__ import annotations

import math

from torch import nn

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.generators import Fresh, draw_weights
from melmill.stages.train.recipe import Size
from melmill.stages.vocode.families.unfolded.network import Unfolded, UnfoldedSizes

_SIZES = {
    "small": UnfoldedSizes(width=160, hidden=320, n_blocks=3, n_steps=3),
    "base": UnfoldedSizes(width=384, hidden=1152, n_blocks=4, n_steps=3),
}


def fresh(size: Size, spec: MelSpec) -> Fresh:
    """Make a generator for mels of `spec`; see `melmill.stages.train.generators.fresh`."""
    model = Unfolded(_SIZES[size], spec, ends_by_mel=True)
    draw_weights(model, lambda weight: nn.init.kaiming_uniform_(weight, a=math.sqrt(5)))
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.1)
        elif ".out." in name:
            # The first answer is the start itself.
            nn.init.zeros_(parameter)
    return Fresh(model=model, config={"model": "unfolded", "ends": "mel"}, learning_rate=1e-3)
