"""Griffin-Lim between the steps of a diffusion vocoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.dsp.recipe import Recipe
from melmill.stages.dsp.solvers import GriffinLim
from melmill.stages.errors import ParameterError
from melmill.stages.inversion import shortest_length, solve


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Replace the estimate of the first reverse steps by a signal that has the mel's magnitude and its own phase.

    Parameters
    ----------
    n_steps : int
        Reverse steps, from the noisiest on, whose mean is corrected before fresh noise is added.
    n_iter : int
        Iterations of Griffin-Lim at each of them.
    momentum : float
        Of Griffin-Lim, in [0, 1).

    References
    ----------
    Liu, Baoueb, Fontaine, Le Roux and Richard 2024 (GLA-Grad): three steps of 32 iterations on the pseudo-inverse of
    the mel.  Their code then scales to a peak of 0.95; here the level is the mel's own.
    """

    n_steps: int = 3
    n_iter: int = 32
    momentum: float = 0.1

    def __post_init__(self) -> None:
        """Check the counts; `GriffinLim` checks the momentum."""
        for name in ("n_steps", "n_iter"):
            if getattr(self, name) < 1:
                raise ParameterError(name, f"must be at least 1, got {getattr(self, name)!r}: None turns it off")
        GriffinLim(momentum=self.momentum)

    def apply(self, y: NDArray[Any], M: NDArray[Any], spec: MelSpec) -> NDArray[np.float32]:
        """Return the signal that Griffin-Lim makes of estimate `y` and mel `M`.

        Parameters
        ----------
        y : ndarray of float32, shape (n_samples,)
            About ``n_frames * hop_length`` samples; those past the last that keeps M's frames stay as they are.
        M : ndarray of float32, shape (n_mels, n_frames)
            As made by `spec`.
        spec : MelSpec

        Returns
        -------
        ndarray of float32, shape (n_samples,)
        """
        length = min(y.size, shortest_length(spec, M.shape[1]) + spec.hop_length - 1)
        recipe = Recipe(
            method=GriffinLim(momentum=self.momentum), n_iter=self.n_iter, start=y[:length], magnitude="pinv"
        )
        return np.concatenate([solve(M, spec, recipe, length).y, y[length:]])
