"""Mixtures have the SNR that was asked for, and follow from the seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.contract import Item, Outcome, Waveform
from melmill.stages.numeric.errors import ParameterError, StageError
from melmill.stages.prepare.mix import Mix
from melmill.stages.prepare.resample import Resample
from tests.stages.prepare.test_activity import SR, item, pcm, prepared, tone


def mixed(stage: Mix, y: NDArray[Any], other: NDArray[Any] | None, sr: int = SR) -> Outcome:
    own = item(y)
    inputs = own.inputs if other is None else {**own.inputs, "with": other}
    wave, noise = Waveform(sr=SR, dtype="float32"), Waveform(sr=sr, dtype="float32")
    given = Item(utterance=own.utterance, inputs=inputs, seed=own.seed)
    (outcome,) = stage.process([given], {"from": wave, "with": noise}, wave)
    return outcome


@pytest.mark.parametrize("length", [0.3, 1.0, 4.0])  # repeated, as long, and a part of it
@pytest.mark.parametrize("sr", [16000, 22050])
def test_a_mixture_has_the_snr(length: float, sr: int) -> None:
    y = tone(1.0, level=0.1)
    noise = np.random.default_rng(0).standard_normal(round(length * sr)).astype(np.float32)
    outcome = mixed(Mix(snr_db=(12.0,)), y, noise, sr)
    (span,) = outcome.spans or ()
    assert span.array is not None
    assert outcome.row is not None
    gain = 10 ** (float(outcome.row["gain_db"] or 0) / 20)
    added = span.array / gain - y
    assert 10 * np.log10(np.mean(y**2) / np.mean(added**2)) == pytest.approx(12.0, abs=0.01)


def test_the_seed_decides_and_a_range_is_drawn_from() -> None:
    y, noise = tone(0.5), np.random.default_rng(0).standard_normal(SR).astype(np.float32)
    a, b, c = (mixed(Mix(snr_db=(5.0, 25.0), seed=seed), y, noise) for seed in (1, 1, 2))
    assert a.spans is not None
    assert b.spans is not None
    np.testing.assert_array_equal(a.spans[0].array, b.spans[0].array)
    assert a.row is not None
    assert c.row is not None
    assert a.row["snr_db"] != c.row["snr_db"]
    assert 5 <= float(a.row["snr_db"] or 0) <= 25


def test_silence_and_what_has_no_partner_are_dropped() -> None:
    y = tone(0.5)
    (without,) = mixed(Mix(), y, None).spans or ()
    (silent,) = mixed(Mix(), y, np.zeros(SR, np.float32)).spans or ()
    assert (without.reason, silent.reason) == ("nothing to mix with", "silent, so that it has no SNR")
    assert silent.detail == "what is added is silent"


def test_each_recording_gets_a_partner() -> None:
    own = [item(tone(0.1)).utterance._replace(utterance_id=f"u{i}") for i in range(50)]
    others = [one._replace(utterance_id=f"n{i}") for i, one in enumerate(own[:5])]
    pairs = Mix().pair(own, others, {}, None).partners
    assert pairs.keys() == {one.utterance_id for one in own}
    assert len(set(pairs.values())) == 5
    assert Mix().pair(own[:20], others, {}, None).partners.items() <= pairs.items()
    with pytest.raises(StageError, match="no recording to mix with"):
        Mix().pair(own, [], {}, None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"snr_db": (1.0, 2.0, 3.0)}, "snr_db must be a number, or the two ends"),
        ({"snr_db": (9.0, 3.0)}, "snr_db must be a range from low to high"),
        ({"snr_db": (1e6,)}, "snr_db must be in"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        Mix(**fields)


@pytest.mark.parametrize("sr", [8000, 22050, 16000])
def test_resampled_recordings_have_the_length_and_the_sound(sr: int) -> None:
    y = pcm(tone(0.5))
    (span,) = prepared(Resample(sr=sr), y).spans or ()
    assert span.array is not None
    assert len(span.array) == -(-len(y) * sr // SR)
    assert span.array.dtype == np.int16
    assert np.sqrt(np.mean(span.array.astype(float) ** 2)) == pytest.approx(
        np.sqrt(np.mean(y.astype(float) ** 2)), rel=0.02
    )


def test_a_rate_must_be_one() -> None:
    with pytest.raises(ParameterError, match="sr must be at least 1"):
        Resample(sr=0)
