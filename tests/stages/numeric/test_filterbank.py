"""Mel banks against librosa and against their own algebra."""

from __future__ import annotations

import warnings
from typing import Any

import librosa
import numpy as np
import pytest

from melmill.stages.numeric.errors import EmptyBandWarning
from melmill.stages.numeric.filterbank import band_scale, bank_norm, mel_bank
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names

SPECS = [
    # the paper's bank
    MelSpec(),
    # HTK scale, peaks of 1
    MelSpec(sr=24000, n_mels=100, htk=True, norm=None),
    # one of the two
    MelSpec(htk=True),
    MelSpec(norm=None),
    # band edges inside the spectrum, on both sides of Slaney's break at 1 kHz
    MelSpec(sr=22050, fmin=80.0, fmax=7600.0),
    MelSpec(fmin=1500.0, fmax=4000.0, n_mels=20),
    # all below the break
    MelSpec(fmax=900.0, n_mels=10),
    # odd FFT size: no bin at half the rate
    MelSpec(n_fft=1023, win_length=1023),
]


@pytest.mark.parametrize("spec", SPECS)
def test_bank_is_librosas_bit_for_bit(spec: MelSpec) -> None:
    expected = librosa.filters.mel(
        sr=spec.sr,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.fmin,
        fmax=spec.fmax,
        htk=spec.htk,
        norm=spec.norm,
    )
    np.testing.assert_array_equal(mel_bank(spec), expected)


@pytest.mark.filterwarnings("ignore::melmill.stages.numeric.errors.EmptyBandWarning")
@pytest.mark.parametrize("name", preset_names())
def test_norm_is_the_largest_singular_value(name: str) -> None:
    E = mel_bank(preset(name)).astype(np.float64)
    assert bank_norm(preset(name)) == pytest.approx(np.linalg.norm(E, 2), rel=1e-12)


def test_bank_is_made_once_per_bank_and_cant_be_written() -> None:
    log_spec = MelSpec(log="ln", floor=1e-5, hop_length=128)
    assert mel_bank(log_spec) is mel_bank(MelSpec(fmax=8000.0))
    with pytest.raises(ValueError, match="read-only"):
        mel_bank(MelSpec())[0, 0] = 1.0


@pytest.mark.parametrize("field", [{"sr": 24000}, {"n_fft": 2048}, {"n_mels": 40}, {"fmin": 1.0}, {"htk": True}])
def test_every_field_that_matters_makes_another_bank(field: dict[str, Any]) -> None:
    assert not np.array_equal(mel_bank(MelSpec(**field)), mel_bank(MelSpec()))


def test_band_scale_turns_peaks_of_one_into_slaneys() -> None:
    slaney, peaked = MelSpec(sr=22050, fmax=8000.0), MelSpec(sr=22050, fmax=8000.0, norm=None)
    scaled = mel_bank(peaked) * band_scale(slaney)[:, np.newaxis]
    np.testing.assert_allclose(scaled, mel_bank(slaney), rtol=1e-6)
    np.testing.assert_array_equal(band_scale(peaked), np.ones(80))


def test_empty_bands_are_named() -> None:
    spec = MelSpec(n_fft=256, win_length=256, n_mels=120, fmin=10.0)
    with pytest.warns(EmptyBandWarning, match=r"mel bands \[.*\] of 120 hold no FFT bin .*fewer n_mels"):
        E = mel_bank(spec)
    assert (E.max(axis=1) == 0).any()


def test_a_bank_that_lacks_rank_is_legal() -> None:
    spec = preset("bigvgan_v2_44khz_128band_256x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.linalg.matrix_rank(mel_bank(spec)) == 118
