"""Speakers that a training holds out, and how well a network does on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melmill.stages.contract import Item, TrainingData, Waveform
from melmill.stages.invert.inversion import inverted
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.stage import Score
from melmill.storage.utterance import Utterance

Invert = Callable[[NDArray[np.float32], int], NDArray[np.float32]]

# At most this share of all speakers is held out.
_LARGEST_SHARE = 0.2
# Seconds of each held-out utterance that a check at a saved state takes.
CHECKED_S = 10.0
# Held-out utterances that are scored at the end.
SCORED = 40


def split(utterances: Sequence[Utterance], n_speakers: int, seed: int) -> tuple[list[str], list[Utterance]]:
    """Return the ids to train with, and the utterances of `n_speakers` held-out speakers.

    At most a fifth of all speakers is held out.

    The names of speakers and the seed decide who is held out, whoever else there is. An utterance
    without a speaker counts as a speaker of its own.
    """
    speakers = {_speaker(utterance) for utterance in utterances}
    n_held = min(n_speakers, int(_LARGEST_SHARE * len(speakers)))
    held = set(sorted(speakers, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())[:n_held])
    training = [utterance.utterance_id for utterance in utterances if _speaker(utterance) not in held]
    return training, [utterance for utterance in utterances if _speaker(utterance) in held]


def _speaker(utterance: Utterance) -> str:
    return utterance.speaker_id or utterance.utterance_id


def chosen(held: Sequence[Utterance], most: int) -> list[Utterance]:
    """Return at most `most` of the held-out utterances, spread evenly."""
    if len(held) <= most:
        return list(held)
    return [held[i * len(held) // most] for i in range(most)]


def scores(
    data: TrainingData,
    utterances: Sequence[Utterance],
    inverters: Mapping[str, Invert],
    metrics: Sequence[str],
    spec: MelSpec,
) -> tuple[pd.DataFrame, dict[str, dict[str, NDArray[np.float32]]]]:
    """Score the waveforms that several inverters make of the mels of some utterances.

    Parameters
    ----------
    data : TrainingData
    utterances : sequence of Utterance
    inverters : mapping of str to callable
        Each takes a mel and a number of samples and returns a waveform.
    metrics : sequence of str
    spec : MelSpec
        Spec of the mels.

    Returns
    -------
    scores : DataFrame
        One row for each utterance and inverter, as reports take it.
    waves : dict of str to dict of str to ndarray
        The waveforms, by utterance and inverter.
    """
    score = Score(metrics=tuple(metrics))
    port = Waveform(sr=spec.sr, mel=spec)
    table = score.produces({"from": [port], "against": [port]})
    rows, waves = [], {}
    for utterance in utterances:
        M, y = data.whole(utterance.utterance_id)
        made = {name: invert(M, y.size) for name, invert in inverters.items()}
        waves[utterance.utterance_id] = {"recording": y, **made}
        items = [Item(utterance=utterance, inputs={"from": wave, "against": y}, seed=0) for wave in made.values()]
        outcomes = score.process(items, {"from": port, "against": port}, table)
        about = {
            "utterance_id": utterance.utterance_id,
            "subset": utterance.subset,
            "speaker_id": utterance.speaker_id,
            "duration_s": y.size / spec.sr,
        }
        for name, outcome in zip(made, outcomes, strict=True):
            rows.append({**about, "node": name, **(outcome.row or {})})
    return pd.DataFrame(rows), waves


def references(spec: MelSpec) -> dict[str, Invert]:
    """Return the inverters, which have no weights, that what was trained is compared with."""

    def griffin_lim(M: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
        return inverted(M, spec, method="griffin_lim", n_iter=100, start="random", length=n_samples).y

    def good(M: NDArray[np.float32], n_samples: int) -> NDArray[np.float32]:
        return inverted(M, spec, quality="good", length=n_samples, prior="none").y

    return {"griffin_lim 100": griffin_lim, "invert good": good}


def mean_of(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each value; nothing where nothing was found."""
    return {name: float(np.mean([one[name] for one in found])) for name in (found[0] if found else ())}
