"""Recordings that are the same are found, and others are not taken for them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from melmill.stages.contract import Waveform
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.prepare.dedupe import Dedupe, duplicates
from melmill.stages.prepare.fingerprint import N_BITS, Fingerprint, fingerprint
from tests.stages.prepare.test_activity import SR, item, pcm


def babble(seed: int, duration_s: float = 2.0) -> NDArray[np.float32]:
    """Return noise whose bands go up and down by chance, as speech does."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * SR)) / SR
    y = np.zeros(t.size)
    for hz in np.geomspace(200, 3400, 24):
        knots = rng.uniform(0.0, 1.0, round(duration_s * 8) + 2) ** 3
        y += np.interp(t * 8, np.arange(knots.size), knots) * np.sin(2 * np.pi * hz * t + rng.uniform(0, 6.28))
    return np.asarray(0.1 * y / np.sqrt(np.mean(y**2)), np.float32)


def mp3(y: NDArray[np.float32]) -> NDArray[np.float32]:
    file = io.BytesIO()
    soundfile.write(file, y, SR, format="MP3", subtype="MPEG_LAYER_III")
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return np.asarray(decoded, np.float32)


CHANGES: dict[str, Any] = {
    "quieter": lambda y: 0.1 * y,
    "silence around it": lambda y: np.concatenate([np.zeros(3000), y, np.zeros(5000)]),
    "noise below it": lambda y: y + 0.002 * np.random.default_rng(9).standard_normal(y.size),
    "coded as MP3": mp3,
    "rounded to int16": lambda y: pcm(y) / 32768.0,
    "a high shelf": lambda y: y + 0.7 * np.diff(y, prepend=0.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_same_audio_differs_in_few_bits(change: str) -> None:
    y = babble(1)
    bits, _ = fingerprint(y, SR)
    other, _ = fingerprint(np.asarray(CHANGES[change](y), np.float32), SR)
    assert bits is not None
    assert other is not None
    assert np.mean(bits != other) < 0.15


def test_unrelated_audio_differs_in_about_half() -> None:
    found = [bits for seed in range(12) if (bits := fingerprint(babble(seed), SR)[0]) is not None]
    apart = [np.mean(a != b) for i, a in enumerate(found) for b in found[:i]]
    assert min(apart) > 0.35
    assert len(found[0]) == N_BITS


def rows(recordings: list[NDArray[np.int16]]) -> dict[str, list[Any]]:
    wave, stage = Waveform(sr=SR, dtype="int16"), Fingerprint()
    made = stage.process([item(y) for y in recordings], {"from": wave}, stage.produces({"from": [wave]}))
    table = [one.row for one in made if one.row is not None]
    columns: dict[str, list[Any]] = {name: [row[name] for row in table] for name in table[0]}
    return {"utterance_id": [f"u{i}" for i in range(len(table))], **columns}


def test_the_first_of_the_same_is_kept() -> None:
    a, b = pcm(babble(1)), pcm(babble(2))
    near = pcm(0.5 * babble(1))
    table = rows([a, b, a, near, near, np.zeros(100, np.int16), np.zeros(100, np.int16)])
    same = Dedupe().knowing(table).same
    assert same == {
        "u2": ("same samples", "u0"),
        "u3": ("near-same audio", "u0"),
        "u4": ("same samples", "u0"),
        "u6": ("same samples", "u5"),
    }
    assert set(Dedupe(near=False).knowing(table).same) == {"u2", "u4", "u6"}


def test_what_comes_later_changes_nothing() -> None:
    recordings = [pcm(babble(seed % 5)) for seed in range(10)]
    whole = rows(recordings)
    for n in range(1, 10):
        first = {name: values[:n] for name, values in whole.items()}
        some = Dedupe().knowing(first).same
        assert some == {name: one for name, one in Dedupe().knowing(whole).same.items() if int(name[1:]) < n}


def test_copies_of_another_length_are_none() -> None:
    assert duplicates(["a", "b"], ["ff" * 62, "ff" * 62], [1.0, 2.0], 0.2) == {}


def test_an_item_that_is_the_same_is_dropped_and_says_of_what() -> None:
    a = pcm(babble(1))
    wave = Waveform(sr=SR, dtype="int16")
    processor = Dedupe().knowing({**rows([a, a]), "utterance_id": ["first", "u"]})
    (outcome,) = processor.process([item(a)], {"from": wave}, wave)
    (span,) = outcome.spans or ()
    assert (span.array, span.reason, span.detail) == (None, "same samples", "as first")


def test_it_needs_the_table_and_sound_fields() -> None:
    with pytest.raises(ParameterError, match="max_difference must be in"):
        Dedupe(max_difference=0.5)
    with pytest.raises(ContractError, match="compares with other recordings"):
        Dedupe().prepared(item(pcm(babble(1))), Waveform(sr=SR), Waveform(sr=SR))
