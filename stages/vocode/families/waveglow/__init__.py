"""The family `waveglow`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from melmill.stages.numeric.checks import check_float
from melmill.stages.vocode.family import Family

if TYPE_CHECKING:
    from melmill.stages.vocode.network import Checkpoint


@dataclass(frozen=True, kw_only=True)
class WaveGlowOptions:
    """The fields that the stage has besides those of all vocoders.

    Parameters
    ----------
    sigma : float or None
        Standard deviation of the noise; None: what its configuration says.
    """

    sigma: float | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.sigma is not None:
            check_float("sigma", self.sigma, at_least=0)


def _recognises(checkpoint: Checkpoint) -> bool:
    coupling, convolution = (
        any(key.startswith(prefix) for key in checkpoint.state) for prefix in ("WN.0.", "convinv.")
    )
    return coupling and convolution


FAMILY = Family(
    name="waveglow",
    about="WaveGlow (Prenger et al. 2019).",
    network="melmill.stages.vocode.families.waveglow.network",
    recognises=_recognises,
    options=WaveGlowOptions,
)
