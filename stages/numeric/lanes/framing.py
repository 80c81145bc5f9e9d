"""Frames of a signal and their overlap-add, `LANES` frames at once, streamed along the signal.

A signal is kept in *tiles* of `LANES` hops, ``(n_tiles, hop_length, LANES)``: sample
``(tile LANES + l) hop + r`` of the padded signal is ``[tile, r, l]``. Sample ``n = j hop + r`` of
`LANES` consecutive frames then lies on consecutive places of row r, from column j on. So framing is
one load for each row, whatever the hop, and nothing is transposed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.vector import LANES, Flat, kernel, load, store, zeros
from melmill.stages.numeric.melspec import Precision, StftParams
from melmill.stages.numeric.stft import hann

# A sample stays 0 if its squared windows sum to less than this share of the most. Dividing by that
# would blow up what little an inconsistent spectrum puts there: the first milliseconds with
# center=False.
FAINT = 1e-3


class Framing(NamedTuple):
    """How the signals of one length are framed, and what undoes it.

    `gain` is the canonical dual window's share, over the inverse FFT's n_fft, and 0 outside the
    signal. With reflected edges it is 1 at the padding, whose flat indices are `padding`, and at
    the samples `mirrored` there. `sources` lists those once, with a gain of their own.
    """

    n_frames: int
    hop: int
    reach: int  # hops that a frame touches
    step: int  # rows of work to a sample, see `Fourier`
    window: NDArray[np.floating]
    gain: NDArray[np.floating]
    padding: NDArray[np.int64]
    mirrored: NDArray[np.int64]
    sources: NDArray[np.int64]
    source_gain: NDArray[np.floating]


def n_groups(n_frames: int) -> int:
    """Return how many groups of `LANES` frames hold `n_frames`."""
    return -(-n_frames // LANES)


def analysis(window: NDArray[np.floating], hop: int, n_frames: int, dtype: Precision = "float32") -> Framing:
    """Return how signals are framed that are only looked at: without what undoes it.

    Parameters
    ----------
    window : ndarray, shape (n_fft,)
    hop, n_frames : int
    """
    nothing, nowhere = np.empty(0, dtype=dtype), np.empty(0, dtype=np.int64)
    return Framing(
        n_frames=n_frames,
        hop=hop,
        reach=-(-window.size // hop),
        step=1 if window.size % 2 == 0 else 2,
        window=window.astype(dtype),
        gain=nothing.reshape(0, hop, LANES),
        padding=nowhere,
        mirrored=nowhere,
        sources=nowhere,
        source_gain=nothing,
    )


def framing(params: StftParams, n_samples: int, dtype: Precision = "float32") -> Framing:
    """Return how signals of `n_samples` are framed, and what undoes it."""
    window, hop, n_frames = hann(params), params.hop_length, params.n_frames(n_samples)
    own = slice(params.pad, params.pad + n_samples)
    weight = np.zeros(_tiled_size(params, n_frames))
    hops = weight.reshape(-1, hop)
    for j in range(-(-params.n_fft // hop)):
        part = window[j * hop : (j + 1) * hop] ** 2
        hops[j : j + n_frames, : part.size] += part
    padding, mirrored = _mirror(params, n_samples)
    np.add.at(weight, mirrored, weight[padding])
    faint = weight <= FAINT * weight[own].max(initial=0.0)
    dual = np.divide(1 / params.n_fft, weight, out=np.zeros_like(weight), where=~faint)
    gain = np.zeros_like(weight)
    gain[own] = dual[own]
    sources = np.unique(mirrored)
    gain[sources] = gain[padding] = 1
    return analysis(window, hop, n_frames, dtype)._replace(
        gain=tiled(gain, hop).astype(dtype),
        padding=_tiled_index(padding, hop),
        mirrored=_tiled_index(mirrored, hop),
        sources=_tiled_index(sources, hop),
        source_gain=dual[sources].astype(dtype),
    )


def tiled(padded: NDArray[np.floating], hop: int) -> NDArray[np.floating]:
    """Return a padded signal, a whole number of tiles, in tiles."""
    return np.ascontiguousarray(padded.reshape(-1, LANES, hop).swapaxes(1, 2))


def untiled(signal: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the padded signal that `tiled` was given."""
    return np.ascontiguousarray(signal.swapaxes(1, 2)).reshape(-1)


def padded(y: NDArray[np.floating], params: StftParams, dtype: Precision) -> NDArray[np.floating]:
    """Return a signal ``(n_samples,)`` with its padding, and with zeros up to whole tiles."""
    out = np.zeros(_tiled_size(params, params.n_frames(y.size)), dtype=dtype)
    out[params.pad : params.pad + y.size] = y
    padding, mirrored = _mirror(params, y.size)
    out[padding] = out[mirrored]
    return out


