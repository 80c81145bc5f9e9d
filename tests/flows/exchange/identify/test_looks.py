"""Arrays that are no mel are told as what they look like, with a recording and without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray

import melmill
from melmill.flows.exchange.identify.identify import identify
from melmill.flows.exchange.identify.matching import Recording

Array = NDArray[Any]


def kinds(speech: NDArray[np.float32]) -> dict[str, tuple[Array, str]]:
    """Return an array of each kind, and what is said of it."""
    rng = np.random.default_rng(0)
    M = melmill.mel(speech, preset="hifigan")
    frames = np.lib.stride_tricks.sliding_window_view(speech, 1024)[::256] * np.hanning(1024)
    S = np.abs(np.fft.rfft(frames)).T
    with_nan = M.copy()
    with_nan[3, 7] = np.nan
    drawn = np.rint(255 * (M - M.min()) / (M.max() - M.min()))
    photo = np.clip(np.cumsum(np.cumsum(rng.normal(size=(80, 200)), 0), 1), -99, 99)
    return {
        "linear spectrogram": (S, "linear spectrogram of n_fft 1024"),
        "stft": (S.astype(np.complex64), "STFT"),
        "mfcc of 80": (scipy.fft.dct(M, axis=0, norm="ortho"), "MFCC"),
        "mfcc of 13": (scipy.fft.dct(M, axis=0, norm="ortho")[:13], "so few rows are those of cepstral coefficients"),
        "mfcc of 40": (scipy.fft.dct(M, axis=0, norm="ortho")[:40], "MFCC"),
        "log linear spectrogram of 20 ms": (np.log(S[:321] + 1e-5), "linear spectrogram of n_fft 640"),
        "wrong bands": (M[:77], "no known mel has 77 or"),
        "zeros": (np.zeros((80, 200)), "all values are 0"),
        "constant": (np.full((80, 200), -11.5), "all values are -11.5"),
        "nan": (with_nan, "1 of 13,760 values are NaN or infinite"),
        "inf": (np.where(M > 0, np.inf, M), "NaN or infinite"),
        "one frame": (M[:, :1], "1 frame of 80 bands"),
        "few frames": (M[:, :5], "5 frames of 80 bands"),
        "encodec tokens": (rng.integers(0, 1024, (8, 225)), "tokens of a codec"),
        "encodec tokens as floats": (rng.integers(0, 1024, (8, 225)).astype(np.float32), "tokens of a codec"),
        "encodec latents": (rng.normal(size=(128, 225)), "noise, or features in no order"),
        "one frame alone": (M[:, 0], "one frame of 80 bands"),
        "one line of tokens": (rng.integers(0, 4096, 500), "tokens"),
        "encodec tokens below a batch": (rng.integers(0, 1024, (1, 8, 225)), "tokens of a codec"),
        "waveform": (speech, "a waveform of 44,100 samples"),
        "waveform in a batch": (speech[np.newaxis], "a waveform"),
        "stereo": (np.stack([speech, speech]), "a waveform of 2 channels"),
        "int16 waveform": (np.int16(speech * 32767), "integers"),
        "image": (np.uint8(drawn), "8-bit image"),
        "colours first": (np.uint8(np.stack([drawn] * 3)), "an image of 3 colours"),
        "colour image": (np.uint8(np.stack([drawn] * 3, -1)), "an image of 3 colours"),
        "image as floats": (drawn / 255.0, "8-bit image"),
        "noise": (rng.normal(size=(80, 200)), "noise"),
        "embeddings": (rng.normal(size=(80, 1)) + 0.1 * np.cumsum(rng.normal(size=(80, 200)), 1), "not alike"),
        "empty": (np.zeros((80, 0)), "empty"),
        "photograph": (photo, ""),
    }


@pytest.mark.parametrize("given", [True, False], ids=["recording", "alone"])
def test_what_is_no_mel_is_told(given: bool, speech: NDArray[np.float32], heard: Recording) -> None:
    wrong = {}
    for kind, (array, expected) in kinds(speech).items():
        found = identify(array, heard if given else None)
        told = found.verdict == "no_mel" if expected else not found.fits
        if not told or expected not in found.looks_like:
            wrong[kind] = (found.verdict, found.looks_like)
    assert wrong == {}
