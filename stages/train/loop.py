"""A training from start to end: steps, checks on held-out speakers, saved states, and files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from melmill.stages.contract import TrainingData, TrainingPlace
from melmill.stages.numeric.errors import StageError
from melmill.stages.report.contract import TRAINING_COLUMNS, Example, Provenance, Tables
from melmill.stages.report.stage import Aggregate
from melmill.stages.train.card import card
from melmill.stages.train.held_out import SCORED, chosen, scores, split
from melmill.stages.train.stage import Session
from melmill.stages.train.trainer import Made, Trainer
from melmill.storage.utterance import Utterance

# Held-out utterances that are checked at every saved state.
_CHECKED = 8
# Points of a curve.
_POINTS = 200


def train(trainer: Trainer, session: Session, data: TrainingData, place: TrainingPlace) -> dict[str, bytes]:
    """Train a network and return its files by name.

    They are what the trainer makes, model card, tables and page.

    Raises
    ------
    Diverged
        A loss is no longer finite.
    StageError
        There is nothing to train with, or the saved state is another training's.
    """
    ids, held = split(data.utterances, session.held_out, session.seed)
    if not ids:
        raise StageError(f"{session.uses} found no utterance that both its inputs hold: make 'from' of 'audio'")
    state = place.load()
    if state is not None:
        trainer.resume(state)
        place.note(f"going on from step {trainer.step}")
    _learn(trainer, session, data, ids, held, place)
    made = trainer.made(data, held)
    trained_on = set(ids)
    about = {
        "recipe": dict(session.recipe),
        **made.facts,
        "trained_on": _described([u for u in data.utterances if u.utterance_id in trained_on]),
        "held_out": _described(held),
    }
    return {**made.files, **_judged(made, trainer, session, data, held, about)}


def _learn(
    trainer: Trainer,
    session: Session,
    data: TrainingData,
    ids: Collection[str],
    held: Sequence[Utterance],
    place: TrainingPlace,
) -> None:
    batches = trainer.batches(data, ids)
    stretch = max(1, session.steps // _POINTS)
    while trainer.step < session.steps:
        step_losses = trainer.learn(next(batches))
        trainer.curves.average("training", trainer.step, step_losses, stretch)
        if trainer.step % session.save_every == 0 or trainer.step == session.steps:
            checked = trainer.check(data, chosen(held, _CHECKED))
            trainer.curves.add("held out", trainer.step, checked)
            place.save(trainer.state())
            shown_losses = {**step_losses, **{f"held-out {name}": value for name, value in checked.items()}}
            shown = ", ".join(f"{name} {value:.3f}" for name, value in shown_losses.items())
            place.note(f"step {trainer.step} of {session.steps}: {shown}")


def _described(utterances: Sequence[Utterance]) -> dict[str, float | int]:
    return {
        "utterances": len(utterances),
        "speakers": len({utterance.speaker_id or utterance.utterance_id for utterance in utterances}),
        "minutes": round(sum(utterance.duration_s for utterance in utterances) / 60, 1),
    }


def _judged(
    made: Made,
    trainer: Trainer,
    session: Session,
    data: TrainingData,
    held: Sequence[Utterance],
    about: Mapping[str, object],
) -> dict[str, bytes]:
    """Return page, tables and card, from what is made of held-out utterances."""
    curves = pd.DataFrame(trainer.curves.points, columns=list(TRAINING_COLUMNS))
    files = {"curves.csv": curves.to_csv(index=False).encode()}
    scored, waves = scores(data, chosen(held, SCORED), made.inverters, made.metrics, trainer.spec)
    if scored.empty:
        return files | {"README.md": card(session.name, made.says, about, None).encode()}
    report = Aggregate(baseline=made.baseline, by=(), title=f"Training of {session.name}")
    tables = Tables(
        scores=scored,
        training=curves,
        made=[Provenance(name=session.name, uses=session.uses, version=1, key="", parameters=about)],
    )
    examples = [
        Example(
            utterance_id=pick.utterance_id,
            text=next(u.text for u in held if u.utterance_id == pick.utterance_id),
            why=pick.why,
            sr=trainer.spec.sr,
            reference=waves[pick.utterance_id]["recording"],
            reconstructions={name: waves[pick.utterance_id][name] for name in made.inverters},
        )
        for pick in report.pick(scored)
    ]
    headline = report.headline(scored)
    return (
        files | report.render(tables, examples) | {"README.md": card(session.name, made.says, about, headline).encode()}
    )
