"""One iteration over a signal: each group of frames goes to its spectrum and back, all in cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.fourier import Fourier, forward, fourier, inverse
from melmill.stages.numeric.lanes.framing import Framing, add_frames, flush, n_groups, take_frames
from melmill.stages.numeric.lanes.vector import LANES, Flat, inlined, kernel, load, store


class Sweep(NamedTuple):
    """A signal in tiles, how it is framed and transformed, and the memory that takes.

    `Z` holds the spectrum of one group between `spectrum` and `overlap`, rows ``(n_bins, 2)``.
    """

    signal: NDArray[np.floating]
    framing: Framing
    fourier: Fourier
    Z: NDArray[np.floating]
    work: NDArray[np.floating]
    span: NDArray[np.floating]
    sums: NDArray[np.floating]


def sweep(f: Framing, n_fft: int, signal: NDArray[np.floating] | None = None) -> Sweep:
    """Return what sweeps over a signal in tiles, or else over zeros, framed so."""
    dtype = f.window.dtype
    transform = fourier(n_fft, dtype.name)
    width = LANES + -(-f.reach // LANES) * LANES
    if signal is None:
        signal = np.zeros((n_groups(f.n_frames) + width // LANES - 1, f.hop, LANES), dtype=dtype)
    return Sweep(
        signal=signal,
        framing=f,
        fourier=transform,
        Z=np.zeros(2 * (1 + n_fft // 2) * LANES, dtype=dtype),
        work=np.zeros(2 * transform.size * LANES, dtype=dtype),
        span=np.zeros(f.hop * width, dtype=dtype),
        sums=np.zeros(f.hop * width, dtype=dtype),
    )


@inlined
def groups(s: Sweep) -> range:
    """Return the groups of frames, in order."""
    return range(-(-s.framing.n_frames // LANES))


@kernel
def spectrum(s: Sweep, group: int) -> None:
    """Write the spectrum of a group to `Z`."""
    take_frames(s.signal, group, s.span, s.work, s.framing)
    forward(s.work, s.Z, s.fourier)


@kernel
def overlap(s: Sweep, group: int) -> None:
    """Add the frames of the spectrum in `Z` to the next signal, group after group."""
    inverse(s.Z, s.work, s.fourier)
    add_frames(s.work, group, s.sums, s.signal, s.framing)


@kernel
def finish(s: Sweep) -> None:
    """Complete the next signal after its last group."""
    flush(-(-s.framing.n_frames // LANES), s.sums, s.signal, s.framing)


@kernel
def analyse(s: Sweep, Z: Flat) -> None:
    """Write all spectra ``(n_groups, n_bins, 2, LANES)`` of the signal."""
    for group in groups(s):
        spectrum(s, group)
        for row in range(0, s.Z.size, LANES):
            store(Z, group * s.Z.size + row, load(s.Z, row))


@kernel
def synthesise(s: Sweep, X: Flat) -> None:
    """Make the signal the nearest to all spectra ``(n_groups, n_bins, 2, LANES)``."""
    for group in groups(s):
        for row in range(0, s.Z.size, LANES):
            store(s.Z, row, load(X, group * s.Z.size + row))
        overlap(s, group)
    finish(s)


def to_lanes(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return an array ``(n_rows, n_frames)`` in lane layout, with frames of 0 up to whole groups.

    >>> to_lanes(np.ones((80, 17))).shape
    (2, 80, 16)
    """
    n_rows, n_frames = rows.shape
    out = np.zeros((n_groups(n_frames), n_rows, LANES), dtype=rows.dtype)
    whole = n_frames // LANES
    out[:whole] = rows[:, : whole * LANES].reshape(n_rows, whole, LANES).swapaxes(0, 1)
    if n_frames % LANES:
        out[whole, :, : n_frames % LANES] = rows[:, whole * LANES :]
    return out


def from_lanes(array: NDArray[np.floating], n_frames: int) -> NDArray[np.floating]:
    """Return what `to_lanes` was given, ``(n_rows, n_frames)``."""
    return np.ascontiguousarray(array.swapaxes(0, 1)).reshape(array.shape[1], -1)[:, :n_frames]
