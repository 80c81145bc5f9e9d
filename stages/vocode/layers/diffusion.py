"""What diffusion vocoders share: a denoiser that runs backwards along a noise schedule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.invert.inversion import shortest_length, solve
from melmill.stages.numeric.checks import MAX_N_ITER, check_int
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.numeric.solver import Recipe
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.schedule import DiffusionOptions, Step, checked_betas, reverse_steps
from melmill.stages.vocode.network import Checkpoint, Noise, Vocoder
from melmill.stages.vocode.settings import fitting


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Replace the estimate of the first reverse steps by a signal of the mel's magnitude.

    The signal keeps its own phase.

    Parameters
    ----------
    n_steps : int
        Number of reverse steps, the noisiest first, whose mean is corrected before fresh noise is
        added.
    n_iter : int
        Iterations of Griffin-Lim at each of these steps.
    momentum : float
        Momentum of Griffin-Lim, in [0, 1).

    References
    ----------
    Liu, Baoueb, Fontaine, Le Roux and Richard 2024 (GLA-Grad): three steps of 32 iterations on the
        pseudo-inverse of the mel. Their code then scales to a peak of 0.95. Here the level is that
        of the mel.
    """

    n_steps: int = 3
    n_iter: int = 32
    momentum: float = 0.1

    def __post_init__(self) -> None:
        """Check the counts; `GriffinLim` checks the momentum."""
        for name in ("n_steps", "n_iter"):
            check_int(name, getattr(self, name), at_least=1, at_most=MAX_N_ITER)
        GriffinLim(momentum=self.momentum)

    def apply(self, y: NDArray[Any], M: NDArray[Any], spec: MelSpec) -> NDArray[np.float32]:
        """Return the signal that Griffin-Lim makes of the estimate `y` and the mel `M`.

        Parameters
        ----------
        y : ndarray of float32, shape (n_samples,)
            About ``n_frames * hop_length`` samples. Samples beyond M's frames stay as they are.
        M : ndarray of float32, shape (n_mels, n_frames)
            Made by `spec`.
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


class Diffusion(Vocoder):
    """Draw white noise and remove it step by step, guided by the mel.

    Attributes
    ----------
    betas : tuple of float
        Noise variances of the steps, in order of diffusion (the cleanest first). They may be set:
        fewer steps are faster.
    correction : Correction or None
        Griffin-Lim between the first steps; None, the default, is the published sampler.
    """

    correction: Correction | None = None
    _steps: list[Step]

    @property
    def betas(self) -> tuple[float, ...]:
        """Noise variances of the steps, in order of diffusion."""
        return self._betas

    @betas.setter
    def betas(self, betas: Sequence[float]) -> None:
        self._betas = checked_betas(betas)
        self._steps = reverse_steps(self._betas, self.times(self._betas))

    def configure(self, options: DiffusionOptions) -> None:
        """Take over the schedule and the correction that a pipeline asks for."""
        if options.betas is not None:
            self.betas = options.betas
        if options.correction:
            self.correction = Correction()

    @abstractmethod
    def times(self, betas: Sequence[float]) -> Sequence[float]:
        """Return the time that the network gets at every step of a schedule."""

    @abstractmethod
    def condition(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return what `denoise` needs of the mel, the same at all steps."""

    @abstractmethod
    def denoise(self, y: Tensor, condition: Tensor, time: float, lengths: Tensor | None = None) -> Tensor:
        """Return the noise ``(batch, n_samples)`` that the network finds in `y`.

        Parameters
        ----------
        y : Tensor of float32, shape (batch, n_samples)
        condition : Tensor
            Made of the mel by the method `condition`.
        time : float
            See `Step`.
        lengths : Tensor of int64, shape (batch,), or None
            Frames of each.
        """

    def n_samples(self, n_frames: int) -> int:
        """Return how many samples a mel of `n_frames` gives."""
        return n_frames * self.spec.hop_length

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        """Draw normal noise ``(n_samples,)`` of variance 1.

        The start comes first, then one draw for every step but the last.
        """
        size = self.n_samples(n_frames)
        return tuple(torch.randn(size, generator=generator, device=generator.device) for _ in self.betas)

    def takes(self, n_frames: int, noise: Noise) -> bool:
        """Tell whether noise is a draw ``(n_samples,)`` for every step.

        It does so without drawing that many.
        """
        return [tuple(draw.shape) for draw in noise] == [(self.n_samples(n_frames),)] * len(self.betas)

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        """Return the waveforms of a batch, in [-1, 1]; see `Vocoder`.

        Raises
        ------
        VocoderError
            There are not as many draws as steps.
        """
        if len(noise) != len(self.betas):
            raise VocoderError(
                f"{self.family}: {len(noise)} draws of noise for a schedule of {len(self.betas)} steps: "
                "give one a step, or set `betas` to the schedule of the draws"
            )
        condition = self.condition(mel, lengths)
        y = noise[0]
        for n, step in enumerate(self._steps):
            y = step.gain * (y - step.share * self.denoise(y, condition, step.time, lengths))
            if self.correction is not None and n < self.correction.n_steps:
                y = self._corrected(self.correction, y, mel, lengths)
            if n + 1 < len(noise):
                y = y + step.sigma * noise[n + 1]
            y = y.clamp(-1.0, 1.0)
        return y

    def _corrected(self, correction: Correction, y: Tensor, mel: Tensor, lengths: Tensor | None) -> Tensor:
        frames = [mel.shape[-1]] * len(mel) if lengths is None else lengths.tolist()
        result = np.zeros(y.shape, dtype=np.float32)
        for i, n_frames in enumerate(frames):
            n_samples = self.n_samples(n_frames)
            one, M = y[i, :n_samples].numpy(force=True), mel[i, :, :n_frames].numpy(force=True)
            result[i, :n_samples] = correction.apply(one, M, self.spec)
        return torch.from_numpy(result).to(y.device)


def recipe_spec(checkpoint: Checkpoint, name: str, n_mels: int, hop_length: int) -> MelSpec:
    """Return the mel of an lmnt recipe.

    It is the recipe's preset with windows of four hops, and what its parameters change.

    Raises
    ------
    VocoderError
        The mel that the user asked for has other bands or another hop than the network.
    """
    window = 4 * hop_length
    usual = replace(
        preset(name),
        sr=int(checkpoint.config.get("sample_rate", preset(name).sr)),
        n_mels=n_mels,
        hop_length=hop_length,
        win_length=window,
        n_fft=int(checkpoint.config.get("n_fft", 2 ** (window - 1).bit_length())),
    )
    return fitting(checkpoint, checkpoint.mel or usual, n_mels=n_mels, hop_length=hop_length)
