"""The steps of a prior's training: a network learns to guess the magnitude that a mel was made of."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.contract import Batch, TrainedPrior, TrainingData
from melmill.stages.invert.inversion import inverted
from melmill.stages.invert.priors import shipped_prior
from melmill.stages.numeric.batched.device import placement
from melmill.stages.numeric.batched.prior import PriorNetwork, agreeing, bank_of
from melmill.stages.numeric.compiled.magnitude import starting_magnitude
from melmill.stages.numeric.compiled.prior import row_sums
from melmill.stages.numeric.lanes.sweep import from_lanes
from melmill.stages.numeric.mel import to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior
from melmill.stages.numeric.solver import Recipe as InversionRecipe
from melmill.stages.numeric.stft import Stft
from melmill.stages.train.augmentation import Augmentation, Spectra, magnitude
from melmill.stages.train.held_out import CHECKED_S, SCORED, Invert, chosen, mean_of, references
from melmill.stages.train.prior_losses import LOSSES, Frames, Segment, agreed, unrolled
from melmill.stages.train.recipe import RANDOM, PriorRecipe
from melmill.stages.train.trainer import Made, Trainer
from melmill.storage.utterance import Utterance

_BETAS = (0.9, 0.99)
# One cycle: the rate rises along half a cosine over this share of the steps, and falls after it.
_RISING = 0.3
_FIRST_RATE, _LAST_RATE = 0.04, 1e-3
# Magnitude that a full band has in the units of the losses.
_FULL = 16.0
_ERROR = "magnitude error, dB"


class PriorTrainer(Trainer):
    """Hold a prior's training between two steps.

    Parameters
    ----------
    recipe : PriorRecipe
    spec : MelSpec
        Spec of the mels.
    """

    def __init__(self, recipe: PriorRecipe, spec: MelSpec) -> None:
        self.recipe, self.device = recipe, placement(recipe.device, "float32").device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = PriorNetwork(spec, recipe.sizes())
        if recipe.begin != RANDOM:
            network.begin_from(shipped_prior(recipe.begin))
        network.to(self.device)
        super().__init__(network, spec, rate=recipe.learning_rate, ema=recipe.ema, betas=_BETAS)
        change = Augmentation(speed=recipe.speed, gain_db=recipe.gain_db, tilt_db=recipe.tilt_db)
        self.spectra = Spectra(spec, change, recipe.segment_frames, self.device)
        self.frames = Frames(window=self.spectra.window, hop_length=spec.hop_length)
        self.bank = bank_of(spec, self.device)
        self.unit = _FULL * float(row_sums(spec).mean()) ** (1 / spec.power)
        self._nnls: float | None = None

    @property
    def model(self) -> PriorNetwork:
        """The averaged network."""
        return cast("PriorNetwork", self.averaged.module)

    def batches(self, data: TrainingData, ids: Collection[str]) -> Iterator[Batch]:
        """Return the batches from the present step on."""
        return data.batches(
            ids,
            segment_frames=self.spectra.feed_frames,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            first=self.step,
        )

    def learn(self, batch: Batch) -> dict[str, float]:
        """Take one step and return its losses by name."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * one_cycle(self.step / self.recipe.steps)
        parts = self.losses(self._segment(batch[1]))
        self._descend(torch.stack(list(parts.values())).sum())
        found = {name: float(part.detach()) for name, part in parts.items()}
        self._check_finite(sum(found.values()))
        return found

    def _segment(self, audio: NDArray[np.float32]) -> Segment:
        """Return segments of recordings at other speeds, timbres and levels, and a guess of each."""
        rng = np.random.default_rng([self.recipe.seed, self.step, 1])
        D = self.spectra.drawn(audio, rng)
        A = magnitude(D)
        bands = self.spectra.bands(A)
        top = bands.amax(dim=(1, 2)).clamp(min=torch.finfo(bands.dtype).tiny)
        level = self.spectra.gains(rng, len(audio)) * top ** (-1 / self.spec.power)
        m = bands * (level**self.spec.power)[:, None, None]
        return Segment(
            Y=self.network(m).exp(),
            A=A * level[:, None, None],
            D=D,
            m=m,
            own=(bands > self.spectra.floor).any(dim=2),
            unit=self.unit,
        )

    def losses(self, segment: Segment) -> dict[str, Tensor]:
        """Return the losses of a guess, each with its weight, by name."""
        recipe = self.recipe
        Y = agreed(segment, self.bank, recipe.n_updates)
        if recipe.unrolled:
            Y = unrolled(Y, segment, self.frames, recipe.unrolled)
        weights = {name: getattr(recipe, name) for name in LOSSES}
        return {name: weight * LOSSES[name](Y, segment) for name, weight in weights.items() if weight}

    def check(self, data: TrainingData, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Return losses and magnitude error on held-out utterances; add NNLS's error to the curves."""
        found, of_nnls = [], []
        for utterance in utterances:
            linear, D = self._whole(data, utterance)
            A, (Y, losses) = np.abs(D), self._guessed(linear, D)
            found.append({**losses, _ERROR: error_db(Y, A)})
            if self._nnls is None:
                of_nnls.append(error_db(self._started(linear, None), A))
        if self._nnls is None and of_nnls:
            self._nnls = float(np.mean(of_nnls))
        if self._nnls is not None:
            self.curves.add("NNLS", self.step, {_ERROR: self._nnls})
        return mean_of(found)

    def _whole(
        self, data: TrainingData, utterance: Utterance
    ) -> tuple[NDArray[np.float32], NDArray[np.complexfloating]]:
        """Return the first seconds of an utterance: linear mel ``(n_mels, n)``, and spectrum ``(n_bins, n)``."""
        M, y = data.whole(utterance.utterance_id)
        D = Stft(self.spec.stft).forward(y).T
        n = min(M.shape[1], D.shape[1], int(CHECKED_S * self.spec.sr / self.spec.hop_length))
        return to_linear(M[:, :n], self.spec), D[:, :n]

    @torch.no_grad()
    def _guessed(
        self, linear: NDArray[np.float32], D: NDArray[np.complexfloating]
    ) -> tuple[NDArray[np.float32], dict[str, float]]:
        """Return the averaged network's magnitude ``(n_bins, n)``, made to agree with the mel, and its losses."""
        X = torch.from_numpy(np.asarray(D.T, dtype=np.complex64)).to(self.device)[None]
        top = max(float(linear.max(initial=0.0)), float(np.finfo(np.float32).tiny))
        level = top ** (-1 / self.spec.power)
        m = torch.from_numpy(linear.T / np.float32(top)).to(self.device)[None]
        segment = Segment(
            Y=self.model(m).exp(),
            A=magnitude(X) * level,
            D=X,
            m=m,
            own=m.amax(dim=2) > 0,
            unit=self.unit,
        )
        Y = agreeing(segment.Y, m, self.bank)[0] / level
        return Y.cpu().numpy().T, {name: float(loss) for name, loss in self.losses(segment).items()}

    def _started(self, linear: NDArray[np.float32], prior: Prior | None) -> NDArray[np.floating]:
        """Return the magnitude ``(n_bins, n)`` that inverters start from, by a prior or by NNLS."""
        lanes = starting_magnitude(linear, self.spec, InversionRecipe(method=None, n_iter=0, prior=prior))
        return from_lanes(lanes, linear.shape[1])

    def made(self, data: TrainingData, held: Sequence[Utterance]) -> Made:
        """Return the averaged network, as inverters take it."""
        prior = Prior(spec=self.spec, sizes=self.model.sizes, weights=self.model.tensors(), name="prior")
        data_of_file = prior.encoded()
        errors: dict[str, list[float]] = {"NNLS": [], "prior": []}
        for utterance in chosen(held, SCORED):
            linear, D = self._whole(data, utterance)
            for name, given in (("NNLS", None), ("prior", prior)):
                errors[name].append(error_db(self._started(linear, given), np.abs(D)))
        recipe, parameters = self.recipe, sum(values.size for values in prior.weights.values())
        found = ", ".join(f"{name} {np.mean(values):.1f} dB" for name, values in errors.items() if values)
        return Made(
            files={TrainedPrior.files["prior"]: data_of_file},
            says=f"A prior for mel inversion, {parameters:,} parameters, {len(data_of_file) / 1e6:.2f} MB in float16, "
            "trained by melmill's `train_prior`. Its file says the mel that it needs.",
            facts={
                "parameters": parameters,
                "bytes": len(data_of_file),
                "digest": prior.digest,
                "heard_h": self.heard_h(recipe.batch_size, recipe.segment_frames),
                "notes": [f"Error of the starting magnitude on held-out speakers: {found}."] if found else [],
            },
            inverters={"invert good, prior": self._inverter(prior), **references(self.spec)},
            metrics=("pesq_wb", "estoi", "scm", "sc"),
            baseline="invert good",
        )

    def _inverter(self, prior: Prior) -> Invert:
        def guided(M: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
            return inverted(M, self.spec, quality="good", length=n_samples, prior=prior).y

        return guided


def one_cycle(done: float) -> float:
    """Return the share of the highest rate after a share of the steps.

    >>> [round(one_cycle(done), 3) for done in (0.0, 0.3, 0.65, 1.0)]
    [0.04, 1.0, 0.5, 0.001]
    """
    if done < _RISING:
        return _FIRST_RATE + (1 - _FIRST_RATE) * 0.5 * (1 - math.cos(math.pi * done / _RISING))
    return _LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * (done - _RISING) / (1 - _RISING)))


def error_db(Y: NDArray[np.floating], A: NDArray[np.floating]) -> float:
    """Return the error of a magnitude relative to the true one, ``20 log10(||Y - A|| / ||A||)``, dB."""
    tiny = np.finfo(np.float64).tiny
    return float(20 * np.log10((np.linalg.norm(Y - A) + tiny) / (np.linalg.norm(A) + tiny)))
