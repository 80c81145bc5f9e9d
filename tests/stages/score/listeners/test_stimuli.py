"""Sounds of a trial: loudness, length, and the anchors against the standard's mask."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.numeric.errors import StageError, Unusable
from melmill.stages.numeric.mels.loudness import integrated_loudness
from melmill.stages.score.listeners.design import Candidate, check_size, drawn, trials
from melmill.stages.score.listeners.kinds import KINDS
from melmill.stages.score.listeners.stimuli import aligned, has_anchor, low_passed


def noise(n: int, level: float = 0.05, seed: int = 0) -> NDArray[np.float32]:
    return (level * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize(
    ("cutoff_hz", "sr"), [(3500, 16000), (3500, 44100), (7000, 16000), (7000, 24000), (7000, 48000)]
)
def test_anchors_keep_to_the_mask_of_the_standard(cutoff_hz: int, sr: int) -> None:
    """At 3.5 kHz: flat to 0.1 dB in the pass band, 25 dB down at 4 kHz and 50 dB at 4.5 kHz."""
    n = 2**15
    impulse = np.zeros(n, np.float32)
    impulse[n // 2] = 1.0
    response = np.abs(np.fft.rfft(low_passed(impulse, sr, cutoff_hz)))
    f = np.fft.rfftfreq(n, 1 / sr)
    level = 20 * np.log10(np.maximum(response, 1e-9))
    assert np.abs(level[f <= cutoff_hz]).max() < 0.1
    assert level[f >= cutoff_hz * 8 / 7].max(initial=-99) < -25
    assert level[f >= cutoff_hz * 9 / 7].max(initial=-99) < -50


def test_an_anchor_has_no_delay() -> None:
    y = noise(8000)
    low = low_passed(y, 16000, 3500)
    lags = np.correlate(low, y, "full")
    assert int(np.argmax(lags)) == y.size - 1


def test_recordings_at_8_khz_have_no_mid_anchor() -> None:
    assert [has_anchor(hz, sr) for hz, sr in ((3500, 8000), (7000, 8000), (7000, 16000))] == [True, False, True]


def test_all_sounds_get_one_rate_length_and_loudness() -> None:
    made = aligned(
        {"a": (noise(16000, 0.01), 16000), "b": (noise(25000, 0.2, 1), 24000)}, loudness_lufs=-23, longest_s=10
    )
    assert made.sr == 24000
    assert {y.shape for y in made.sounds.values()} == {(25000,)}
    assert not made.is_cut
    for y in made.sounds.values():
        assert integrated_loudness(y, 24000) == pytest.approx(-23, abs=0.05)


def test_peaks_lower_all_sounds_of_a_trial_alike() -> None:
    peaked = noise(32000, 0.001)
    peaked[8000] = 1.0
    made = aligned({"a": (peaked, 16000), "b": (noise(32000), 16000)}, loudness_lufs=-23, longest_s=10)
    assert made.loudness_lufs < -24
    assert max(np.abs(y).max() for y in made.sounds.values()) == pytest.approx(10 ** (-1 / 20), rel=1e-4)
    assert integrated_loudness(made.sounds["b"], 16000) == pytest.approx(made.loudness_lufs, abs=0.05)


def test_what_is_cut_fades_out() -> None:
    made = aligned({"a": (noise(48000), 16000)}, loudness_lufs=-23, longest_s=1)
    assert made.is_cut
    assert made.sounds["a"].shape == (16000,)
    assert abs(made.sounds["a"][-1]) < 1e-4


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (noise(3000), "a is shorter than 0.4 s"),
        (np.zeros(16000, np.float32), "a is silent"),
        (np.full(16000, np.nan, np.float32), "a has samples that are not finite"),
    ],
)
def test_what_nobody_can_hear_is_named(y: NDArray[np.float32], said: str) -> None:
    with pytest.raises(Unusable, match=said):
        aligned({"a": (y, 16000)}, loudness_lufs=-23, longest_s=10)


def test_speakers_take_turns() -> None:
    known = [Candidate(utterance_id=f"{who}-{i}", speaker_id=who) for who, n in (("a", 9), ("b", 3)) for i in range(n)]
    first = drawn(known, by="speaker", seed=0)
    assert sorted(one.speaker_id for one in first[:6]) == ["a"] * 3 + ["b"] * 3
    assert drawn(reversed(known), by="speaker", seed=0) == first
    assert drawn(known, by=None, seed=1) != drawn(known, by=None, seed=0)
    assert len({one.utterance_id for one in first}) == 12


def test_blind_names_need_the_secret() -> None:
    one = [Candidate(utterance_id="u")]
    first, same, other = (trials(one, [("a", "b")], secret=secret)[0].stimuli for secret in ("s", "s", "t"))
    assert first == same
    assert not first.keys() & other.keys()
    assert list(first) == sorted(first)  # their order tells nothing


def test_a_page_holds_twelve_sounds() -> None:
    check_size(KINDS["mushra"], [f"n{i}" for i in range(9)], ["low anchor", "mid anchor"])
    with pytest.raises(StageError, match=r"9 nodes beside the hidden reference and the anchors, got 10"):
        check_size(KINDS["mushra"], [f"n{i}" for i in range(10)], ["low anchor", "mid anchor"])
