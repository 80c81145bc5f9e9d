"""Silences that were planted are found where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.contract import Item, Outcome, Waveform
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.prepare.activity import active_regions, frame_levels
from melmill.stages.prepare.segment import Segment
from melmill.stages.prepare.trim import Trim
from melmill.storage.utterance import Utterance

SR = 16000


def tone(duration_s: float, level: float = 0.3, sr: int = SR) -> NDArray[np.float32]:
    """Return a low voice-like buzz."""
    t = np.arange(round(duration_s * sr)) / sr
    return np.asarray(level * sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 9)), np.float32)


def planted(parts: list[tuple[float, float]], noise: float, sr: int = SR) -> NDArray[np.float32]:
    """Return sound and silence in turn: ``(seconds of silence, seconds of sound)`` each, and noise below all."""
    y = np.concatenate([np.concatenate([np.zeros(round(a * sr)), tone(b, sr=sr)]) for a, b in parts])
    return (y + noise * np.random.default_rng(1).standard_normal(y.size)).astype(np.float32)


def pcm(y: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.asarray(np.clip(np.rint(y * 32768), -32768, 32767), np.int16)


def item(y: NDArray[Any], sr: int = SR, text: str = "") -> Item:
    utterance = Utterance(
        utterance_id="u", subset="", speaker_id="s", chapter_id="", text=text, path="u.wav", size_bytes=0, mtime_ns=0,
        source_sr=sr, source_n_samples=len(y), sr=sr, n_samples=len(y),
    )  # fmt: skip
    return Item(utterance=utterance, inputs={"from": y}, seed=1)


def prepared(stage: Any, y: NDArray[Any], sr: int = SR, text: str = "") -> Outcome:
    wave = Waveform(sr=sr, dtype="int16" if y.dtype == np.int16 else "float32")
    (outcome,) = stage.process([item(y, sr, text)], {"from": wave}, stage.produces({"from": [wave]}))
    assert isinstance(outcome, Outcome)
    spans = outcome.spans
    assert spans is not None
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == len(y)
    return outcome


@pytest.mark.parametrize("noise", [0.0, 1e-4, 2e-3])  # silence, faint noise, noise 40 dB below the sound
@pytest.mark.parametrize("sr", [16000, 44100])
@pytest.mark.parametrize(("before_s", "sound_s", "after_s"), [(0.4, 1.0, 0.7), (0.05, 0.3, 1.5), (1.2345, 0.8, 0.1)])
def test_silences_at_the_ends_are_found_within_10_ms(
    noise: float, sr: int, before_s: float, sound_s: float, after_s: float
) -> None:
    y = planted([(before_s, sound_s), (after_s, 0.0)], noise, sr)
    (kept,) = (span for span in prepared(Trim(margin_s=0.0), pcm(y), sr).spans or () if span.array is not None)
    assert kept.start / sr == pytest.approx(before_s, abs=0.01)
    assert kept.stop / sr == pytest.approx(before_s + sound_s, abs=0.01)


def test_the_margin_is_kept_and_the_samples_are_those_of_the_input() -> None:
    y = pcm(planted([(0.5, 1.0), (0.5, 0.0)], 1e-4))
    before, kept, after = prepared(Trim(margin_s=0.1), y).spans or ()
    assert kept.start / SR == pytest.approx(0.4, abs=0.01)
    assert kept.array is not None
    np.testing.assert_array_equal(kept.array, y[kept.start : kept.stop])
    assert (before.reason, after.reason) == ("silence before", "silence after")


def test_a_click_in_a_silence_is_no_sound() -> None:
    y = planted([(0.5, 1.0), (0.5, 0.0)], 0.0)
    y[1000:1100] = 0.5
    spans = prepared(Trim(margin_s=0.0), y).spans or ()
    assert spans[0].stop / SR == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("y", [np.zeros(8000, np.int16), np.zeros(10, np.int16)])  # silence, less than a frame
def test_a_recording_of_silence_is_dropped_whole(y: NDArray[np.int16]) -> None:
    (span,) = prepared(Trim(), y).spans or ()
    assert (span.array, span.reason) == (None, "nothing but silence")


def test_a_recording_without_silence_is_kept_whole() -> None:
    y = pcm(tone(0.7))
    (span,) = prepared(Trim(), y).spans or ()
    assert span.array is not None


def test_a_soft_end_is_kept_by_hysteresis() -> None:
    fade = tone(0.5) * np.geomspace(1.0, 10 ** (-45 / 20), round(0.5 * SR)).astype(np.float32)
    y = np.concatenate([tone(0.5), fade, np.zeros(SR, np.float32)])
    hard, soft = (prepared(Trim(margin_s=0.0, threshold_db=-30, hysteresis_db=h), y).spans or () for h in (0.0, 12.0))
    assert soft[0].stop - hard[0].stop > 0.06 * SR


def test_levels_are_those_of_the_frames() -> None:
    assert frame_levels(np.full(SR, 0.1, np.float32), SR).loudest_db == pytest.approx(-20.0, abs=1e-3)
    assert (
        active_regions(np.zeros(0, np.float32), SR, threshold_db=-40, hysteresis_db=0, min_sound_s=0, min_silence_s=0)
        == []
    )


def test_recordings_are_split_at_silences_and_pieces_keep_their_samples() -> None:
    y = pcm(planted([(0.3, 1.2), (0.6, 1.5), (0.8, 1.1), (0.4, 0.0)], 1e-4))
    spans = prepared(Segment(margin_s=0.0), y).spans or ()
    kept = [span for span in spans if span.array is not None]
    edges = [edge / SR for span in kept for edge in (span.start, span.stop)]
    assert edges == pytest.approx([0.3, 1.5, 2.1, 3.6, 4.4, 5.5], abs=0.01)
    assert [span.reason for span in spans if span.array is None] == [
        "silence before", "silence between", "silence between", "silence after",
    ]  # fmt: skip


def test_a_long_piece_is_cut_where_it_is_quietest() -> None:
    y = tone(3.0)
    y[round(1.5 * SR) : round(1.6 * SR)] *= 0.05  # too short to be a silence
    kept = prepared(Segment(max_s=2.0, min_s=0.5, min_silence_s=0.3), pcm(y)).spans or ()
    assert len(kept) == 2
    assert 1.5 <= kept[0].stop / SR <= 1.6


def test_pieces_keep_their_bounds() -> None:
    rng = np.random.default_rng(3)
    parts = [(float(rng.uniform(0.05, 1.0)), float(rng.uniform(0.05, 4.0))) for _ in range(20)]
    stage = Segment(min_s=0.8, max_s=3.0)
    spans = prepared(stage, pcm(planted(parts, 1e-4))).spans or ()
    for span in spans:
        if span.array is not None:
            assert 0.8 <= (span.stop - span.start) / SR <= 3.0
        elif span.reason == "shorter than min_s":
            assert (span.stop - span.start) / SR < 0.8


@pytest.mark.parametrize(
    ("cls", "fields", "words"),
    [
        (Trim, {"threshold_db": 3.0}, r"threshold_db must be in \[-90, 0\), got 3.0"),
        (Trim, {"margin_s": -1.0}, "margin_s must be"),
        (Trim, {"hysteresis_db": float("nan")}, "hysteresis_db must be"),
        (Segment, {"min_s": 5.0, "max_s": 6.0}, r"max_s must be at least twice min_s \(5\), got 6"),
        (Segment, {"min_silence_s": 0.0}, "min_silence_s must be"),
    ],
)
def test_bad_fields_are_refused_in_one_line(cls: type[Any], fields: dict[str, float], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        cls(**fields)
