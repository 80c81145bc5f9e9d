"""The steps of a vocoder's training: a generator learns from spectral losses and discriminators.

The discriminators may join at a later step.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.contract import Batch, StageFile, StageFiles, TrainedVocoder, TrainingData
from melmill.stages.numeric.batched.device import placement
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import from_bands, to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train import losses
from melmill.stages.train.discriminators import (
    Discriminators,
    fresh_discriminators,
    given_discriminators,
    phase_rotated,
)
from melmill.stages.train.generators import begun, fresh
from melmill.stages.train.held_out import CHECKED_S, mean_of, references
from melmill.stages.train.recipe import DISCRIMINATORS, Recipe
from melmill.stages.train.trainer import Made, Trainer, descend
from melmill.stages.vocode.files.checkpoint import read_files
from melmill.stages.vocode.files.companions import CONFIG, WEIGHTS
from melmill.stages.vocode.files.rewriting import rewritten
from melmill.stages.vocode.loaded import LoadedVocoder, load
from melmill.stages.vocode.network import Vocoder
from melmill.storage.utterance import Utterance

_BETAS = (0.8, 0.99)
_WARM_UP = 200
_LEAST_RATE = 0.02
# Rate to start from with a checkpoint, a tenth of the usual one.
_FINE_RATE = 2e-5
# Level of a segment relative to its recording, dB: other corpora are louder or quieter than this
# one.
_GAIN_DB = (-10.0, 6.0)
_MEL_WEIGHT = 1.0
_FEATURE_WEIGHT = 2.0
_ADVERSARIAL_WEIGHT = 0.1


class VocoderTrainer(Trainer):
    """Hold a vocoder's training between two steps.

    Parameters
    ----------
    recipe : Recipe
    spec : MelSpec
        Spec of the mels.
    init : mapping of str to StageFile or None
        The files of a checkpoint to begin with. None: random weights.
    """

    def __init__(self, recipe: Recipe, spec: MelSpec, init: StageFiles | None = None) -> None:
        self.recipe, self.init = recipe, init
        self.device = placement(recipe.device, "float32").device
        if init is None:
            made = fresh(recipe.generator, recipe.size, spec, recipe.seed)
        else:
            made = begun(init, spec, recipe.frozen, _FINE_RATE)
        self.config = made.config
        self.generator = made.model.to(self.device)
        super().__init__(
            self.generator, spec, rate=recipe.learning_rate or made.learning_rate, ema=recipe.ema, betas=_BETAS
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "float16")
        self.discriminators: Discriminators | None = None
        if recipe.adversarial_from is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed)
                self.discriminators = self._discriminators().to(self.device)
            self.opponent = torch.optim.AdamW(self.discriminators.parameters(), self.rate, betas=_BETAS)
        self.bank = torch.from_numpy(np.array(mel_bank(spec))).to(self.device)

    def _discriminators(self) -> Discriminators:
        """Return the discriminators of the checkpoint where they were given, else fresh ones."""
        if self.init is not None and DISCRIMINATORS in self.init:
            return given_discriminators(self.init[DISCRIMINATORS], self.config)
        return fresh_discriminators(self.recipe.discriminator_width)

    def batches(self, data: TrainingData, ids: Collection[str]) -> Iterator[Batch]:
        """Return the batches from the present step on."""
        recipe = self.recipe
        return data.batches(
            ids,
            segment_frames=recipe.segment_frames,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            first=self.step,
        )

    def learn(self, batch: Batch) -> dict[str, float]:
        """Take one step and return its losses by name."""
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
        self._descend(total, self.scaler)
        step_losses |= {name: float(part.detach()) for name, part in parts.items()}
        # The scaler leaves out a half-precision step that overflowed. A loss that is no number is
        # the end.
        self._check_finite(step_losses["spectral"], "try a lower learning_rate, or precision float32")
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
            judged = self.discriminators(real)[0], self.discriminators(fake)[0]
            loss = losses.discriminator_loss(*judged, squares=self.discriminators.squares)
        descend(loss, self.opponent, self.discriminators, self.scaler)
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
                "adversarial": _ADVERSARIAL_WEIGHT
                * losses.generator_loss(judgements, squares=self.discriminators.squares),
                "features": _FEATURE_WEIGHT * losses.feature_loss(wanted, features),
            }

    def _seen_by_discriminators(self, fake: Tensor, real: Tensor) -> Sequence[Tensor]:
        return phase_rotated((fake, real), self._random(-1 & 0xFFFF)) if self.recipe.phase_aug else (fake, real)

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

    def check(self, data: TrainingData, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Return the losses of the averaged generator on held-out utterances."""
        spec, found = self.spec, []
        self.model.eval()
        for utterance in utterances:
            M, y = data.whole(utterance.utterance_id)
            n_frames = min(M.shape[1], int(CHECKED_S * spec.sr / spec.hop_length))
            fake = self._generated(M[:, :n_frames])
            n_samples = min(fake.size, y.size)
            made, real = (torch.from_numpy(np.ascontiguousarray(x[None, :n_samples])) for x in (fake, y))
            mel = losses.mel_loss(made, real, self.bank.cpu(), spec.n_fft, spec.hop_length)
            found.append({"spectral": float(losses.spectral_loss(made, real)), "mel": float(mel)})
        return mean_of(found)

    def _generated(self, M: NDArray[np.float32]) -> NDArray[np.float32]:
        voc = LoadedVocoder(model=self.model, name="the averaged generator", device=str(self.device))
        return voc.together([M], [0])[0]  # not checked: a loss that is not finite is told as such

    def made(self, data: TrainingData, held: Sequence[Utterance]) -> Made:
        """Return the averaged generator, as its family is published."""
        del data, held
        files = {
            TrainedVocoder.files[WEIGHTS]: self._weights(),
            TrainedVocoder.files[CONFIG]: json.dumps(self.config, indent=1).encode(),
        }
        voc = load(
            read_files({role: StageFile(url=name, data=files[name]) for role, name in TrainedVocoder.files.items()})
        )

        def generated(M: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
            y = voc.together([M], [0])[0][:n_samples]  # not checked: its scores say it
            return np.pad(y, (0, n_samples - y.size))

        recipe, n_bytes = self.recipe, len(files[TrainedVocoder.files[WEIGHTS]])
        kind = " in float16" if self.init is None else f", begun with `{self.init[WEIGHTS].name}` in whose layout it is"
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return Made(
            files=files,
            says=f"A vocoder of the family `{self.model.family}`, {parameters:,} parameters, {n_bytes / 1e6:.1f} MB"
            f"{kind}, trained by melmill's `train_vocoder`. Made for the mel that `config.json` describes; `melmill "
            "mel explain` says what differs from another.",
            facts={
                "parameters": parameters,
                "bytes": n_bytes,
                "heard_h": self.heard_h(recipe.batch_size, recipe.segment_frames),
            },
            inverters={self._called: generated, **references(self.spec)},
            metrics=("pesq_wb", "estoi", "scm", "mel_mae", "lsd"),
            baseline="griffin_lim 100",
        )

    @property
    def _called(self) -> str:
        if self.init is not None:
            return f"{self.model.family} fine-tuned"
        return f"{self.recipe.generator} {self.recipe.size}"

    def _weights(self) -> bytes:
        """Return the averaged generator's weights: in float16, or as the checkpoint that it began with."""
        if self.init is not None:
            file = self.init[WEIGHTS]
            return rewritten(file.name, file.data, self.model.state_dict())
        state = {
            name: tensor.detach().cpu().half() if tensor.is_floating_point() else tensor.detach().cpu()
            for name, tensor in self.model.state_dict().items()
        }
        buffer = io.BytesIO()
        torch.save({"generator": state}, buffer)
        return buffer.getvalue()

    def _parts(self) -> Iterator[tuple[str, Any]]:
        yield from super()._parts()
        yield "scaler", self.scaler
        if self.discriminators is not None:
            yield "discriminators", self.discriminators
            yield "opponent", self.opponent
