"""Where a signal holds speech: P.862's detector over windows of 4 ms."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.vector import LANES, Flat, load, store, zeros
from melmill.stages.score.p862.tables import Rate, kernel

_SHORTEST = 4  # windows: a burst up to this long is no speech
_GAP = 50  # windows: bursts up to this far apart are one


class Activity(NamedTuple):
    """The power of each window of 4 ms, 0 without speech, and its log over the threshold."""

    power: NDArray[np.float64]
    log: NDArray[np.float32]


def activity(y: NDArray[np.float32], n: int, rate: Rate) -> Activity:
    """Return the activity of the first `n` samples of a signal."""
    power = np.empty(n // rate.window)
    _window_powers(y, rate.window, power)
    log = np.empty(power.size, dtype=np.float32)
    _detect(power, log)
    return Activity(power, log)


@kernel
def _window_powers(y: Flat, size: int, power: Flat) -> None:
    lanes = np.empty(LANES, np.float32)
    for w in range(power.size):
        total = zeros(y)
        for i in range(w * size, (w + 1) * size, LANES):
            part = load(y, i)
            total = total + part * part
        store(lanes, 0, total)
        power[w] = np.sum(lanes) / size


@kernel
def _detect(power: Flat, log: Flat) -> None:
    """Make the power 0 where there is no speech, and write its logarithm over the threshold."""
    n = power.size
    floor = power.max()
    floor = floor * 1e-4 if floor > 0.0 else 1.0
    threshold = power.mean()
    for w in range(n):
        power[w] = max(power[w], floor)
    threshold, signal, noise = _levels(power, threshold)
    # A negative power marks a window without speech.
    power[0] = power[n - 1] = -floor
    for w in range(1, n - 1):
        if power[w] <= threshold:
            power[w] = -power[w]
    _drop_bursts(power, threshold, signal >= 1000.0 * noise)
    _join_bursts(power, floor)
    if power.max() <= 0.0:
        # Without a burst everything is speech.
        for w in range(1, n - 1):
            power[w] = -power[w]
    _soften(power)
    least = threshold if threshold > 0.0 else floor
    for w in range(n):
        power[w] = max(power[w], 0.0)
        log[w] = math.log(power[w] / least) if power[w] > least else 0.0


@kernel
def _levels(power: Flat, threshold: float) -> tuple[float, float, float]:
    """Return the threshold of speech, -1 if nothing stands out, and mean powers above and below it."""
    for _ in range(12):
        mean, spread = _below(power, threshold)
        threshold = 1.001 * (mean + 2.0 * spread)
    signal, noise, n, n_loud = 0.0, 0.0, power.size, 0
    for w in range(n):
        if power[w] > threshold:
            signal += power[w]
            n_loud += 1
        else:
            noise += power[w]
    signal = signal / n_loud if n_loud else 0.0
    noise = noise / (n - n_loud) if n_loud < n else 1.0
    return threshold if n_loud and signal > noise else -1.0, signal, noise


@kernel
def _below(power: Flat, threshold: float) -> tuple[float, float]:
    """Return mean and standard deviation of the windows up to a threshold."""
    # Four sums side by side, as each has to wait for itself.
    total, count, squares = np.zeros(4), np.zeros(4), np.zeros(4)
    for w in range(power.size):
        is_below = power[w] <= threshold
        total[w & 3] += power[w] if is_below else 0.0
        count[w & 3] += is_below
    n = count.sum()
    if n == 0:
        return 0.0, 0.0
    mean = total.sum() / n
    for w in range(power.size):
        squares[w & 3] += (power[w] - mean) ** 2 if power[w] <= threshold else 0.0
    return mean, math.sqrt(squares.sum() / n)


@kernel
def _drop_bursts(power: Flat, threshold: float, is_clean: bool) -> None:
    """Drop what is short, and in a clean signal what is faint."""
    start = 0
    for w in range(1, power.size):
        if power[w] > 0.0 and power[w - 1] <= 0.0:
            start = w
        if power[w] <= 0.0 and power[w - 1] > 0.0:
            length, total = w - start, 0.0
            for k in range(start, w):
                total += power[k]
            if length <= _SHORTEST or (is_clean and total < 3.0 * threshold * length):
                for k in range(start, w):
                    power[k] = -power[k]


@kernel
def _join_bursts(power: Flat, floor: float) -> None:
    """Fill short gaps between bursts."""
    finish = 0
    for w in range(1, power.size):
        if power[w] > 0.0 and power[w - 1] <= 0.0 and finish and w - finish <= _GAP:
            for k in range(finish, w):
                power[k] = floor
        if power[w] <= 0.0 and power[w - 1] > 0.0:
            finish = w


@kernel
def _soften(power: Flat) -> None:
    """Let every burst begin and end over two windows."""
    w = 3
    while w < power.size - 2:
        if power[w] > 0.0 and power[w - 2] <= 0.0:
            power[w - 2], power[w - 1] = 0.1 * power[w], 0.3 * power[w]
            w += 1
        if power[w] <= 0.0 and power[w - 1] > 0.0:
            power[w], power[w + 1] = 0.3 * power[w - 1], 0.1 * power[w - 1]
            w += 3
        w += 1


def stretches(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where each run of true elements starts, and where it ends, shape ``(n_runs, 2)``.

    >>> stretches(np.array([True, True, False, True])).tolist()
    [[0, 2], [3, 4]]
    """
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    ends = [np.zeros(int(mask[:1].any()), np.int64), edges, np.full(int(mask[-1:].any()), mask.size)]
    return np.concatenate(ends).reshape(-1, 2)
