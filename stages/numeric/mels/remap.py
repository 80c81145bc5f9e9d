"""A magnitude on other frequencies and at other times: what another transform would have found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mels.wave import response
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.stft import hann, window_norm

Array = NDArray[np.float64]

# Updates after which a magnitude agrees with its mel to a thousandth.
_N_UPDATES = 10
_TINY = 1e-30
# Bins over which the level at the top of a bank is taken, and how it goes on above: as speech does.
_TOP_BINS, _FALL_PER_OCTAVE_DB = 8, 12.0
# A bank holds a band if it holds this share of the band's weight.
_HELD_SHARE = 0.95


def smooth_magnitude(linear: NDArray[np.floating], spec: MelSpec) -> Array:
    """Return a smooth magnitude that agrees with a linear mel.

    It starts from the bands' levels, spread over their triangles. Updates
    ``S <- S * E^T (M / E S) / E^T 1`` of ``S = Y**p`` follow. Where no band is, it goes on above the
    bank at a fall of 12 dB per octave, and is halved below. No phase is needed.

    Parameters
    ----------
    linear : ndarray of float, shape (n_mels, n_frames)
        ``E |X|**p``, as `melmill.stages.numeric.mel.to_linear` returns it.
    spec : MelSpec

    Returns
    -------
    ndarray of float64, shape (n_bins, n_frames)

    References
    ----------
    Lee and Seung 2000 (the updates).
    """
    E, M = mel_bank(spec).astype(np.float64), linear.astype(np.float64)
    held = np.flatnonzero(E.sum(axis=0) > 0)
    levels = M / np.maximum(E.sum(axis=1), _TINY)[:, np.newaxis]
    peaks = E / np.maximum(E.max(axis=1), _TINY)[:, np.newaxis]
    spread = np.maximum(peaks.sum(axis=0), _TINY)[:, np.newaxis]
    S = np.maximum((peaks.T @ levels) / spread, _TINY)
    weight = np.maximum(E.sum(axis=0), _TINY)[held, np.newaxis]
    for _ in range(_N_UPDATES):
        ratio = M / np.maximum(E @ S, _TINY)
        S[held] *= (E.T @ ratio)[held] / weight
    return _extended(S ** (1.0 / spec.power), held) if held.size else S


def _extended(Y: Array, held: NDArray[np.intp]) -> Array:
    """Go on below and above the bins that a bank holds."""
    low, top = int(held[0]), int(held[-1])
    Y[:low] = 0.5 * Y[low]
    above = np.arange(top + 1, len(Y))
    level = np.exp(np.log(np.maximum(Y[max(low, top + 1 - _TOP_BINS) : top + 1], _TINY)).mean(axis=0))
    Y[above] = level * ((above / max(top, 1)) ** (-_FALL_PER_OCTAVE_DB / (20.0 * np.log10(2.0))))[:, np.newaxis]
    return Y


def same_frames(a: MelSpec, b: MelSpec) -> bool:
    """Tell whether two specs look at the same samples by the same transform.

    Windows of the same length count as the same, periodic or symmetric, and so does padding by
    zeros or by reflection.

    >>> same_frames(MelSpec(), MelSpec(n_mels=40, pad_mode="reflect")), same_frames(MelSpec(), MelSpec(center="same"))
    (True, False)
    """
    fields = ("sr", "n_fft", "win_length", "hop_length")
    return all(getattr(a, name) == getattr(b, name) for name in fields) and a.stft.pad == b.stft.pad


def unseen_bands(a: MelSpec, b: MelSpec) -> NDArray[np.intp]:
    """Return the bands of `b` that lie where a mel made by `a` holds nothing.

    >>> unseen_bands(MelSpec(sr=22050, fmax=8000.0), MelSpec(sr=22050, fmax=None)).tolist()
    [72, 73, 74, 75, 76, 77, 78, 79]
    """
    E = mel_bank(b).astype(np.float64)
    known = np.flatnonzero(mel_bank(a).sum(axis=0) > 0)
    lowest, highest = (known[[0, -1]] * a.sr / a.n_fft) if known.size else (0.0, -1.0)
    frequencies = np.arange(b.stft.n_bins) * b.sr / b.n_fft
    inside = (frequencies >= lowest - a.sr / a.n_fft) & (frequencies <= highest + a.sr / a.n_fft)
    share = E[:, inside].sum(axis=1) / np.maximum(E.sum(axis=1), _TINY)
    return np.flatnonzero((share < _HELD_SHARE) & (E.sum(axis=1) > 0))


def remapped(Y: Array, a: MelSpec, b: MelSpec, n_samples: int) -> Array:
    """Return a magnitude as the transform of another spec would have it.

    Energies are interpolated over frequency, and their logs over time, between the middles of frames.
    Levels change with the energy of the window, as for noise. Filters and gains that one of the
    specs has before its transform are undone or done.

    Parameters
    ----------
    Y : ndarray of float64, shape (n_bins of a, n_frames)
    a, b : MelSpec
    n_samples : int
        Length of the waveform under it at ``b.sr``.

    Returns
    -------
    ndarray of float64, shape (n_bins of b, n_frames of b)
        Of all frames of its transform.
    """
    energy = np.maximum(Y**2 - a.eps * window_norm(a) ** 2, 0.0)
    own, other = (np.arange(s.stft.n_bins) * s.sr / s.n_fft for s in (a, b))
    if own.size != other.size or not np.allclose(own, other):
        energy = np.stack([np.interp(other, own, frame, right=0.0) for frame in energy.T], axis=1)
    windows = [hann(spec.stft) for spec in (a, b)]
    level = (b.sr * np.sum(windows[1] ** 2)) / (a.sr * np.sum(windows[0] ** 2))
    if a.wave != b.wave:
        within = np.minimum(other, a.sr / 2)
        before = np.maximum(response(a.wave, within, a.sr), 1e-3)
        energy = energy * ((response(b.wave, other, b.sr) / before) ** 2)[:, np.newaxis]
    n_frames = b.stft.n_frames(n_samples)
    if same_frames(a, b):
        lacking = n_frames - energy.shape[1]
        at_times = np.pad(energy[:, :n_frames], ((0, 0), (0, max(0, lacking))), mode="edge")
    else:
        at_times = _at(np.log(energy + _TINY), _middles(a, energy.shape[1]), _middles(b, n_frames))
        at_times = np.exp(at_times)
    return np.asarray(np.sqrt(at_times * level))


def _middles(spec: MelSpec, n_frames: int) -> Array:
    """Return the times of the middles of frames, s."""
    return (np.arange(n_frames) * spec.hop_length - spec.stft.pad + spec.n_fft / 2.0) / spec.sr


def _at(values: Array, times: Array, wanted: Array) -> Array:
    """Return the columns of values at wanted times, those at the ends beyond them."""
    if values.shape[1] == 1:
        return np.repeat(values, wanted.size, axis=1)
    left = np.clip(np.searchsorted(times, wanted) - 1, 0, values.shape[1] - 2)
    share = np.clip((wanted - times[left]) / (times[left + 1] - times[left]), 0.0, 1.0)
    return np.asarray(values[:, left] * (1.0 - share) + values[:, left + 1] * share)


def bands_of(Y: Array, spec: MelSpec) -> NDArray[np.float32]:
    """Return what a spec's bank makes of a magnitude ``(n_bins, n_frames)`` of its transform."""
    energy = np.maximum((Y / window_norm(spec)) ** 2, spec.energy_floor) + spec.eps
    return np.asarray(mel_bank(spec).astype(np.float64) @ energy ** (spec.power / 2.0), dtype=np.float32)
