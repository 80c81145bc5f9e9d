"""Mel spectrograms against librosa, against closed forms, and byte for byte against themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import librosa
import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from melmill.stages.numeric.errors import ParameterError, StageError, Unusable
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec, Pcen

SR = 16000


def _speechlike(n_samples: int = 12345, seed: int = 0) -> NDArray[np.float32]:
    """Return harmonics that fade in and out over a little noise, with silence in the middle."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / SR
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 30))
    y = 0.1 * voice * np.sin(2 * np.pi * 2 * t) ** 2 + 1e-4 * rng.standard_normal(n_samples)
    y[n_samples // 2 : n_samples // 2 + 2048] = 0.0
    return np.asarray(y, dtype=np.float32)


def _librosa_power(y: NDArray[Any], spec: MelSpec) -> NDArray[Any]:
    return np.asarray(
        librosa.feature.melspectrogram(
            y=y,
            sr=spec.sr,
            n_fft=spec.n_fft,
            win_length=spec.win_length,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
            fmin=spec.fmin,
            fmax=spec.fmax,
            htk=spec.htk,
            norm=spec.norm,
            power=spec.power,
            center=spec.center is True,
            pad_mode=spec.pad_mode,
        )
    )


VARIANTS = [
    # the paper's
    {},
    # power spectra, and an exponent that is neither
    {"power": 2.0},
    {"power": 1.5},
    # banks
    {"htk": True},
    {"norm": None},
    {"htk": True, "norm": None, "power": 2.0},
    {"fmin": 80.0, "fmax": 7600.0},
    {"n_mels": 40},
    # framings
    {"pad_mode": "reflect"},
    {"center": False},
    {"hop_length": 200},
    {"hop_length": 160, "win_length": 400, "n_fft": 512},
    {"win_length": 800},
    {"win_length": 801, "n_fft": 1023},
    {"n_fft": 2048, "win_length": 2048, "hop_length": 512, "n_mels": 128},
]


@pytest.mark.parametrize("fields", VARIANTS)
def test_linear_mel_is_librosas(fields: dict[str, Any]) -> None:
    spec, y = MelSpec(**fields), _speechlike()
    M, expected = mel_spectrogram(y, spec), _librosa_power(y, spec)
    assert M.dtype == np.float32
    assert M.shape == expected.shape == (spec.n_mels, spec.n_frames(y.size))
    np.testing.assert_allclose(M, expected, rtol=1e-5)


@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize("fields", [{}, {"pad_mode": "reflect"}, {"htk": True, "norm": None}, {"center": False}])
def test_logs_are_librosas(power: float, fields: dict[str, Any]) -> None:
    floor = 1e-5**power
    spec, y = MelSpec(power=power, log="db", floor=floor, **fields), _speechlike()
    S = _librosa_power(y, spec)
    if power == 1:
        expected = librosa.amplitude_to_db(S, ref=1.0, amin=1e-5, top_db=None)
    else:
        expected = librosa.power_to_db(S, ref=1.0, amin=1e-10, top_db=None)
    np.testing.assert_allclose(mel_spectrogram(y, spec), expected, rtol=1e-5, atol=1e-5)
    for values, reference in (
        (mel_spectrogram(y, replace(spec, log="ln")), np.log),
        (mel_spectrogram(y, replace(spec, log="log10")), np.log10),
    ):
        np.testing.assert_allclose(values, reference(np.maximum(S, floor)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "params",
    [
        Pcen(),
        # each switch by itself
        Pcen(gain=0.8),
        Pcen(bias=10.0, power=0.25),
        Pcen(time_constant_s=0.06),
        Pcen(eps=1e-3),
        # the two special forms: a log, and a plain power law
        Pcen(power=0.0),
        Pcen(bias=0.0),
    ],
)
def test_pcen_is_librosas(params: Pcen) -> None:
    y = _speechlike()
    S = _librosa_power(y, MelSpec())
    with np.errstate(divide="ignore"):
        expected = librosa.pcen(
            S,
            sr=SR,
            hop_length=256,
            gain=params.gain,
            bias=params.bias,
            power=params.power,
            time_constant=params.time_constant_s,
            eps=params.eps,
        )
    np.testing.assert_allclose(mel_spectrogram(y, MelSpec(pcen=params)), expected, rtol=1e-5, atol=1e-12)


def test_same_framing_is_a_reflected_pad_of_half_the_overlap() -> None:
    y, spec = _speechlike(), MelSpec(center="same", pad_mode="reflect")
    by_hand = mel_spectrogram(np.pad(y, 384, mode="reflect"), MelSpec(center=False))
    np.testing.assert_array_equal(mel_spectrogram(y, spec), by_hand)
    assert by_hand.shape[1] == y.size // 256


def test_steps_after_the_bank_are_applied_in_order() -> None:
    y = _speechlike()
    bands = mel_spectrogram(y, MelSpec()).astype(np.float64)
    decibels = MelSpec(log="db", floor=1e-5, shift=80.0, scale=0.01, clip=(0.0, 1.0))
    expected = np.clip((20 * np.log10(np.maximum(bands, 1e-5)) + 80.0) * 0.01, 0.0, 1.0)
    np.testing.assert_allclose(mel_spectrogram(y, decibels), expected, atol=1e-6)
    np.testing.assert_allclose(mel_spectrogram(y, MelSpec(compression=0.3)), bands**0.3, rtol=1e-5)


def test_eps_is_the_whole_mel_of_silence() -> None:
    spec = MelSpec(eps=1e-9, norm=None)
    expected = np.sqrt(1e-9) * mel_bank(spec).sum(axis=1, dtype=np.float64)
    M = mel_spectrogram(np.zeros(4096, dtype=np.float32), spec)
    np.testing.assert_allclose(M, np.repeat(expected[:, np.newaxis], M.shape[1], axis=1), rtol=1e-6)


def test_normalized_divides_by_the_norm_of_the_window() -> None:
    """A periodic Hann window of 1024 has the squared norm 3/8 * 1024."""
    y = _speechlike()
    M, normalized = mel_spectrogram(y, MelSpec()), mel_spectrogram(y, MelSpec(normalized=True))
    np.testing.assert_allclose(normalized, M / np.sqrt(384.0), rtol=1e-6)


def test_pcm_is_read_as_a_fraction_of_full_scale() -> None:
    pcm = np.round(_speechlike() * 20000).astype(np.int16)
    np.testing.assert_array_equal(mel_spectrogram(pcm, MelSpec()), mel_spectrogram(pcm / np.float32(32768), MelSpec()))


def test_bytes_do_not_depend_on_threads() -> None:
    y, spec = _speechlike(50000), MelSpec(log="ln", floor=1e-5)
    answers = set()
    for threads in (1, 2, 5):
        with threadpool_limits(threads):
            answers.add(mel_spectrogram(y, spec).tobytes())
    assert len(answers) == 1


def test_bytes_of_a_frame_depend_on_its_samples_alone() -> None:
    """The same samples at another place of another block, after other frames, give the frame."""
    y, spec = _speechlike(50000), MelSpec(center=False)
    whole, part = mel_spectrogram(y, spec), mel_spectrogram(y[7 * 256 : 40000], spec)
    assert part.tobytes() == whole[:, 7 : 7 + part.shape[1]].tobytes()


@pytest.mark.parametrize("n_samples", [1, 2, 100, 255, 256, 257, 513, 1023, 1024])
@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")
def test_short_signals_have_librosas_frames(n_samples: int, pad_mode: Any) -> None:
    y, spec = _speechlike()[:n_samples] + np.float32(0.01), MelSpec(pad_mode=pad_mode)
    M = mel_spectrogram(y, spec)
    assert M.shape[1] == spec.n_frames(n_samples) == 1 + n_samples // 256
    np.testing.assert_allclose(M, _librosa_power(y, spec), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    ("y", "fields", "error", "message"),
    [
        # nothing to look at
        (np.zeros(0, np.float32), {}, Unusable, "0 samples are shorter than one frame"),
        (np.zeros(0, np.float32), {"pad_mode": "reflect"}, Unusable, "0 samples are shorter than one frame"),
        # shorter than a frame where nothing is padded, than a hop where frames are counted by hops
        (np.zeros(1023, np.float32), {"center": False}, Unusable, "1023 samples are shorter .*n_fft=1024"),
        (np.zeros(255, np.float32), {"center": "same"}, Unusable, "255 samples are shorter .*'same'"),
        # not a waveform
        (np.zeros((2, 4000), np.float32), {}, StageError, r"got shape \(2, 4000\): mix its channels"),
        (np.zeros(4000, np.int32), {}, StageError, "got int32: give 16-bit samples as int16"),
        (np.full(4000, np.nan, np.float32), {}, Unusable, "not finite"),
        (np.full(4000, 1e38, np.float32), {"power": 2.0}, Unusable, "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_what_cant_be_a_mel_is_refused(
    y: NDArray[Any], fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        mel_spectrogram(y, MelSpec(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gain": -1.0}, "gain must not be negative"),
        ({"power": -0.5}, "power must not be negative"),
        ({"time_constant_s": 0.0}, "time_constant_s must be positive"),
        ({"eps": 0.0}, "eps must be positive"),
    ],
)
def test_pcen_parameters_are_checked(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Pcen(**fields)


def test_stored_spec_is_one_text_for_equal_specs() -> None:
    whole, real = (
        MelSpec(fmin=0, clip=(0, 1), pcen=Pcen(gain=0)),
        MelSpec(fmin=0.0, clip=(0.0, 1.0), pcen=Pcen(gain=0.0)),
    )
    assert repr(whole.as_dict()) == repr(real.as_dict())
    assert MelSpec.from_dict(whole.as_dict()) == real
