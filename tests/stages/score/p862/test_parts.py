"""The parts of PESQ against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from melmill.stages.score.p862.activity import activity, stretches
from melmill.stages.score.p862.alignment import Aligner
from melmill.stages.score.p862.conditioning import cascade, conditioned
from melmill.stages.score.p862.delays import (
    correlation,
    envelope_delay,
    frame_tables,
    growing_delays,
    magnitude_delay,
    votes,
)
from melmill.stages.score.p862.loudness import loudness, pitch_power
from melmill.stages.score.p862.spectrum import layout, signals, spectrum
from melmill.stages.score.p862.tables import BUFFER, rate


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n", [1, 5000, 36864, 50001])
def test_the_spectrum_is_that_of_numpy(n: int) -> None:
    form = layout(n)
    assert form.size >= n
    x, y = noise(2, form.size)
    Z, scratch, back = np.empty((3, 2 * form.size), np.float32)
    spectrum(x, y, form, scratch, Z)
    place = form.place(np.arange(form.size))
    expected = np.fft.fft(x.astype(np.float64) + 1j * y)
    assert Z[place] + 1j * Z[place + 16] == pytest.approx(expected, abs=2e-6 * np.abs(expected).max())
    signals(Z, np.ones(form.size, np.float32), form, scratch, back.reshape(2, -1))
    assert back.reshape(2, -1) == pytest.approx(np.stack([x, y]), abs=1e-5)


def test_sections_filter_as_scipys_do() -> None:
    table = rate(16000).sections
    sos = np.insert(table, 3, 1.0, axis=1)
    both = noise(2, 20011)
    expected = scipy.signal.sosfilt(sos, both.astype(np.float64), axis=1)
    cascade(both, table)
    assert both == pytest.approx(expected, abs=2e-5 * np.abs(expected).max())


def test_both_signals_come_to_one_level() -> None:
    r, x = rate(16000), noise(16000)
    # A tone in the band of speech has the level that the standard asks for.
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    made = conditioned(tone, 0.01 * x, r, "nb")
    inside = made.model[0, BUFFER * r.window :][:16000]
    assert np.mean(inside**2) * 16000 / (16000 + r.padding) == pytest.approx(1e7, rel=0.02)
    louder = conditioned(0.5 * tone, 7 * x, r, "nb")
    assert louder.model == pytest.approx(made.model, abs=1e-3 * float(np.abs(made.model).max()))


def test_speech_is_found_in_windows_of_4_ms() -> None:
    r = rate(16000)
    y = 1e-3 * noise(64 * 400)
    y[64 * 100 : 64 * 200] += 1000 * noise(6400, seed=1)
    y[64 * 220 : 64 * 300] += 1000 * noise(5120, seed=2)  # the pause is too short to divide
    y[64 * 380 : 64 * 383] += 1000 * noise(192, seed=3)  # too short to be speech
    found = stretches(activity(y, y.size, r).power > 0)
    assert found.tolist() == [[98, 302]]  # with two windows of fading at either end


@pytest.mark.parametrize("lag", [-30, 0, 17])
@pytest.mark.parametrize("n", [300, 3000])  # summed up directly, and by an FFT
def test_envelopes_find_their_delay(lag: int, n: int) -> None:
    x = np.abs(noise(n))
    y = np.roll(np.pad(x, 50), lag)[50 : 50 + n]
    assert envelope_delay(x, y) == lag
    assert correlation(x, y) == pytest.approx(np.correlate(y, x, "full"), rel=1e-4, abs=1e-2)


def test_growing_envelopes_are_correlated_as_each_by_itself() -> None:
    x = np.abs(noise(400)) * (np.arange(400) % 90 > 20)
    y = np.roll(x, 3)[:350]
    at = np.arange(40, 400, 24)
    found = growing_delays(x, y, at, np.minimum(at, 350))
    assert found.tolist() == [envelope_delay(x[:n], y[: min(n, 350)]) for n in at]


@pytest.mark.parametrize("delay", [0, 5, -37, 400])
@pytest.mark.parametrize("direction", [1, -1])
def test_frames_vote_for_the_delay(delay: int, direction: int) -> None:
    x = noise(30000)
    y = np.roll(x, delay)
    start = 2000 if direction > 0 else 25000
    delays, confidences = votes(x, y, start, start, direction, np.array([0, 1, 20, 70]), frame_tables(1024))
    assert delays.tolist() == [0, *[delay % 1024] * 3]
    # All votes are for one delay, over which a vote for it spreads.
    assert confidences.tolist() == pytest.approx([0.0, 1.0, 1.0, 1.0], abs=0.35)


def test_magnitudes_find_a_delay_within_reach() -> None:
    x = np.concatenate([np.zeros(2048, np.float32), noise(4000), np.zeros(2048, np.float32)])
    assert magnitude_delay(x, np.roll(-x, 321), 2048) == 321
    assert magnitude_delay(x, 0 * x, 2048) == 0
    assert magnitude_delay(x, np.roll(noise(8096, seed=5), 3), 2048) in range(-2048, 2048)


def test_an_utterance_has_the_delay_of_its_own() -> None:
    r = rate(8000)
    first, second, pause = noise(8000), noise(8000, seed=1), np.zeros(4000, np.float32)
    x = np.concatenate([first, pause, second, pause])
    y = np.concatenate([first, pause, np.zeros(333, np.float32), second, pause])
    found = Aligner(conditioned(x, y, r, "nb"), r).utterances()
    assert [one.delay for one in found] == [0, 333]
    assert found[0].end <= found[1].start + 12


def test_an_utterance_is_split_where_its_delay_changes() -> None:
    r = rate(8000)
    x = noise(24000)
    y = np.concatenate([x[:12000], x[12500:]])
    found = Aligner(conditioned(x, y, r, "nb"), r).utterances()
    assert [one.delay for one in found] == [0, -500]
    assert found[0].end == pytest.approx(BUFFER + 12000 / 32, abs=16)


def test_loudness_is_zwickers_law() -> None:
    r = rate(16000)
    bands = np.exp(noise(49, 32) * 4).astype(np.float32) * r.thresholds[:, np.newaxis].astype(np.float32)
    thresholds, exponents = r.thresholds[:, np.newaxis], r.exponents[:, np.newaxis]
    law = (thresholds / 0.5) ** exponents * ((0.5 + 0.5 * bands / thresholds) ** exponents - 1) * r.loudness_scale
    expected = np.where(bands > thresholds, law, 0)
    assert loudness(bands, r) == pytest.approx(expected, rel=2e-5, abs=1e-6 * expected.max())


def test_pitch_power_sums_up_the_bins_of_each_band() -> None:
    r, y = rate(8000), 1000 * noise(6000)
    starts = np.array([0, 100, -1, 3000])
    found = pitch_power(y, starts, r)[:, :4]
    window = scipy.signal.windows.hann(256, sym=False)
    for frame, start in enumerate(starts):
        power = np.abs(np.fft.rfft(y[start : start + 256] * window)) ** 2 if start >= 0 else np.zeros(129)
        power[0] = 0
        expected = [
            factor * power[a:b].sum() for factor, a, b in zip(r.corrections, r.first, r.first[1:], strict=False)
        ]
        assert found[:, frame] == pytest.approx(expected, rel=1e-3, abs=1e-3 * max(expected))
