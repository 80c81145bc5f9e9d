"""Which channels are taken, and which levels are refused, counted and said."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.contract import Outcome
from melmill.stages.ingest.levels import Levels
from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.numeric.errors import ParameterError
from tests.stages.ingest.corpora import Tree, flac, outcome_of, rejected, tone

SR = 16000


def noise(seed: int, level: float = 0.2) -> NDArray[np.float64]:
    return np.clip(level * np.random.default_rng(seed).standard_normal(SR), -1.0, 1.0)


def beside(*channels: NDArray[Any]) -> NDArray[Any]:
    return np.stack(channels, axis=1)


def wav(y: NDArray[Any], subtype: str = "FLOAT") -> bytes:
    return flac(y, kind="WAV", subtype=subtype)


def ingested(data: bytes, **fields: Any) -> Outcome:
    stage = AudioFolder(root="x", **fields)
    (utterance,) = stage.discover(Tree({"a.wav": data}), {}).utterances
    return outcome_of(stage, utterance, data)


def row(outcome: Outcome) -> dict[str, Any]:
    assert outcome.rejected is None, outcome.rejected
    return dict(outcome.row or {})


LEFT, RIGHT = tone(level=0.2), tone(level=0.6)[::-1].copy()


@pytest.mark.parametrize(
    ("channel", "expected", "taken"),
    [
        ("mix", (LEFT.astype(np.float64) + RIGHT) / 2, "mix"),
        ("left", LEFT, "0"),
        (0, LEFT, "0"),
        ("right", RIGHT, "1"),
        (1, RIGHT, "1"),
        ("loudest", RIGHT, "1"),
    ],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_the_channel_that_is_wanted_is_taken(channel: Any, expected: NDArray[Any], taken: str, subtype: str) -> None:
    y = beside(LEFT, RIGHT)
    outcome = ingested(wav(y if subtype == "PCM_16" else y / 32768, subtype), channel=channel)
    assert row(outcome)["channel"] == taken
    assert outcome.array is not None
    np.testing.assert_allclose(outcome.array, expected, atol=0 if subtype == "PCM_16" and taken != "mix" else 1)


@pytest.mark.parametrize("channel", ["mix", "left", 0, "loudest", "refuse"])
def test_of_one_channel_there_is_no_choice(channel: Any) -> None:
    outcome = ingested(flac(LEFT), channel=channel)
    assert "channel" not in row(outcome)
    np.testing.assert_array_equal(outcome.array, LEFT)


def test_the_loudest_channel_is_not_the_one_with_an_offset() -> None:
    offset = np.full(LEFT.size, 20000, dtype=np.int16)
    assert row(ingested(flac(beside(offset, LEFT)), channel="loudest"))["channel"] == "1"


@pytest.mark.parametrize(
    ("y", "channel", "reason"),
    [
        (LEFT, "right", r"there is no channel 1 \(right\): the file has 1 channel, numbered from 0"),
        (beside(LEFT, RIGHT), 2, "there is no channel 2: the file has 2 channels, numbered from 0"),
        (
            beside(LEFT, RIGHT),
            "refuse",
            "the file has 2 channels, and channel: refuse takes none: say channel: mix, left",
        ),
        # Nothing is left, and next to nothing.
        (
            beside(LEFT, -LEFT),
            "mix",
            "channels cancel when mixed: correlation -1.00, nothing is left; say channel: left",
        ),
        (
            beside(LEFT, np.rint(-0.9 * LEFT)),
            "mix",
            r"channels cancel when mixed: correlation -1.00, 26 dB are lost; say",
        ),
        (beside(LEFT, -LEFT, RIGHT * 0, RIGHT * 0), "mix", "channels cancel when mixed: correlation -1.00"),
        (beside(LEFT * 0, RIGHT), "left", "^silent: peak -inf dBFS"),
        (beside(LEFT * 0, LEFT * 0), "mix", "^silent: peak -inf dBFS"),
    ],
)
def test_a_channel_that_is_missing_and_channels_that_cancel(y: NDArray[Any], channel: Any, reason: str) -> None:
    found = rejected(ingested(wav(y.astype(np.int16), "PCM_16"), channel=channel)).reason
    assert re.search(reason, found), found


@pytest.mark.parametrize("channel", ["left", "right", "loudest", 1])
def test_one_of_opposed_channels_is_fine(channel: Any) -> None:
    assert ingested(flac(beside(LEFT, -LEFT)), channel=channel).rejected is None


@pytest.mark.parametrize(
    ("channels", "loss_db"),
    [
        ([noise(0), noise(0)], 0.0),
        ([noise(0), noise(1)], 3.01),  # they are unrelated
        ([noise(0), 0 * noise(0)], 6.02),
        ([noise(0), *[0 * noise(0)] * 7], 18.06),  # quiet, but not cancelled
    ],
)
def test_the_loss_of_mixing_is_measured(channels: list[NDArray[Any]], loss_db: float) -> None:
    assert row(ingested(wav(beside(*channels))))["mix_loss_db"] == pytest.approx(loss_db, abs=0.15)


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ("rigth", "must be mix .* got 'rigth'; did you mean 'right'"),
        (
            "mean",
            r"must be mix \(the mean of all\), left, right, loudest, refuse or a number from 0 to 1023, got 'mean'",
        ),
        (-1, "got -1"),
        (True, "got True"),
        (None, "got None"),
    ],
)
def test_other_channels_are_refused(channel: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        AudioFolder(root="x", channel=channel)


def test_only_another_channel_than_the_mix_is_in_the_key() -> None:
    identity = AudioFolder(root="x").identity()
    assert "channel" not in identity
    assert AudioFolder(root="x", channel="mix").identity() == identity
    assert AudioFolder(root="x", channel="left").identity() == AudioFolder(root="x", channel=0).identity()
    found = {str(AudioFolder(root="x", channel=channel).identity()) for channel in ("mix", 0, 1, "loudest", "refuse")}
    assert len(found) == 5


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (noise(0) * 32768, "look like 16-bit integers stored as floats: divide by 32768$"),
        (np.rint(noise(0) * 32768), "look like 16-bit integers stored as floats: divide by 32768$"),
        (np.rint(noise(0, 0.02) * 32768), "look like 16-bit integers stored as floats: divide by 32768$"),
        (np.rint(noise(0) * 2**23), "look like 24-bit integers stored as floats: divide by 8388608$"),
        (noise(0) * 2**31, "look like 32-bit integers stored as floats: divide by 2147483648$"),
        (np.rint(noise(0) * 128), "look like 8-bit integers stored as floats: divide by 128, or by 32768 if"),
        (np.rint(noise(0) * 127) + 128, "look like unsigned 8-bit integers stored as floats: subtract 128 and divide"),
        (np.rint(noise(0, 0.6)), "all samples are whole, -1 to 1, .* integers of a silent recording stored as floats"),
        (noise(0) * 7.5, r"the peak is 6\.\d+, floats lie in \[-1, 1\]; divide by 6\.\d+ or more$"),
    ],
)
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_of_another_scale_are_refused_with_the_factor(y: NDArray[Any], reason: str, subtype: str) -> None:
    for data in (wav(y, subtype), wav(beside(y, y), subtype)):
        found = rejected(ingested(data)).reason
        assert found.startswith("past full scale: ")
        assert re.search(reason, found), found


def past(n: int, peak: float = 1.2) -> NDArray[np.float64]:
    y = 0.5 * np.sin(np.arange(SR) / 7.0)
    y[: 10 * n : 10] = peak
    return y


def test_samples_past_full_scale_are_counted_up_to_one_percent() -> None:
    few = row(ingested(wav(past(160))))
    assert (few["n_clipped"], few["source_peak_db"]) == (160, 1.58)  # 20 log10(1.2)
    assert few["peak_db"] == pytest.approx(0.0, abs=1e-3)
    found = rejected(ingested(wav(past(161)))).reason
    assert found == (
        "past full scale: 161 of 16,000 samples (1.0 %) would be clipped, 1 % may be; the peak is +1.6 dBFS: "
        "make it 2 dB quieter"
    )


@pytest.mark.parametrize(
    "data",
    [
        wav(np.sign(np.sin(np.arange(SR) / 7.0))),  # a square wave at full scale
        wav(past(50, 1.0)),
        wav(beside(past(50, 1.2), 0 * past(0))),  # mixed it is within full scale
        flac(
            np.tile(np.repeat(np.array([32767, -32768], dtype=np.int16), 240), 100), 48000
        ),  # overshoots when resampled
    ],
)
def test_what_is_within_full_scale_counts_nothing(data: bytes) -> None:
    assert not {"n_clipped", "source_peak_db"} & row(ingested(data)).keys()


@pytest.mark.parametrize(
    ("y", "reason"),
    [
        (np.full(SR, 0.25), r"^constant: every sample is 0.25 \(DC\), so there is no sound$"),
        (0.25 + 2.0**-15 * np.sign(noise(0)), r"^constant: every sample is about 0.25 \(DC\)"),
        (np.eye(1, SR, 77)[0], "^next to empty: only 2 of 16,000 samples differ from the one before, so there is less"),
        (0.1 + 0.5 * np.eye(1, SR, 77)[0], "^next to empty: only 2 of 16,000 samples"),
        (noise(0)[:100], "^next to empty: only 9. of 100 samples differ from the one before"),
    ],
)
def test_files_without_sound_say_so(y: NDArray[Any], reason: str) -> None:
    found = rejected(ingested(wav(y))).reason
    assert re.search(reason, found), found


def test_a_shortest_sound_is_kept() -> None:
    assert ingested(wav(noise(0)[:400])).rejected is None


def test_levels_add_up_to_notes() -> None:
    rows = [
        {"utterance_id": "a", "n_channels": 1, "n_clipped": 4, "source_peak_db": 0.6},
        {"utterance_id": "b", "n_channels": 2, "channel": "mix", "mix_loss_db": 6.02},
        {"utterance_id": "c", "n_channels": 2, "channel": "1"},
        {"utterance_id": "d", "n_channels": 6, "channel": "mix", "mix_loss_db": 3.0}
        | {"n_clipped": 1200, "source_peak_db": 1.3},
        {"utterance_id": "e", "n_channels": 1},
    ]  # fmt: skip
    whole = Levels.of(rows)
    parts = [Levels.of(rows[:2]), Levels(), Levels.of(rows[2:])]
    assert Levels.total(Levels.stored(part.as_dict()) for part in parts) == whole
    assert whole.notes() == [
        "2 files hold samples past full scale; 1,204 samples were clipped; worst: d, peak +1.3 dBFS",
        "mixed 2 files of 2 to 6 channels; say channel: left, right or loudest to take one of them",
        "1 file lost 6 dB or more when mixed, as where one channel is silent; worst: b, 6.0 dB",
    ]
    assert Levels.of(rows[4:]).as_dict() == {}
    assert Levels().notes() == []
    assert Levels.stored({"mixed": 1, "of_a_later_version": 2}).mixed == 1
