"""Four things about mels that one can see and hear on a single clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import magnitude_spec, mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.stft import Stft
from melmill.stages.score.trust.damages import DAMAGES, damaged
from melmill.stages.score.trust.same_mel import scrambled

Signal = NDArray[np.float32]

SHARE = 0.5
"""Share of 180° by which the phase of the clip is scrambled."""

ERROR_DB = -15.0
"""Mel error that clips of different timbre share."""

KINDS = ("noise", "smear", "lowpass", "buzz")
"""Damages that are made equally large."""

_BISECTIONS = 12
_RANGES = {"noise": (60.0, -20.0), "buzz": (60.0, -20.0), "smear": (1.0, 800.0), "lowpass": (0.45, 0.1)}


def mel_error_db(y: Signal, y_hat: Signal, spec: MelSpec) -> float:
    """Return ``20 log10(||M - M_hat|| / ||M||)`` of linear mels, dB; at least -200."""
    M, M_hat = (mel_spectrogram(x, magnitude_spec(spec)).astype(np.float64) for x in (y, y_hat))
    return _ratio_db(M, M_hat)


def _ratio_db(M: NDArray[np.float64], M_hat: NDArray[np.float64]) -> float:
    error, energy = float(np.linalg.norm(M - M_hat)), float(np.linalg.norm(M))
    return -200.0 if error <= 1e-10 * energy else 20.0 * float(np.log10(error / energy))


def phase_scrambled(y: Signal, spec: MelSpec, seed: int = 0) -> Signal:
    """Return a clip that has the mel of `y` and another phase, by 200 iterations."""
    return scrambled(y, spec, SHARE, np.random.default_rng(seed), n_iter=200)


@dataclass(frozen=True, kw_only=True)
class Bank:
    """Say what the bank of a mel does to magnitudes.

    Parameters
    ----------
    product : ndarray, shape (n_bins, n_bins)
        ``E⁺E``; it would be the identity if nothing were lost.
    rank : int
    lost_db : float
        ``20 log10(||A - E⁺E A|| / ||A||)`` of the magnitudes A of a clip.
    """

    product: NDArray[np.float64]
    rank: int
    lost_db: float


def bank_of_clip(y: Signal, spec: MelSpec) -> Bank:
    """Return what the bank of a spec does to the magnitudes of a clip."""
    E = mel_bank(spec).astype(np.float64)
    product = np.linalg.pinv(E) @ E
    A = np.abs(Stft(magnitude_spec(spec).stft, np.float64).forward(y)).T
    return Bank(product=product, rank=int(np.linalg.matrix_rank(E)), lost_db=_ratio_db(A, np.asarray(product @ A)))


def shift_errors(y: Signal, spec: MelSpec) -> list[tuple[int, float]]:
    """Return delays in samples, and how far the mel is from the recording's, moved by whole frames, dB.

    A delay of whole hops moves the frames and changes none. Any other delay changes all. Frames at
    the edges, which hold other samples, are left out. A clip that has no others gives no rows.
    """
    hop, plain = spec.hop_length, magnitude_spec(spec)
    M = mel_spectrogram(y, plain).astype(np.float64)
    edge = -(-spec.n_fft // hop)
    found = []
    for delay in (1, hop // 4, hop // 2, hop, 2 * hop):
        frames = round(delay / hop)
        late = np.concatenate([np.zeros(delay, dtype=np.float32), y])
        M_late = mel_spectrogram(late, plain).astype(np.float64)
        n = min(M.shape[1], M_late.shape[1] - frames)
        if n <= 2 * edge:
            continue
        same = slice(edge, n - edge)
        found.append((delay, _ratio_db(M[:, same], M_late[:, frames : frames + n][:, same])))
    return found


def equally_wrong(y: Signal, spec: MelSpec, seed: int = 0) -> Mapping[str, Signal]:
    """Return clips by the name of their damage, all with a mel error of about `ERROR_DB`.

    The strength of each damage is found by bisection. One that can't be that large is left out.
    """
    made: dict[str, Signal] = {}
    for name in KINDS:
        mild, strong = _RANGES[name]
        if DAMAGES[name].unit == "kHz":
            mild, strong = mild * spec.sr / 1000.0, strong * spec.sr / 1000.0

        def at(step: float, name: str = name) -> Signal:
            return damaged(y, spec.sr, DAMAGES[name], step, spec, seed)

        if not mel_error_db(y, at(mild), spec) < ERROR_DB < mel_error_db(y, at(strong), spec):
            continue
        for _ in range(_BISECTIONS):
            middle = (mild + strong) / 2
            if mel_error_db(y, at(middle), spec) < ERROR_DB:
                mild = middle
            else:
                strong = middle
        made[name] = at((mild + strong) / 2)
    return made
