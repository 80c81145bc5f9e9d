"""The constants of P.862 for a rate: frames, bands, thresholds of hearing and filters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.compiling import kernels
from melmill.stages.numeric import lanes

Mode = Literal["wb", "nb"]

kernel = kernels(Path(__file__).parent, Path(lanes.__file__).parent)

BUFFER = 75
"""Windows of silence before and behind a signal, which delays may reach into."""

PADDING_S = 0.32
"""Silence behind that, s."""

RESOLUTION_HZ = 31.25

# Bins of a band. At 8 kHz the last band is one bin narrower.
_N_BINS = [1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4,
           3, 4, 5, 4, 5, 6, 6, 7, 8, 9, 9, 12, 12, 15, 16, 18, 21, 25, 20]  # fmt: skip

_WIDTHS_BARK = [
    0.157344, 0.317994, 0.322441, 0.326934, 0.331474, 0.336061, 0.340697, 0.345381, 0.350114, 0.354897,
    0.359729, 0.364611, 0.369544, 0.374529, 0.379565, 0.384653, 0.389794, 0.394989, 0.400236, 0.405538,
    0.410894, 0.416306, 0.421773, 0.427297, 0.432877, 0.438514, 0.444209, 0.449962, 0.455774, 0.461645,
    0.467577, 0.473569, 0.479621, 0.485736, 0.491912, 0.498151, 0.504454, 0.510819, 0.517250, 0.523745,
    0.530308, 0.536934, 0.543629, 0.550390, 0.557220, 0.564119, 0.571085, 0.578125, 0.585232,
]  # fmt: skip

# What a band's sum of bins is multiplied by, for the share of the bins that belong to it.
_CORRECTIONS = [
    100.0, 99.999992, 100.0, 100.000008, 100.000008, 100.000015, 99.999992, 99.999969, 50.000027, 100.0,
    99.999969, 100.000015, 99.999947, 100.000061, 53.047077, 110.000046, 117.991989, 65.0, 68.760147, 69.999931,
    71.428818, 75.000038, 76.843384, 80.968781, 88.646126, 63.864388, 68.155350, 72.547775, 75.584831, 58.379192,
    80.950836, 64.135651, 54.384785, 73.821884, 64.437073, 59.176456, 65.521278, 61.399822, 58.144047, 57.004543,
    64.126297, 54.311001, 61.114979, 55.077751, 56.849335, 55.628868, 53.137054, 54.985844, 79.546974,
]  # fmt: skip

_THRESHOLDS_DB = [
    77.1, 63.9, 48.5, 36.9, 30.7, 25.9, 20.2, 16.6, 12.5, 9.9, 6.9, 4.9, 2.8, 1.0, -0.1, -1.4, -2.5, -3.4, -4.1,
    -4.8, -5.3, -5.7, -5.9, -6.0, -6.0, -6.0, -6.0, -5.8, -5.4, -5.1, -4.7, -4.3, -4.0, -3.6, -3.3, -3.1, -3.0,
    -3.0, -2.9, -2.8, -2.8, -2.8, -2.9, -3.2, -3.7, -4.3, -4.4, -3.8, -2.7,
]  # fmt: skip

# Second-order sections b0, b1, b2, a1, a2 of the filter before the alignment.
_SECTIONS_8K = [
    [0.885535424, -0.885535424, 0.0, -0.771070709, 0.0],
    [0.895092588, 1.292907193, 0.449260174, 1.268869037, 0.442025372],
    [4.049527940, -7.865190042, 3.815662102, -1.746859852, 0.786305963],
    [0.500002353, -0.500002353, 0.0, 0.0, 0.0],
    [0.565002834, -0.241585934, -0.306009671, 0.259688659, 0.249979657],
    [2.115237288, 0.919935084, 1.141240051, -1.587313419, 0.665935315],
    [0.912224584, -0.224397719, -0.641121413, -0.246029464, -0.556720590],
    [0.444617727, -0.307589321, 0.141638062, -0.996391149, 0.502251622],
]
_SECTIONS_16K = [
    [0.325631521, -0.086782860, -0.238848661, -1.079416490, 0.434583902],
    [0.403961804, -0.556985881, 0.153024077, -0.415115835, 0.696590244],
    [4.736162769, 3.287251046, 1.753289019, -1.859599046, 0.876284034],
    [0.365373469, 0.0, 0.0, -0.634626531, 0.0],
    [0.884811506, 0.0, 0.0, -0.256725271, 0.141536777],
    [0.723593055, -1.447186099, 0.723593044, -1.129587469, 0.657232737],
    [1.644910855, -1.817280902, 1.249658063, -1.778403899, 0.801724355],
    [0.633692689, -0.284644314, -0.319789663, 0.0, 0.0],
    [1.032763031, 0.268428979, 0.602913323, 0.0, 0.0],
    [1.001616361, -0.823749013, 0.439731942, -0.885778255, 0.0],
    [0.752472096, -0.375388990, 0.188977609, -0.077258216, 0.247230734],
    [1.023700575, 0.001661628, 0.521284240, -0.183867259, 0.354324187],
]

WIDE_BAND_SECTION = np.array([[2.740826, -5.4816519, 2.740826, -1.9444777, 0.94597794]], dtype=np.float32)
"""High-pass of P.862.2 at 16 kHz, as a second-order section."""

# Gains in dB at frequencies in Hz, linear in between.
CALIBRATION_BAND = np.array([[0.0, -500.0], [300.0, -500.0], [350.0, 0.0], [3250.0, 0.0], [3500.0, -500.0],
                             [8000.0, -500.0]])  # fmt: skip
"""Band whose power sets the level."""

HANDSET = np.array([[0.0, -200.0], [50.0, -40.0], [100.0, -20.0], [125.0, -12.0], [160.0, -6.0], [200.0, 0.0],
                    [250.0, 4.0], [300.0, 6.0], [350.0, 8.0], [400.0, 10.0], [500.0, 11.0], [600.0, 12.0],
                    [3250.0, 12.0], [3500.0, 4.0], [4000.0, -200.0], [8000.0, -200.0]])  # fmt: skip
"""Receiving telephone handset of P.862 (IRS)."""


class Rate(NamedTuple):
    """What depends on the rate, for compiled code.

    Powers are those of 16-bit samples. A band b has the `bins` from ``first[b]`` to
    ``first[b + 1]``.
    """

    sr: int
    window: int  # samples of 4 ms, the step of activity and coarse delays
    n_fft: int  # of the model, 32 ms
    n_align: int  # of the alignment, 64 ms
    padding: int
    first: NDArray[np.int64]
    corrections: NDArray[np.float32]
    widths: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    exponents: NDArray[np.float64]
    loudness_scale: float
    sections: NDArray[np.float32]

    @property
    def start(self) -> int:
        """Sample at which a signal begins, behind its buffer."""
        return BUFFER * self.window


@cache
def rate(sr: int) -> Rate:
    """Return the constants at 8000 or 16000 Hz."""
    wide = sr == 16000
    n_bands = 49 if wide else 42
    n_bins, corrections = np.array(_N_BINS[:n_bands]), np.array(_CORRECTIONS[:n_bands])
    if not wide:
        n_bins[-1], corrections[-1] = 11, 59.248363
    widths = np.array(_WIDTHS_BARK[:n_bands])
    centres = np.cumsum(widths) - widths / 2
    # Loudness grows faster below 4 Bark.
    steeper = np.where(centres < 4.0, np.minimum(6.0 / (centres + 2.0), 2.0), 1.0) ** 0.15
    return Rate(
        sr=sr,
        window=sr // 250,
        n_fft=sr * 32 // 1000,
        n_align=sr * 64 // 1000,
        padding=round(sr * PADDING_S),
        first=np.concatenate([[0], np.cumsum(n_bins)]).astype(np.int64),
        corrections=(corrections * (6.910853e-6 if wide else 2.764344e-5)).astype(np.float32),
        widths=widths,
        thresholds=10.0 ** (np.array(_THRESHOLDS_DB[:n_bands]) / 10.0),
        exponents=0.23 * steeper,
        loudness_scale=0.1866055,
        sections=np.array(_SECTIONS_16K if wide else _SECTIONS_8K, dtype=np.float32),
    )
