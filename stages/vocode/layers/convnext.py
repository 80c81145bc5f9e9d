"""ConvNeXt blocks over frames, of the families that work at the frame rate.

References
----------
Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for high-quality audio
synthesis", ICLR 2024, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from melmill.stages.vocode.layers.basic import Conv1d, Ends, Linear, same_padding

KERNEL = 7
EPS = 1e-6


class Block(nn.Module):
    """A depthwise convolution, then two linear maps of each frame, added to what came in.

    Parameters
    ----------
    width, hidden : int
        Channels outside and between the linear maps.
    scaled : bool
        What is added is weighed by `gamma`, a factor a channel.
    """

    def __init__(self, width: int, hidden: int, scaled: bool) -> None:
        super().__init__()
        self.dwconv = Conv1d(width, width, KERNEL, padding=same_padding(KERNEL), groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.pwconv1 = Linear(width, hidden)
        self.pwconv2 = Linear(hidden, width)
        self.gamma = nn.Parameter(torch.empty(width)) if scaled else None

    def forward(self, x: Tensor, ends: Ends) -> Tensor:
        """Return ``(batch, width, n_frames)`` of the same shape."""
        y = self.norm(self.dwconv(ends.cut(x)).transpose(1, 2))
        y = self.pwconv2(gelu(self.pwconv1(y)))
        y = y if self.gamma is None else self.gamma * y
        added: Tensor = y.transpose(1, 2)
        return x + added
