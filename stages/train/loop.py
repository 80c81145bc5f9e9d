"""A training from start to end: steps, checks on held-out speakers, saved states, and files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from melmill.stages.contract import StageFile, TrainingData, TrainingPlace
from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.report.contract import TRAINING_COLUMNS, Example, Provenance, Tables
from melmill.stages.report.stage import Aggregate
from melmill.stages.train import losses
from melmill.stages.train.card import card
from melmill.stages.train.held_out import SCORED, Invert, chosen, references, scores, split
from melmill.stages.train.recipe import Recipe
from melmill.stages.train.trainer import Trainer
from melmill.stages.vocode.files.checkpoint import read_files
from melmill.stages.vocode.files.companions import CONFIG, TRAINED_FILES, WEIGHTS
from melmill.stages.vocode.loaded import LoadedVocoder, load
from melmill.storage.utterance import Utterance

# Held-out utterances that are checked at every saved state, and how many seconds of each.
_CHECKED = 8
_CHECKED_S = 10.0
# Points of a curve.
_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Session:
    """Say how a training is conducted, besides its recipe.

    Parameters
    ----------
    name : str
        Name of the vocoder, for its page and card.
    held_out : int
        Number of speakers that are not trained with.
    save_every : int
        Steps between two saved states. A check goes with each.
    """

    name: str
    held_out: int
    save_every: int


def train(
    recipe: Recipe, session: Session, spec: MelSpec, data: TrainingData, place: TrainingPlace
) -> dict[str, bytes]:
    """Train a generator and return its files by name.

    They are weights, configuration, model card, tables and page.

    Raises
    ------
    Diverged
        A loss is no longer finite.
    StageError
        There is nothing to train with, or the saved state is another training's.
    """
    ids, held = split(data.utterances, session.held_out, recipe.seed)
    if not ids:
        raise StageError("train_vocoder found no utterance that both its inputs hold: make 'from' of 'audio'")
    trainer = Trainer(recipe, spec)
    state = place.load()
    if state is not None:
        trainer.resume(state)
        place.note(f"going on from step {trainer.step}")
    _learn(trainer, session, data, ids, held, place)
    weights, config = _weights(trainer), json.dumps(trainer.config, indent=1).encode()
    made = {WEIGHTS: weights, CONFIG: config}
    voc = load(read_files({role: StageFile(url=TRAINED_FILES[role], data=data) for role, data in made.items()}))
    trained_on = set(ids)
    heard_s = recipe.steps * recipe.batch_size * recipe.segment_frames * spec.hop_length / spec.sr
    about = {
        "recipe": {name: value for name, value in asdict(recipe).items() if name != "device"},
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "bytes": len(weights),
        "trained_on": _described([u for u in data.utterances if u.utterance_id in trained_on]),
        "heard_h": heard_s / 3600,
        "held_out": _described(held),
    }
    files = {TRAINED_FILES[role]: data for role, data in made.items()}
    return files | _judged(voc, trainer, session, data, held, about)


def _learn(
    trainer: Trainer,
    session: Session,
    data: TrainingData,
    ids: Sequence[str],
    held: Sequence[Utterance],
    place: TrainingPlace,
) -> None:
    recipe = trainer.recipe
    batches = data.batches(
        ids,
        segment_frames=recipe.segment_frames,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        first=trainer.step,
    )
    stretch = max(1, recipe.steps // _POINTS)
    while trainer.step < recipe.steps:
        step_losses = trainer.learn(next(batches))
        trainer.curves.average("training", trainer.step, step_losses, stretch)
        if trainer.step % session.save_every == 0 or trainer.step == recipe.steps:
            checked = _checked(trainer, data, held)
            trainer.curves.add("held out", trainer.step, checked)
            place.save(trainer.state())
            shown_losses = {**step_losses, **{f"held-out {name}": value for name, value in checked.items()}}
            shown = ", ".join(f"{name} {value:.3f}" for name, value in shown_losses.items())
            place.note(f"step {trainer.step} of {recipe.steps}: {shown}")


def _checked(trainer: Trainer, data: TrainingData, held: Sequence[Utterance]) -> dict[str, float]:
    """Return the losses of the averaged generator on held-out utterances."""
    spec, per_batch = trainer.spec, []
    trainer.model.eval()
    for utterance in chosen(held, _CHECKED):
        M, y = data.whole(utterance.utterance_id)
        n_frames = min(M.shape[1], int(_CHECKED_S * spec.sr / spec.hop_length))
        fake = _generated(trainer, M[:, :n_frames])
        n_samples = min(fake.size, y.size)
        made, real = (torch.from_numpy(np.ascontiguousarray(x[None, :n_samples])) for x in (fake, y))
        mel = losses.mel_loss(made, real, trainer.bank.cpu(), spec.n_fft, spec.hop_length)
        per_batch.append({"spectral": float(losses.spectral_loss(made, real)), "mel": float(mel)})
    return {name: float(np.mean([one[name] for one in per_batch])) for name in (per_batch[0] if per_batch else ())}


def _generated(trainer: Trainer, M: NDArray[np.float32]) -> NDArray[np.float32]:
    voc = LoadedVocoder(model=trainer.model, name="the averaged generator", device=str(trainer.device))
    return voc(M)


def _weights(trainer: Trainer) -> bytes:
    """Return the averaged generator's weights in float16, as its family is published."""
    state = {
        name: tensor.detach().cpu().half() if tensor.is_floating_point() else tensor.detach().cpu()
        for name, tensor in trainer.model.state_dict().items()
    }
    buffer = io.BytesIO()
    torch.save({"generator": state}, buffer)
    return buffer.getvalue()


def _described(utterances: Sequence[Utterance]) -> dict[str, float | int]:
    return {
        "utterances": len(utterances),
        "speakers": len({utterance.speaker_id or utterance.utterance_id for utterance in utterances}),
        "minutes": round(sum(utterance.duration_s for utterance in utterances) / 60, 1),
    }


def _judged(
    voc: LoadedVocoder,
    trainer: Trainer,
    session: Session,
    data: TrainingData,
    held: Sequence[Utterance],
    about: Mapping[str, object],
) -> dict[str, bytes]:
    """Return page, tables and card, from what the vocoder makes of held-out utterances."""

    def generated(M: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
        y = voc(M)[:n_samples]
        return np.pad(y, (0, n_samples - y.size))

    curves = pd.DataFrame(trainer.curves.points, columns=list(TRAINING_COLUMNS))
    files = {"curves.csv": curves.to_csv(index=False).encode()}
    inverters: dict[str, Invert] = {session.name: generated, **references(trainer.spec)}
    scored, waves = scores(data, chosen(held, SCORED), inverters, trainer.spec)
    if scored.empty:
        return files | {"README.md": card(session.name, about, None).encode()}
    report = Aggregate(baseline="griffin_lim 100", by=(), title=f"Training of {session.name}")
    tables = Tables(
        scores=scored,
        training=curves,
        made=[Provenance(name=session.name, uses="train_vocoder", version=1, key="", parameters=about)],
    )
    examples = [
        Example(
            utterance_id=pick.utterance_id,
            text=next(u.text for u in held if u.utterance_id == pick.utterance_id),
            why=pick.why,
            sr=trainer.spec.sr,
            reference=waves[pick.utterance_id]["recording"],
            reconstructions={name: waves[pick.utterance_id][name] for name in inverters},
        )
        for pick in report.pick(scored)
    ]
    headline = report.headline(scored)
    return files | report.render(tables, examples) | {"README.md": card(session.name, about, headline).encode()}
