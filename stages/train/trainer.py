"""What trainings of all kinds share: a network between two steps, its curves and its saved state."""

from __future__ import annotations

import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from melmill.stages.contract import Batch, TrainingData
from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.train.held_out import Invert
from melmill.storage.utterance import Utterance

_LARGEST_GRADIENT = 5.0


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


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a training made, and how it is judged.

    Parameters
    ----------
    files : mapping of str to bytes
        Those of its product, by name.
    says : str
        What it is, a sentence for its card.
    facts : mapping of str to object
        What else the card and the page say of it.
    inverters : mapping of str to callable
        What to score on held-out utterances: with what was made, and without it.
    metrics : tuple of str
        Scores of the page.
    baseline : str
        The inverter that the others are tested against.
    """

    files: Mapping[str, bytes]
    says: str
    facts: Mapping[str, object]
    inverters: Mapping[str, Invert]
    metrics: tuple[str, ...]
    baseline: str


class Trainer(ABC):
    """Hold a training between two steps.

    Its state, its recipe and the batches alone decide what it does next. Weights are averaged over
    steps, and the averaged ones are checked and kept.

    Parameters
    ----------
    network : Module
        On its device.
    spec : MelSpec
        Spec of the mels.
    rate, ema : float
        Learning rate of the optimiser, and decay of the averaged weights.
    betas : (float, float)
        Of AdamW.
    """

    def __init__(
        self, network: nn.Module, spec: MelSpec, *, rate: float, ema: float, betas: tuple[float, float]
    ) -> None:
        self.network, self.spec, self.rate = network, spec, rate
        average = get_ema_multi_avg_fn(ema)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(network, multi_avg_fn=average)
        self.optimiser = torch.optim.AdamW(network.parameters(), rate, betas=betas)
        self.step = 0
        self.curves = Curves()

    @abstractmethod
    def batches(self, data: TrainingData, ids: Collection[str]) -> Iterator[Batch]:
        """Return the batches from the present step on."""

    @abstractmethod
    def learn(self, batch: Batch) -> dict[str, float]:
        """Take one step and return its losses by name.

        Parameters
        ----------
        batch : (ndarray of float32, ndarray of float32)
            Mels ``(batch, n_mels, n_frames)`` and their audio ``(batch, n_frames * hop_length)``.

        Raises
        ------
        Diverged
            A loss is not finite.
        """

    @abstractmethod
    def check(self, data: TrainingData, utterances: Sequence[Utterance]) -> dict[str, float]:
        """Return the losses of the averaged network on held-out utterances; add to the curves."""

    @abstractmethod
    def made(self, data: TrainingData, held: Sequence[Utterance]) -> Made:
        """Return what was trained, judged on held-out utterances."""

    def heard_h(self, batch_size: int, segment_frames: int) -> float:
        """Return the hours of the segments of all steps so far."""
        return self.step * batch_size * segment_frames * self.spec.hop_length / self.spec.sr / 3600

    def _descend(self, loss: Tensor, scaler: torch.amp.GradScaler | None = None) -> None:
        """Take a step of the optimiser down a loss, and average."""
        descend(loss, self.optimiser, self.network, scaler)
        self.averaged.update_parameters(self.network)
        self.step += 1

    def _check_finite(self, value: float, hint: str = "try a lower learning_rate") -> None:
        if not math.isfinite(value):
            raise Diverged(f"the training diverged at step {self.step}: {hint}")

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
        yield "generator", self.network
        yield "averaged", self.averaged
        yield "optimiser", self.optimiser


def descend(
    loss: Tensor, optimiser: torch.optim.Optimizer, model: nn.Module, scaler: torch.amp.GradScaler | None = None
) -> None:
    """Take a step of an optimiser down a loss, with the gradients of a model clipped."""
    optimiser.zero_grad(set_to_none=True)
    if scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
        optimiser.step()
        return
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimiser)
    nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
    scaler.step(optimiser)
    scaler.update()
