"""Each step that a mel spec can say: against NumPy, undone, kept out of old keys, and refused where wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from melmill.stages.numeric.contract import conversion, convert, explain
from melmill.stages.numeric.errors import ContractError, ParameterError, Unusable
from melmill.stages.numeric.mel import band_statistics, from_bands, mel_spectrogram, to_linear, unframed
from melmill.stages.numeric.mels.steps import WaveStep
from melmill.stages.numeric.mels.wave import prepared, response, restored
from melmill.stages.numeric.melspec import MelSpec

LN = MelSpec(log="ln", floor=1e-5)
SR = 16000


def speech_like(n_samples: int = 8000) -> NDArray[np.float32]:
    """Return noise that swells, with a pause of zeros."""
    y = np.random.default_rng(3).standard_normal(n_samples) * np.linspace(0.001, 0.2, n_samples)
    y[n_samples // 3 : n_samples // 2] = 0
    return y.astype(np.float32)


STEPS = [
    # a step, and what it makes of a waveform
    (WaveStep(step="mean"), lambda y: y - y.mean()),
    (WaveStep(step="peak", value=0.5), lambda y: y * 0.5 / np.abs(y).max()),
    (WaveStep(step="peak", value=0.01, when="below"), lambda y: y),  # its peak is above already
    (WaveStep(step="peak", value=0.01, when="above"), lambda y: y * 0.01 / np.abs(y).max()),
    (WaveStep(step="rms", value=0.1), lambda y: y * 0.1 / np.sqrt(np.mean(y**2))),
    (WaveStep(step="clamp", value=0.1), lambda y: np.clip(y, -0.1, 0.1)),
    (WaveStep(step="gain", value=0.96), lambda y: y * 0.96),
    (WaveStep(step="preemphasis", value=0.97), lambda y: scipy.signal.lfilter([1, -0.97], [1], y)),
    (
        WaveStep(step="highpass", value=70.0, order=3),
        lambda y: scipy.signal.lfilter(*scipy.signal.butter(3, 70.0, "high", fs=SR), y),
    ),
    (
        WaveStep(step="highpass", value=30.0, both_ways=True),
        lambda y: scipy.signal.filtfilt(*scipy.signal.butter(5, 30.0, "high", fs=SR), y),
    ),
]


@pytest.mark.parametrize(("step", "expected"), STEPS)
def test_a_step_on_the_waveform_is_what_it_says(step: WaveStep, expected: Any) -> None:
    y = speech_like().astype(np.float64)
    np.testing.assert_allclose(prepared(y, [step], SR), expected(y), atol=1e-7)


def test_steps_go_in_order_and_16_bit_counts_as_a_fraction_of_full_scale() -> None:
    steps = (WaveStep(step="preemphasis", value=0.97), WaveStep(step="peak", value=0.999))
    pcm = np.round(speech_like() * 32767).astype(np.int16)
    made = prepared(pcm, steps, SR)
    assert np.abs(made).max() == pytest.approx(0.999)
    M = mel_spectrogram(pcm, replace(LN, wave=steps))
    np.testing.assert_allclose(M, mel_spectrogram(made, LN), atol=2e-5)


def test_loudness_is_set_where_there_is_one() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(SR) / SR)
    louder = prepared(tone, [WaveStep(step="loudness", value=-13.0)], SR)
    # a full-scale sine of 997 Hz has -3.01 LUFS
    assert np.abs(louder).max() == pytest.approx(10 ** ((-13.0 + 3.01) / 20), rel=1e-2)
    for y, message in ((tone[:100], "shorter than 0.4 s"), (np.zeros(SR), "too quiet")):
        with pytest.raises(Unusable, match=message):
            prepared(y, [WaveStep(step="loudness", value=-13.0)], SR)


def test_gain_and_pre_emphasis_are_undone_on_the_waveform() -> None:
    y = speech_like()
    steps = (WaveStep(step="gain", value=0.5), WaveStep(step="mean"), WaveStep(step="preemphasis", value=0.97))
    undone = restored(prepared(y, steps, SR).astype(np.float32), steps)
    assert undone.dtype == np.float32
    np.testing.assert_allclose(undone, y - y.mean() / 0.5 * 0.5, atol=2e-4)


def test_the_response_of_steps_is_that_of_their_filters() -> None:
    steps = (WaveStep(step="preemphasis", value=0.97), WaveStep(step="highpass", value=70.0), WaveStep(step="mean"))
    impulse = np.zeros(SR)
    impulse[0] = 1.0
    filtered = prepared(impulse, steps[:2], SR)
    frequencies = np.array([50.0, 100.0, 1000.0, 7000.0])
    measured = np.abs(np.fft.rfft(filtered))[frequencies.astype(int)]
    np.testing.assert_allclose(response(steps, frequencies, SR), measured, rtol=1e-6)


def naive(y: NDArray[np.floating], window: NDArray[np.float64], spec: MelSpec) -> NDArray[np.float64]:
    """Return energies ``(n_bins, n_frames)`` of centred frames."""
    padded = np.pad(y.astype(np.float64), spec.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.n_fft)[:: spec.hop_length]
    return np.asarray(np.abs(np.fft.rfft(frames * window, axis=1)).T ** 2)


def test_window_clamp_and_gains_are_those_of_numpy() -> None:
    from melmill.stages.numeric.filterbank import mel_bank

    y, gain = speech_like(), np.linspace(0.5, 2.0, 80)
    spec = MelSpec(window="hann_symmetric", energy_floor=1e-4, eps=1e-6, band_gain=tuple(gain))
    energy = np.maximum(naive(y, np.hanning(1024), spec), 1e-4) + 1e-6
    expected = gain[:, None] * (mel_bank(spec) @ np.sqrt(energy))
    np.testing.assert_allclose(mel_spectrogram(y, spec), expected, rtol=2e-6)


def test_a_bank_for_another_rate_is_that_of_the_other_rate() -> None:
    y = speech_like()
    other = MelSpec(sr=24000, bank_sr=16000, fmax=8000.0)
    np.testing.assert_array_equal(mel_spectrogram(y, other), mel_spectrogram(y, MelSpec(sr=16000)))
    assert other.top_hz == 8000.0
    assert MelSpec(sr=16000, bank_sr=16000) == MelSpec(sr=16000)
    with pytest.raises(ParameterError, match=r"fmax must not exceed bank_sr / 2 = 8000 Hz"):
        MelSpec(sr=24000, bank_sr=16000, fmax=12000.0)


MEAN, STD = tuple(np.linspace(-8, -2, 80)), tuple(np.linspace(0.5, 3, 80))
BANDS = np.abs(np.random.default_rng(0).standard_normal((80, 40))).astype(np.float32)
UNDONE = [
    replace(LN, band_mean=MEAN, band_std=STD),
    replace(LN, band_std=STD, shift=4.0, scale=0.25),
    replace(LN, floor_kind="add"),
    replace(LN, log="log10", floor_kind="add", floor=1.0),
    replace(LN, log="db", floor_kind="add", power=2.0),
    replace(LN, band_gain=STD),
    MelSpec(band_mean=MEAN, band_gain=STD, compression=0.3),
]


@pytest.mark.parametrize("spec", UNDONE)
def test_what_is_done_to_bands_is_undone(spec: MelSpec) -> None:
    np.testing.assert_allclose(to_linear(from_bands(BANDS, spec), spec), BANDS, rtol=2e-4, atol=2e-5)


def test_a_floor_is_added_or_the_least() -> None:
    x = np.array([[0.0, 1e-5, 1.0]], dtype=np.float32).repeat(80, axis=0)
    added = from_bands(x, replace(LN, floor_kind="add"))
    np.testing.assert_allclose(added[0], np.log([1e-5, 2e-5, 1 + 1e-5]), rtol=1e-6)


def test_values_far_below_the_highest_are_raised() -> None:
    spec = replace(LN, log="log10", below_max=2.0, shift=4.0, scale=0.25)
    M = mel_spectrogram(speech_like(), spec)
    plain = mel_spectrogram(speech_like(), replace(LN, log="log10"))
    np.testing.assert_allclose(M, (np.maximum(plain, plain.max() - 2) + 4) / 4, atol=1e-6)
    assert M.max() - M.min() == pytest.approx(0.5)


def test_an_utterance_is_normalised_and_its_numbers_undo_it() -> None:
    y = speech_like()
    plain = mel_spectrogram(y, LN).astype(np.float64)
    spec = replace(LN, per_utterance="mean_var")
    M = mel_spectrogram(y, spec)
    expected = (plain - plain.mean(axis=1, keepdims=True)) / (plain.std(axis=1, ddof=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(M, expected, atol=1e-5)
    with pytest.raises(ContractError, match="can't be undone without the numbers of each utterance"):
        to_linear(M, spec)
    mean, std = band_statistics(y, spec)
    np.testing.assert_allclose(
        to_linear(M, spec.normalised(mean, std)), to_linear(plain.astype(np.float32), LN), rtol=1e-3
    )
    with pytest.raises(ContractError, match="this is for per_utterance: mean or mean_var"):
        band_statistics(y, LN)


def test_an_utterance_is_divided_by_its_highest_value() -> None:
    M = mel_spectrogram(speech_like(), MelSpec(per_utterance="max", compression=0.25))
    assert M.max() == pytest.approx(1.0)


FRAMES = [
    # samples, frames: all, whole hops, rounded half up
    (2560, 11, 10, 10),
    (2560 + 127, 11, 10, 10),
    (2560 + 128, 11, 10, 11),
    (2560 + 255, 11, 10, 11),
]


@pytest.mark.parametrize(("n_samples", "whole", "floor", "rounded"), FRAMES)
def test_frames_are_all_or_whole_hops_or_rounded(n_samples: int, whole: int, floor: int, rounded: int) -> None:
    y = speech_like(n_samples)
    plain = mel_spectrogram(y, LN)
    for frames, n_frames in (("all", whole), ("floor", floor), ("round", rounded)):
        spec = replace(LN, frames=frames)  # type: ignore[arg-type]  # three words
        M = mel_spectrogram(y, spec)
        assert M.shape[1] == n_frames == spec.n_frames(n_samples)
        np.testing.assert_array_equal(M, plain[:, :n_frames])


def test_a_lacking_frame_repeats_the_last() -> None:
    spec = MelSpec(center="same", frames="round")
    M = mel_spectrogram(speech_like(2560 + 200), spec)
    assert M.shape[1] == 11
    np.testing.assert_array_equal(M[:, -1], M[:, -2])


def test_the_last_frame_is_overwritten_and_filled_up() -> None:
    y, spec = speech_like(), replace(LN, last_frame=-11.52, frame_multiple=16)
    M, plain = mel_spectrogram(y, spec), mel_spectrogram(y, LN)
    n_frames = plain.shape[1]
    assert M.shape[1] == 32 == spec.n_frames(y.size)
    np.testing.assert_array_equal(M[:, : n_frames - 1], plain[:, :-1])
    assert (M[:, n_frames - 1 :] == np.float32(-11.52)).all()
    whole = unframed(M, spec)
    np.testing.assert_array_equal(whole[:, :-1], plain[:, :-1])
    np.testing.assert_array_equal(whole[:, -1], whole[:, -2])


def test_a_shifted_key_moves_a_tone_by_its_semitones() -> None:
    spec = MelSpec(sr=16000, center="same", pad_mode="reflect")
    tone = 0.3 * np.sin(2 * np.pi * 500 * np.arange(SR) / SR)
    octave_up = mel_spectrogram(tone.astype(np.float32), replace(spec, key_shift=12.0))
    high = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(SR) / SR)
    expected = mel_spectrogram(high.astype(np.float32), spec)
    middle = slice(10, 50)
    np.testing.assert_array_equal(octave_up[:, middle].argmax(axis=0), expected[:, middle].argmax(axis=0))
    assert octave_up.shape == expected.shape
    with pytest.raises(ContractError, match="key_shift: 12 can't be undone"):
        to_linear(octave_up, replace(spec, key_shift=12.0))


CONVERSIONS = [
    # made by, needed, conversion
    (LN, replace(LN, band_mean=MEAN, band_std=STD), "lossless"),
    (replace(LN, band_mean=MEAN, band_std=STD), LN, "lossless"),
    (LN, replace(LN, floor_kind="add"), "lossy"),  # the floor hides what the sum tells apart
    (replace(LN, floor_kind="add"), LN, "lossless"),
    (LN, replace(LN, below_max=8.0), "lossless"),
    (replace(LN, below_max=8.0), LN, "lossy"),
    (LN, replace(LN, per_utterance="mean_var"), "lossless"),
    (replace(LN, per_utterance="mean_var"), LN, "impossible"),
    (LN, replace(LN, frames="floor"), "lossless"),
    (replace(LN, frames="floor"), LN, "lossy"),
    (replace(LN, center="same", frames="floor"), replace(LN, center="same"), "same"),
    (LN, replace(LN, last_frame=0.0), "lossless"),
    (replace(LN, last_frame=0.0), LN, "lossy"),
    (LN, replace(LN, band_gain=STD), "lossy"),  # gains above 1 tell more apart than the floor
    (LN, replace(LN, window="hann_symmetric"), "lossy"),
    (LN, replace(LN, wave=(WaveStep(step="peak", value=0.5),)), "lossy"),
    (LN, replace(LN, wave=(WaveStep(step="preemphasis", value=0.97),)), "impossible"),
    (MelSpec(sr=24000), MelSpec(sr=24000, bank_sr=16000), "impossible"),
    (LN, replace(LN, key_shift=4.0), "impossible"),
]


@pytest.mark.parametrize(("a", "b", "kind"), CONVERSIONS)
def test_conversions_of_such_mels_are_judged(a: MelSpec, b: MelSpec, kind: str) -> None:
    assert conversion(a, b) == kind
    if kind == "lossless":
        y = speech_like()
        np.testing.assert_allclose(convert(mel_spectrogram(y, a), a, b), mel_spectrogram(y, b), rtol=1e-3, atol=2e-3)
    else:
        assert explain(a, b)


def test_old_specs_keep_their_fields_and_new_ones_survive_storage() -> None:
    assert list(LN.as_dict()) == [
        *("sr", "n_fft", "win_length", "hop_length", "n_mels", "fmin", "fmax", "htk", "norm", "power", "log", "floor"),
        *("center", "pad_mode", "eps", "normalized", "compression", "pcen", "shift", "scale", "clip"),
    ]
    full = MelSpec(
        log="ln",
        floor=1e-5,
        wave=(WaveStep(step="mean"), WaveStep(step="highpass", value=30, both_ways=True)),
        window="hann_symmetric",
        bank_sr=8000,
        band_mean=np.arange(80),  # type: ignore[arg-type]  # arrays become tuples
        last_frame=0,
        frame_multiple=16,
        frames="round",
        below_max=8,
    )
    assert MelSpec.from_dict(json.loads(json.dumps(full.as_dict()))) == full
    assert hash(full) == hash(MelSpec.from_dict(full.as_dict()))


REFUSED = [
    ({"band_mean": (1.0,)}, "band_mean must have one number for each of 80 bands, got 1"),
    ({"band_std": (0.0,) * 80}, "band_std must be positive, got 0.0 in band 0"),
    ({"band_mean": (float("nan"),) * 80}, "band_mean must be finite"),
    ({"band_mean": "stats.npy"}, "band_mean must be numbers, one for each band, got 'stats.npy'"),
    ({"band_mean": ((1.0,),)}, r"band_mean must have shape \(n_mels,\), got \(1, 1\)"),
    ({"wave": ("mean",)}, "wave must be a tuple of WaveStep"),
    ({"wave": (WaveStep(step="highpass", value=9000.0),)}, r"wave a high-pass must lie below sr / 2 = 8000 Hz"),
    ({"window": "hamming"}, "window must be 'hann' or 'hann_symmetric', got 'hamming'"),
    ({"frames": "ceil"}, "frames must be one of"),
    ({"frame_multiple": 16}, "frame_multiple needs last_frame"),
    ({"below_max": 8.0}, "below_max needs a log"),
    ({"below_max": -1.0, "log": "ln", "floor": 1e-5}, "below_max must be above 0"),
    ({"floor_kind": "add"}, "floor_kind 'add' needs a log"),
    ({"floor_kind": "sum"}, "floor_kind must be 'max' or 'add'"),
    ({"per_utterance": "std"}, "per_utterance must be one of"),
    ({"key_shift": 4.0, "center": False}, "key_shift needs padding"),
    ({"energy_floor": -1.0}, "energy_floor must not be negative"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        MelSpec(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step": "mean", "value": 1.0}, "step 'mean' takes no value"),
        ({"step": "peak"}, "step 'peak' needs a value"),
        ({"step": "preemphasis", "value": 1.5}, r"step 'preemphasis': value must be in \(-1, 1\), got 1.5"),
        ({"step": "peak", "value": 0.0}, "value must be positive"),
        ({"step": "clamp", "value": 1.0, "when": "above"}, "when: above is for peak, rms, loudness"),
        ({"step": "trim", "value": 1.0}, "wave must be one of 'mean', 'peak'"),
        ({"step": "highpass", "value": 70.0, "order": 0}, "order must be at least 1"),
    ],
)
def test_wrong_steps_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        WaveStep(**fields)
    assert caught.value.field == "wave"