def tiled_signal(y: NDArray[np.floating | np.int16], params: StftParams, dtype: Precision) -> NDArray[np.floating]:
    """Return a signal ``(n_samples,)`` padded and in tiles, in one pass; int16 PCM as fractions of 32768."""
    hop = params.hop_length
    out = np.empty(_tiled_size(params, params.n_frames(y.size)), dtype=dtype)
    _fill_tiles(np.ascontiguousarray(y), params.pad, hop, 2.0**-15 if y.dtype == np.int16 else 1.0, out)
    padding, mirrored = _mirror(params, y.size)
    out[_tiled_index(padding, hop)] = out[_tiled_index(mirrored, hop)]
    return out.reshape(-1, hop, LANES)


@kernel
def _fill_tiles(y: Flat, pad: int, hop: int, scale: float, out: Flat) -> None:
    """Write a signal behind `pad` zeros to tiles, with zeros up to their end."""
    for tile in range(out.size // (hop * LANES)):
        for lane in range(LANES):
            at = (tile * LANES + lane) * hop - pad
            place = tile * hop * LANES + lane
            before, behind = min(max(-at, 0), hop), min(max(y.size - at, 0), hop)
            for r in range(before):
                out[place + r * LANES] = 0
            for r in range(before, behind):
                out[place + r * LANES] = y[at + r] * scale
            for r in range(max(before, behind), hop):
                out[place + r * LANES] = 0


def _tiled_size(params: StftParams, n_frames: int) -> int:
    reach = -(-params.n_fft // params.hop_length)
    return (n_groups(n_frames) + -(-reach // LANES)) * LANES * params.hop_length


def _tiled_index(at: NDArray[np.int64], hop: int) -> NDArray[np.int64]:
    hops, rows = np.divmod(at, hop)
    tiles, lanes = np.divmod(hops, LANES)
    return (tiles * hop + rows) * LANES + lanes


def _mirror(params: StftParams, n_samples: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of the padding and of the sample that each copies, in the padded signal."""
    if params.pad_mode != "reflect" or params.pad == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    pad = params.pad
    edges = np.r_[:pad, pad + n_samples : n_samples + 2 * pad]
    if pad < n_samples:
        return edges, np.where(edges < pad, 2 * pad - edges, 2 * (pad + n_samples - 1) - edges)
    # The signal is mirrored more than once.
    return edges, np.pad(np.arange(n_samples), pad, mode="reflect")[edges] + pad


@kernel
def take_frames(signal: Flat, group: int, span: Flat, work: Flat, f: Framing) -> None:
    """Write the windowed frames of a group to `work`, one row a sample; `span` is scratch."""
    width = span.size // f.hop
    for r in range(f.hop):
        for c in range(width // LANES):
            store(span, r * width + c * LANES, load(signal, ((group + c) * f.hop + r) * LANES))
    n, n_fft = 0, len(f.window)
    for j in range(f.reach):
        for r in range(min(f.hop, n_fft - j * f.hop)):
            store(work, n * f.step * LANES, load(span, r * width + j) * f.window[n])
            if f.step == 2:
                store(work, (2 * n + 1) * LANES, zeros(work))
            n += 1


@kernel
def add_frames(work: Flat, group: int, sums: Flat, signal: Flat, f: Framing) -> None:
    """Add a group's frames, windowed, to `sums`, and write the tile that no later frame touches.

    Group 0 begins with `sums` zero; after the last group comes `flush`.
    """
    n_fft, width = len(f.window), sums.size // f.hop
    last = f.n_frames - group * LANES
    if last < LANES:
        for row in range(n_fft):
            for lane in range(last, LANES):
                work[row * f.step * LANES + lane] = 0
    n = 0
    for j in range(f.reach):
        for r in range(min(f.hop, n_fft - j * f.hop)):
            at = r * width + j
            store(sums, at, load(sums, at) + load(work, n * f.step * LANES) * f.window[n])
            n += 1
    _emit(sums, group, signal, f)


@kernel
def flush(group: int, sums: Flat, signal: Flat, f: Framing) -> None:
    """Write the tiles from `group` on, which are complete, and make the edges what they mirror."""
    width = sums.size // f.hop
    for tile in range(group, group + width // LANES - 1):
        _emit(sums, tile, signal, f)
    flat = signal.reshape(-1)
    for i in range(len(f.padding)):
        flat[f.mirrored[i]] += flat[f.padding[i]]
    for i in range(len(f.sources)):
        flat[f.sources[i]] *= f.source_gain[i]
    for i in range(len(f.padding)):
        flat[f.padding[i]] = flat[f.mirrored[i]]


@kernel
def _emit(sums: Flat, tile: int, signal: Flat, f: Framing) -> None:
    width = sums.size // f.hop
    for r in range(f.hop):
        row, at = r * width, (tile * f.hop + r) * LANES
        store(signal, at, load(sums, row) * load(f.gain, at))
        for c in range(width // LANES - 1):
            store(sums, row + c * LANES, load(sums, row + (c + 1) * LANES))
        store(sums, row + width - LANES, zeros(sums))
