"""Embeddings of recordings: numbers that say how a part of one sounds, in a space with distances."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.networks import speaker
from melmill.stages.score.networks.weights import digest_of

MOST_PARTS = 32
"""A recording with more parts keeps so many, at even steps."""

_MEL = MelSpec(
    sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, fmin=60.0, fmax=7600.0, log="ln", floor=1e-5
)
_PART, _STEP = 100, 50  # frames: 1 s every 0.5 s


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Describe an embedding and compute it.

    Parameters
    ----------
    sr : int
        Rate that it hears, Hz.
    compute : callable
        Takes a signal ``(n_samples,)`` at that rate, and returns ``(n_parts, n_dimensions)``.
    shortest_s : float
        Shorter signals have none, s.
    package : str
        Module that holds its weights. Without it the status is `not_installed`.
    weights : tuple of str
        Files in that package.
    version : int
        Raise it whenever its values change.
    """

    sr: int
    compute: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    shortest_s: float = 0.25
    package: str = ""
    weights: tuple[str, ...] = ()
    version: int = 1

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs is there."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    @property
    def digests(self) -> list[str]:
        """SHA-256 of each file of weights; empty where the package is missing."""
        return [digest_of(self.package, file) for file in self.weights] if self.is_installed else []


def log_mel(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return mean and standard deviation of each band's log over parts of 1 s, every 0.5 s.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        At 16 kHz. A shorter signal is one part.

    Returns
    -------
    ndarray of float32, shape (n_parts, 80)
        Nepers.
    """
    M = mel_spectrogram(y, _MEL).astype(np.float64)
    starts = range(0, max(1, M.shape[1] - _PART + 1), _STEP)
    parts = [M[:, start : start + _PART] for start in starts]
    return np.array([np.concatenate([part.mean(axis=1), part.std(axis=1)]) for part in parts], dtype=np.float32)


def thinned(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return at most `MOST_PARTS` of the parts ``(n_parts, n_dimensions)``, at even steps.

    >>> thinned(np.zeros((100, 3), dtype=np.float32)).shape
    (32, 3)
    """
    if len(parts) <= MOST_PARTS:
        return parts
    return parts[np.linspace(0, len(parts) - 1, MOST_PARTS).round().astype(np.intp)]


EMBEDDINGS = {
    "log_mel": Embedding(sr=_MEL.sr, compute=log_mel),
    "speaker": Embedding(
        sr=speaker.SR,
        compute=lambda y: speaker.embedding(y)[np.newaxis],
        package=speaker.PACKAGE,
        weights=(speaker.WEIGHTS,),
    ),
}
"""Embeddings by name: of the log mel spectrum, which needs no package, and of the speaker."""
