"""Names of what can be trained; without torch, so that a plan needs none."""

from __future__ import annotations

from typing import Literal

Generator = Literal["vocos", "hifigan", "unfolded"]
GENERATORS: tuple[Generator, ...] = ("vocos", "hifigan", "unfolded")
Size = Literal["small", "base"]
SIZES: tuple[Size, ...] = ("small", "base")
