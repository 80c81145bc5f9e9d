"""M-STFT, the multi-resolution STFT distance that vocoders are trained on and evaluated with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import StftParams
from melmill.stages.score.metric import Metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""FFT, hop and window in samples, whatever the rate."""

POWER_FLOOR = 1e-8
"""Powers of bins are raised to this, as in auraloss."""


def mstft(reference: NDArray[np.float32], estimate: NDArray[np.float32]) -> Measured:
    """Return the multi-resolution STFT distance of two signals.

    It is the mean over `RESOLUTIONS` of ``||Y - Y'|| / ||Y|| + mean |ln Y - ln Y'|`` of magnitudes
    ``Y = sqrt(max(|STFT|^2, 1e-8))``, with the frames centred and the signal reflected at its edges.

    Parameters
    ----------
    reference, estimate : ndarray of float32, shape (n_samples,)
        Full scale is 1. Below 1025 samples they can't be reflected.

    References
    ----------
    Yamamoto, Song, Kim, "Parallel WaveGAN", ICASSP 2020, eqs. 4 to 6; Steinmetz, Reiss, "auraloss",
    DMRN+15, 2020, whose defaults these are.
    """
    from melmill.stages.score.compiled.resolutions import spectral_distance  # here, as it imports numba

    if reference.size <= max(n_fft for n_fft, _, _ in RESOLUTIONS) // 2:
        return Measured.failed(Status.TOO_SHORT)
    total = 0.0
    for n_fft, hop_length, win_length in RESOLUTIONS:
        params = StftParams(n_fft=n_fft, hop_length=hop_length, win_length=win_length, pad_mode="reflect")
        total += sum(spectral_distance(reference, estimate, params, POWER_FLOOR))
    return Measured.of(total / len(RESOLUTIONS))


def _mstft(pair: Pair) -> Measured:
    return mstft(*pair.at(pair.lowest_sr))


MSTFT = Metric(
    name="mstft",
    title="M-STFT",
    better="lower",
    decimals=3,
    needs="signals",
    compute=_mstft,
    order=75,
    says="Distance of the spectra at three resolutions, as vocoders are trained on it and BigVGAN reports it. "
    "Identical signals have 0.",
    formula=r"Mean over FFT/hop/window 1024/120/600, 2048/240/1200 and 512/50/240 samples of $\lVert Y-\hat "
    r"Y\rVert_F/\lVert Y\rVert_F$ + mean $|\ln Y-\ln\hat Y|$, with $Y=\sqrt{\max(|\mathrm{STFT}(x)|^2, 10^{-8})}$, at "
    "the lower rate of the two signals.",
    limits="The windows are fixed in samples, so values can be compared at one rate only. Quiet bins weigh as much as "
    "loud ones down to its floor, which is far below 16-bit noise.",
    reference="Yamamoto, Song, Kim 2020 (Parallel WaveGAN), eqs. 4 to 6; the defaults of auraloss 0.4.0",
    cost="About 600 x real time at 16 kHz.",
)
