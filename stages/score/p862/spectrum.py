"""The spectrum of two whole signals at once, and the way back.

Signals x and y are the complex one ``x + i y``. It is laid out in rows: FFTs of its columns, twiddle
factors and FFTs of its rows make its FFT. Both take `LANES` columns or rows at once. The bins stay
in the order that these leave.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.fourier import Fourier, complex_forward, complex_inverse, fourier
from melmill.stages.numeric.lanes.vector import LANES, Flat, Lanes, inlined, load, store
from melmill.stages.score.p862.tables import kernel

_KEPT = 1 << 20  # numbers


class Layout(NamedTuple):
    """How signals of ``n_rows n_columns`` samples are transformed, and which bin lies where.

    A spectrum is ``(n_rows / LANES, n_columns, 2, LANES)``. The twiddle factor of row r and column
    ``LANES c + lane`` is the product of a coarse and a fine one.
    """

    columns: Fourier  # transforms of columns, of n_rows numbers
    rows: Fourier
    coarse: NDArray[np.float32]  # (n_rows, n_columns / LANES, 2)
    fine: NDArray[np.float32]  # (n_rows, 2, LANES)

    @property
    def size(self) -> int:
        """Number of samples."""
        return int(self.columns.size * self.rows.size)

    def place(self, k: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the real part of each frequency k, 0 to ``size - 1``, lies in a flat spectrum."""
        n_rows = self.columns.size
        row, column = self.columns.place[k % n_rows], self.rows.place[k // n_rows]
        return np.asarray((row // LANES * self.rows.size + column) * 2 * LANES + row % LANES)


@lru_cache(maxsize=8)
def layout(n: int) -> Layout:
    """Return the layout of the smallest power of two that `n` samples fit into, as P.862 takes it."""
    n_bits = max((n - 1).bit_length(), 8)
    n_rows, n_columns = 1 << n_bits // 2, 1 << (n_bits + 1) // 2
    columns, rows = fourier(2 * n_rows, "float32"), fourier(2 * n_columns, "float32")
    first = np.argsort(columns.place)  # frequency of each row after the columns' transform
    return Layout(
        columns=columns,
        rows=rows,
        coarse=_turns(np.outer(first, np.arange(0, n_columns, LANES)), n_rows * n_columns).copy(),
        fine=_turns(np.outer(first, np.arange(LANES)), n_rows * n_columns).swapaxes(1, 2).copy(),
    )


def _turns(k: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """Return ``exp(-2 pi i k / n)`` as pairs."""
    turn = np.exp(-2j * np.pi * k / n)
    return np.stack([turn.real, turn.imag], axis=-1).astype(np.float32)


class Workspace(threading.local):
    """A thread's memory for the transforms of one size, as new memory costs more than they do."""

    _arrays: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)

    def arrays(self, form: Layout) -> NDArray[np.float32]:
        """Return four arrays of ``2 form.size`` numbers, which the next caller overwrites."""
        size = 2 * form.size
        if self._arrays.shape[1] == size:
            return self._arrays
        arrays = np.empty((4, size), dtype=np.float32)
        if size <= _KEPT:
            self._arrays = arrays
        return arrays


def spectrum(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    form: Layout,
    scratch: NDArray[np.float32],
    Z: NDArray[np.float32],
) -> None:
    """Write the spectrum of ``x + i y``, signals of ``form.size`` samples, to Z; twice as many, as is `scratch`."""
    _forward(x, y, form, scratch, Z)


def signals(
    Z: NDArray[np.float32],
    gains: NDArray[np.float32],
    form: Layout,
    scratch: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write x and y, shape ``(2, form.size)``, of a spectrum times a real gain at each of its places.

    The gains are ``(n_rows / LANES, n_columns, LANES)``.
    """
    _inverse(Z, gains, form, scratch, out[0], out[1])


@inlined
def _twiddle(form: Layout, row: int, column: int) -> tuple[Lanes, Lanes]:
    re, im = form.coarse[row, column // LANES, 0], form.coarse[row, column // LANES, 1]
    cos, sin = load(form.fine, 2 * row * LANES), load(form.fine, (2 * row + 1) * LANES)
    return cos * re - sin * im, cos * im + sin * re


@kernel
def _forward(x: Flat, y: Flat, form: Layout, scratch: Flat, Z: Flat) -> None:
    n_rows, n_columns = form.columns.size, form.rows.size
    work = np.empty(2 * n_rows * LANES, np.float32)
    for c in range(0, n_columns, LANES):
        for r in range(n_rows):
            store(work, 2 * r * LANES, load(x, r * n_columns + c))
            store(work, (2 * r + 1) * LANES, load(y, r * n_columns + c))
        complex_forward(work, form.columns)
        for r in range(n_rows):
            at = 2 * (r * n_columns + c)
            re, im = load(work, 2 * r * LANES), load(work, (2 * r + 1) * LANES)
            cos, sin = _twiddle(form, r, c)
            store(scratch, at, re * cos - im * sin)
            store(scratch, at + LANES, re * sin + im * cos)
    for r in range(0, n_rows, LANES):
        whole = Z[2 * r * n_columns : 2 * (r + LANES) * n_columns]
        _turn(scratch[2 * r * n_columns : 2 * (r + LANES) * n_columns], whole, n_columns, False)
        complex_forward(whole, form.rows)


@kernel
def _inverse(Z: Flat, gains: Flat, form: Layout, scratch: Flat, x: Flat, y: Flat) -> None:
    n_rows, n_columns = form.columns.size, form.rows.size
    work = np.empty(2 * max(n_rows, n_columns) * LANES, np.float32)
    scale = np.float32(1 / (n_rows * n_columns))
    for r in range(0, n_rows, LANES):
        for c in range(n_columns):
            gain = load(gains, r * n_columns + c * LANES)
            at = 2 * (r * n_columns + c * LANES)
            store(work, 2 * c * LANES, load(Z, at) * gain)
            store(work, (2 * c + 1) * LANES, load(Z, at + LANES) * gain)
        complex_inverse(work, form.rows)
        _turn(scratch[2 * r * n_columns : 2 * (r + LANES) * n_columns], work, n_columns, True)
    for c in range(0, n_columns, LANES):
        for r in range(n_rows):
            at = 2 * (r * n_columns + c)
            re, im = load(scratch, at), load(scratch, at + LANES)
            cos, sin = _twiddle(form, r, c)
            store(work, 2 * r * LANES, re * cos + im * sin)
            store(work, (2 * r + 1) * LANES, im * cos - re * sin)
        complex_inverse(work, form.columns)
        for r in range(n_rows):
            store(x, r * n_columns + c, load(work, 2 * r * LANES) * scale)
            store(y, r * n_columns + c, load(work, (2 * r + 1) * LANES) * scale)


@kernel
def _turn(lying: Flat, standing: Flat, n_columns: int, back: bool) -> None:
    """Copy `LANES` rows ``(n_columns / LANES, 2, LANES)`` to columns ``(n_columns, 2, LANES)``, or back."""
    block = 2 * LANES
    for c in range(n_columns // LANES):
        for part in range(2):
            for lane in range(LANES):
                row = lying[(lane * (n_columns // LANES) + c) * block + part * LANES :][:LANES]
                column = standing[(c * LANES * 2 + part) * LANES + lane :]
                for i in range(LANES):
                    if back:
                        row[i] = column[i * block]
                    else:
                        column[i * block] = row[i]
