"""Signals whose phase is another and whose mel is the same, to far below what is audible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import magnitude_spec
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.stft import Stft

N_ITER = 60
"""Iterations that pull a signal back to the mel."""

_MEMORY = 10  # pairs of steps that L-BFGS keeps
_TINY = 1e-12

Signal = NDArray[np.float32]
Signal64 = NDArray[np.float64]


def scrambled(y: Signal, spec: MelSpec, share: float, rng: np.random.Generator, n_iter: int = N_ITER) -> Signal:
    """Return a signal with the mel of `y` and, as far as that goes, a random phase.

    The phase of every bin of the STFT is turned by up to ``share * 180`` degrees either way. The
    signal of that has another mel, because frames overlap. So it is pulled back: L-BFGS minimises
    the squared distance of the mels from there. A mel has fewer values than the signal has samples,
    so that there is a signal with that mel nearby, unless the share is near 1.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
    spec : MelSpec
        The mel that stays. Its log and floor don't matter, as linear bands are kept.
    share : float
        In [0, 1].
    rng : Generator
    n_iter : int

    Returns
    -------
    ndarray of float32, shape (n_samples,)

    References
    ----------
    Nocedal, Wright, "Numerical Optimization", 2nd ed., 2006, algorithm 7.5 (L-BFGS).
    """
    if not np.any(y):
        return y.copy()
    mel = _Mel(magnitude_spec(spec))
    D = mel.stft.forward(y)
    turned = D * np.exp(1j * np.pi * share * rng.uniform(-1.0, 1.0, D.shape))
    return pulled(mel.stft.inverse(turned, y.size), y, spec, n_iter)


def pulled(start: NDArray[np.floating], y: Signal, spec: MelSpec, n_iter: int = N_ITER) -> Signal:
    """Return a signal near `start` that has the mel of `y`, by L-BFGS on the squared distance.

    Parameters
    ----------
    start, y : ndarray of float, shape (n_samples,)
    spec : MelSpec
    n_iter : int
        At most so many iterations.
    """
    import scipy.optimize

    mel = _Mel(magnitude_spec(spec))
    M = mel.bands(mel.stft.forward(y))

    def misfit(x: Signal64) -> tuple[float, Signal64]:
        D = mel.stft.forward(x)
        difference = mel.bands(D) - M
        return 0.5 * float(np.sum(difference**2)), mel.gradient(D, difference, x.size)

    found = scipy.optimize.minimize(
        misfit,
        np.asarray(start, dtype=np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": n_iter, "maxcor": _MEMORY, "ftol": 0.0, "gtol": 0.0},
    )
    return np.asarray(found.x, dtype=np.float32)


@dataclass(frozen=True)
class _Mel:
    """The linear bands ``E |X|**power`` of a signal, and the gradient of their distance."""

    spec: MelSpec

    @cached_property
    def stft(self) -> Stft:
        return Stft(self.spec.stft, np.float64)

    @cached_property
    def E(self) -> NDArray[np.float64]:
        return mel_bank(self.spec).astype(np.float64)

    def bands(self, D: NDArray[np.complexfloating]) -> NDArray[np.float64]:
        """Return the bands ``(n_frames, n_mels)`` of a spectrum."""
        return np.asarray(np.abs(D) ** self.spec.power @ self.E.T)

    def gradient(
        self, D: NDArray[np.complexfloating], difference: NDArray[np.float64], n_samples: int
    ) -> NDArray[np.float64]:
        """Return the gradient ``(n_samples,)`` of half the squared distance, at a signal of spectrum `D`."""
        A = np.maximum(np.abs(D), _TINY)
        p = self.spec.power
        G = (difference @ self.E) * (p * A ** (p - 2.0)) * D
        # Bins between the ends of a real transform count twice in its inverse.
        G[:, 1 : (self.spec.n_fft + 1) // 2] *= 0.5
        return self._unpadded(np.asarray(self.stft.overlapped(G) * self.spec.n_fft, dtype=np.float64), n_samples)

    def _unpadded(self, padded: NDArray[np.float64], n_samples: int) -> NDArray[np.float64]:
        """Return the adjoint of the padding: what lies at the edges is folded back, or falls off."""
        pad = self.stft.params.pad
        whole = _of_length(padded, n_samples + 2 * pad)
        inner = whole[pad : pad + n_samples].copy()
        if pad and self.spec.pad_mode == "reflect":
            inner[1 : pad + 1] += whole[:pad][::-1]
            inner[n_samples - 1 - pad : n_samples - 1] += whole[pad + n_samples :][::-1]
        return inner


def _of_length(y: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    return y[:n] if y.size >= n else np.pad(y, (0, n - y.size))
