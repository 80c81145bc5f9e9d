"""The steps of a training: a generator learns from spectral losses and from discriminators.

The discriminators may join at a later step.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melmill.stages.contract import Batch
from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import from_bands, to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train import losses
from melmill.stages.train.discriminators import Discriminators, phase_rotated
from melmill.stages.train.generators import fresh
from melmill.stages.train.recipe import Recipe
from melmill.stages.vocode.network import Vocoder

_BETAS = (0.8, 0.99)
_WARM_UP = 200
_LEAST_RATE = 0.02
_LARGEST_GRADIENT = 5.0
# Level of a segment relative to its recording, dB: other corpora are louder or quieter than this
# one.
_GAIN_DB = (-10.0, 6.0)
_MEL_WEIGHT = 1.0
_FEATURE_WEIGHT = 2.0
_ADVERSARIAL_WEIGHT = 0.1


def _ema(decay: float) -> Any:  # noqa: ANN401 - as torch takes it
    return get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]


class Curves:
    """Collect losses as means over stretches of steps, thinned to what a plot shows.

    Attributes
    ----------
    points : list of (str, str, int, float)
        Series, loss, step and value.
    """

    def __init__(self) -> None:
        self.points: list[tuple[str, str, int, float]] = []
        self._sums: dict[str, list[float]] = {}

    def add(self, series: str, step: int, losses: Mapping[str, float]) -> None:
        """Add a point of every loss."""
        self.points += [(series, name, step, value) for name, value in losses.items()]

    def average(self, series: str, step: int, losses: Mapping[str, float], stretch: int) -> None:
        """Take in the losses of a step. Where the step ends a stretch, add their means over it."""
        for name, value in losses.items():
            self._sums.setdefault(name, []).append(value)
        if step % stretch == 0:
            self.add(series, step, {name: sum(values) / len(values) for name, values in self._sums.items()})
            self._sums = {}

    def to_json(self) -> str:
        """Return everything as text, for `restore`."""
        return json.dumps({"points": self.points, "sums": self._sums})

    def restore(self, text: str) -> None:
        """Take over what `to_json` returned."""
        state = json.loads(text)
        self.points = [(series, name, int(step), float(value)) for series, name, step, value in state["points"]]
        self._sums = state["sums"]


class Diverged(StageError):
    """The losses of a training are no longer finite."""


class Trainer:
    """Hold a training between two steps.

    Its state, the recipe and the batches alone decide what it does next.

    Parameters
    ----------
    recipe : Recipe
    spec : MelSpec
        Spec of the mels.
    """

    def __init__(self, recipe: Recipe, spec: MelSpec) -> None:
        self.recipe, self.spec = recipe, spec
        self.device = torch.device(recipe.device)
        made = fresh(recipe.generator, recipe.size, spec, recipe.seed)
        self.config = made.config
        self.rate = recipe.learning_rate or made.learning_rate
        self.generator = made.model.to(self.device)
        self.averaged = AveragedModel(self.generator, multi_avg_fn=_ema(recipe.ema))
        self.optimiser = torch.optim.AdamW(self.generator.parameters(), self.rate, betas=_BETAS)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.discriminators: Discriminators | None = None
        if recipe.adversarial_from is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed)
                self.discriminators = Discriminators(recipe.discriminator_width).to(self.device)
            self.opponent = torch.optim.AdamW(self.discriminators.parameters(), self.rate, betas=_BETAS)
        self.bank = torch.from_numpy(np.array(mel_bank(spec))).to(self.device)
        self.step = 0
        self.curves = Curves()

    def learn(self, batch: Batch) -> dict[str, float]:
        """Take one step and return its losses by name.

        Parameters
        ----------
        batch : (ndarray of float32, ndarray of float32)
            Mels ``(batch, n_mels, n_frames)`` and their audio ``(batch, n_frames * hop_length)``.

        Raises
        ------
        Diverged
            The generator's loss is not finite.
        """
        mels, audio = self._at_other_levels(batch)
        self._set_rates()
        real = torch.from_numpy(audio).to(self.device, non_blocking=True)
        with self._precision():
            made = self.generator(torch.from_numpy(mels).to(self.device, non_blocking=True), None, self._starts(mels))
        fake, real = self._inside(made.float(), real)
        step_losses: dict[str, float] = {}
        adversarial = self.discriminators is not None and self.recipe.is_adversarial(self.step)
        if adversarial:
            step_losses["discriminators"] = self._teach_discriminators(fake.detach(), real)
        parts = {
            "spectral": losses.spectral_loss(fake, real),
            "mel": _MEL_WEIGHT * losses.mel_loss(fake, real, self.bank, self.spec.n_fft, self.spec.hop_length),
            **(self._judged(fake, real) if adversarial else {}),
        }
        total = torch.stack(list(parts.values())).sum()
        self._descend(total, self.optimiser, self.generator)
        self.averaged.update_parameters(self.generator)
        self.step += 1
        step_losses |= {name: float(part.detach()) for name, part in parts.items()}
        # The scaler leaves out a half-precision step that overflowed. A loss that is no number is
        # the end.
        if not math.isfinite(step_losses["spectral"]):
            raise Diverged(
                f"the training diverged at step {self.step}: try a lower learning_rate, or precision float32"
            )
        return step_losses

    def _at_other_levels(self, batch: Batch) -> Batch:
        """Return a batch whose segments are louder or quieter, each by its own draw."""
        mels, audio = batch
        draws = np.random.default_rng([self.recipe.seed, self.step]).uniform(*_GAIN_DB, size=len(mels))
        gains = (10.0 ** (draws / 20.0)).astype(np.float32)
        linear = [to_linear(M, self.spec) * gain**self.spec.power for M, gain in zip(mels, gains, strict=True)]
        return np.stack([from_bands(bands, self.spec) for bands in linear]), audio * gains[:, None]

    def _starts(self, mels: NDArray[np.float32]) -> list[Tensor]:
        """Return what the generator needs beside each mel, stacked."""
        drawn = [self.generator.drawn(torch.from_numpy(M), self._random(index)) for index, M in enumerate(mels)]
        return [torch.stack(parts).to(self.device) for parts in zip(*drawn, strict=True)]

    def _random(self, index: int) -> torch.Generator:
        seed = np.random.SeedSequence((self.recipe.seed, self.step, index)).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) >> 1)

    def _inside(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Cut off the ends, where the mel knows of sound that the segment does not hold."""
        half = self.spec.n_fft // 2
        end = min(fake.shape[1], real.shape[1]) - half
        return fake[:, half:end], real[:, half:end]

    def _teach_discriminators(self, fake: Tensor, real: Tensor) -> float:
        if self.discriminators is None:
            raise ValueError("there are no discriminators")
        self.discriminators.requires_grad_(True)
        fake, real = self._seen_by_discriminators(fake, real)
        with self._precision():
            loss = losses.discriminator_loss(self.discriminators(real)[0], self.discriminators(fake)[0])
        self._descend(loss, self.opponent, self.discriminators)
        return float(loss.detach())

    def _judged(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        if self.discriminators is None:
            raise ValueError("there are no discriminators")
        self.discriminators.requires_grad_(False)
        fake, real = self._seen_by_discriminators(fake, real)
        with self._precision():
            judgements, features = self.discriminators(fake)
            _, wanted = self.discriminators(real)
            return {
                "adversarial": _ADVERSARIAL_WEIGHT * losses.generator_loss(judgements),
                "features": _FEATURE_WEIGHT * losses.feature_loss(wanted, features),
            }

    def _seen_by_discriminators(self, fake: Tensor, real: Tensor) -> Sequence[Tensor]:
        return phase_rotated((fake, real), self._random(-1 & 0xFFFF)) if self.recipe.phase_aug else (fake, real)

    def _descend(self, loss: Tensor, optimiser: torch.optim.Optimizer, model: nn.Module) -> None:
        optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
        self.scaler.step(optimiser)
        self.scaler.update()

    def _set_rates(self) -> None:
        """Warm the learning rates up, then lower them along half a cosine to a fiftieth."""
        begun = min(1.0, (self.step + 1) / _WARM_UP)
        left = 0.5 * (1.0 + math.cos(math.pi * self.step / self.recipe.steps))
        rate = self.rate * begun * (_LEAST_RATE + (1.0 - _LEAST_RATE) * left)
        for optimiser in (self.optimiser, *([self.opponent] if self.discriminators is not None else [])):
            for group in optimiser.param_groups:
                group["lr"] = rate

    def _precision(self) -> torch.autocast:
        if self.recipe.precision == "float32":
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast(self.device.type, dtype=getattr(torch, self.recipe.precision))

    @property
    def model(self) -> Vocoder:
        """The averaged generator."""
        return cast("Vocoder", self.averaged.module)

    def state(self) -> bytes:
        """Return what a later process needs to resume, as the bytes of a file.

        The file holds tensors and plain values.
        """
        parts = {name: part.state_dict() for name, part in self._parts()}
        buffer = io.BytesIO()
        torch.save({"step": self.step, "curves": self.curves.to_json(), **parts}, buffer)
        return buffer.getvalue()

    def resume(self, state: bytes) -> None:
        """Resume from a state; raise StageError where it is not one of this training's."""
        try:
            saved: Mapping[str, Any] = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
            for name, part in self._parts():
                part.load_state_dict(saved[name])
            self.step = int(saved["step"])
            self.curves.restore(saved["curves"])
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            raise StageError(
                f"the saved state of the training can't be resumed ({error}): remove it to start anew"
            ) from error

    def _parts(self) -> Iterator[tuple[str, Any]]:
        yield "generator", self.generator
        yield "averaged", self.averaged
        yield "optimiser", self.optimiser
        yield "scaler", self.scaler
        if self.discriminators is not None:
            yield "discriminators", self.discriminators
            yield "opponent", self.opponent
