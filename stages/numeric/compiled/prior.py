"""A learned magnitude on the CPU: the network of a prior, then consistency with the mel."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import raised_to
from melmill.stages.numeric.filterbank import band_scale, mel_bank
from melmill.stages.numeric.lanes.bands import Runs, apply, runs
from melmill.stages.numeric.lanes.framing import n_groups
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.lanes.vector import (
    LANES,
    Flat,
    Lanes,
    inlined,
    kernel,
    larger,
    load,
    root,
    smaller,
    store,
    zeros,
)
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import Prior

# Added to a mel whose loudest value is 1 before its log.
FLOOR = 1e-4

# Multiplicative updates that make the guess agree with the mel.
N_UPDATES = 10

# Bins below all bands, where no update reaches, are at most so much of the lowest bin in a band.
LOWEST_SHARE = np.float32(0.5)

# Largest log magnitude, where the mel's loudest value is 1, nepers.
HIGHEST = 12.0

# The gate of a block is x (1 + u / sqrt(1 + u^2)) / 2 with u = x (a + b x^2 + c x^4 + d x^6), x
# within 8 of 0. It is within 3e-4 of GELU, and needs only operations that every CPU rounds alike.
GATE = (0.79359372, 0.13278707, 0.00639573, 0.00270141)
GATE_REACH = 8.0

NORM_EPS = 1e-5

# Added to the mel of a guess before it divides.
_TINY = 1e-8

# Outputs of a matrix that are summed at once, in as many registers.
_AT_ONCE = 8


class Guess(NamedTuple):
    """A magnitude that a prior guessed, made to agree with the mel, and how far it was from that.

    Parameters
    ----------
    Y : ndarray of float32, shape (n_groups, n_bins, LANES)
        Non-negative, in lane layout.
    mismatch : float
        ``||E W**p - M||^2 / ||M||^2`` of the network's own answer W. 0 for a mel of silence.
    """

    Y: NDArray[np.float32]
    mismatch: float


class _Bank(NamedTuple):
    """A prior's bank E and its transpose, and what its updates multiply bins by.

    `spread` gives a bin the weighted mean of its bands. Bins outside all bands get the nearest one.
    `over_sum` is 1 over the sum of a bin's weights and 0 outside, where `kept` is 1.
    """

    E: Runs
    Et: Runs
    spread: Runs
    over_sum: NDArray[np.float32]
    kept: NDArray[np.float32]
    power: float


class _Network(NamedTuple):
    """A prior's weights, in the order in which kernels read them.

    A matrix is in blocks ``(n_out / 8, n_in, 8)``. Gain and shift of a norm are in the matrix after
    it, except for the first norm's. So is a block's scale. A network without a head has one of no
    rows.
    """

    embed: NDArray[np.float32]
    embed_bias: NDArray[np.float32]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]
    time: NDArray[np.float32]
    time_bias: NDArray[np.float32]
    up: NDArray[np.float32]
    up_bias: NDArray[np.float32]
    down: NDArray[np.float32]
    down_bias: NDArray[np.float32]
    head: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    out: NDArray[np.float32]
    out_bias: NDArray[np.float32]


def guess(linear: NDArray[np.float32], spec: MelSpec, prior: Prior) -> Guess:
    """Return the magnitude that a prior guesses, made to agree with the mel.

    The network sees ``ln((M / (top sum(E)))**(1/p) + 1e-4)`` of all bands, where `top` is the
    mel's loudest value. It corrects a smooth magnitude, in nepers. Ten updates
    ``S <- S * E^T (M / E S) / E^T 1`` of ``S = Y**p`` follow. Bins outside all bands stay as
    guessed, but those below are at most half of the lowest bin in one. Silent frames stay silent.

    Parameters
    ----------
    linear : ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**p``, as `melmill.stages.numeric.mel.to_linear` returns it.
    spec : MelSpec
        Of the mel; the prior fits it.
    prior : Prior

    References
    ----------
    Liu et al. 2022, "A ConvNet for the 2020s" (the blocks); Lee and Seung 2000 (the updates).
    """
    n_frames = linear.shape[1]
    Y = np.zeros((n_groups(n_frames), spec.stft.n_bins, LANES), dtype=np.float32)
    m = linear * (band_scale(prior.spec) / band_scale(spec)).astype(np.float32)[:, np.newaxis]
    top = m.max(initial=0.0)
    if top <= 0:
        return Guess(Y, 0.0)
    m /= top
    x = network_input(m, prior.spec)
    # A group of zeros on each side: the network sees zeros past the ends.
    padded = np.zeros((len(Y) + 2, len(m), LANES), dtype=np.float32)
    padded[1:-1] = to_lanes(x)
    own = to_lanes(np.ones((1, n_frames), dtype=np.float32))
    bank = _bank(prior.spec)
    _forward(padded, own, _network(prior), bank.spread, Y)
    np.exp(Y, out=Y)
    M = to_lanes(m)
    error = _agree(Y, M, bank, N_UPDATES, n_frames)
    lowest = int(np.argmin(bank.kept))
    np.minimum(Y[:, :lowest], LOWEST_SHARE * Y[:, lowest : lowest + 1], out=Y[:, :lowest])
    Y *= np.float32(float(top) ** (1 / spec.power)) * (M.max(axis=1, keepdims=True) > 0)
    return Guess(Y, float(error / np.sum(np.square(M), dtype=np.float64)))


def network_input(m: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Return what the network sees of a linear mel ``(n_mels, n_frames)`` whose maximum is 1."""
    level = m / row_sums(spec).astype(np.float32)[:, np.newaxis]
    if spec.power != 1.0:
        level = np.sqrt(level) if spec.power == 2.0 else level ** np.float32(1 / spec.power)
    return np.asarray(np.log(level + np.float32(FLOOR)))


def row_sums(spec: MelSpec) -> NDArray[np.float64]:
    """Return the sum of each band's weights ``(n_mels,)``; 1 for a band without bins."""
    sums = mel_bank(spec).sum(axis=1, dtype=np.float64)
    return np.where(sums > 0, sums, 1.0)


def spreading(spec: MelSpec) -> NDArray[np.float64]:
    """Return the matrix ``(n_bins, n_mels)`` that gives each bin the weighted mean of its bands.

    Bins outside all bands get what the nearest bin inside has.
    """
    E = mel_bank(spec).astype(np.float64)
    inside = np.flatnonzero(E.sum(axis=0) > 0)
    nearest = inside[np.abs(np.subtract.outer(np.arange(E.shape[1]), inside)).argmin(axis=1)]
    return np.asarray((E / np.where(E.sum(axis=0) > 0, E.sum(axis=0), 1.0))[:, nearest].T)


@lru_cache(maxsize=8)
def _bank(spec: MelSpec) -> _Bank:
    E = mel_bank(spec).astype(np.float64)
    sums = E.sum(axis=0)
    return _Bank(
        E=runs(E, "float32"),
        Et=runs(E.T, "float32"),
        spread=runs(spreading(spec), "float32"),
        over_sum=np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0).astype(np.float32),
        kept=(sums <= 0).astype(np.float32),
        power=spec.power,
    )


@lru_cache(maxsize=8)
def _network(prior: Prior) -> _Network:
    sizes, w = prior.sizes, {name: values.astype(np.float64) for name, values in prior.weights.items()}

    def matrix(weight: NDArray[np.float64]) -> NDArray[np.float32]:
        filled = np.pad(weight, ((0, -len(weight) % _AT_ONCE), (0, 0)))
        blocks = filled.reshape(-1, _AT_ONCE, weight.shape[1]).swapaxes(1, 2)
        return np.ascontiguousarray(blocks, dtype=np.float32)

    def after(norm: str, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weight and bias of a matrix that takes in gain and shift of the norm before it."""
        weight, gain, shift = w[f"{name}.weight"], w[f"{norm}.weight"], w[f"{norm}.bias"]
        return weight * gain, w[f"{name}.bias"] + np.sum(weight * shift, axis=1)

    blocks = [f"blocks.{i}." for i in range(sizes.n_blocks)]
    ups = [after(f"{block}norm", f"{block}up") for block in blocks]
    last, last_bias = after("out_norm", "head" if sizes.head else "out")
    head, head_bias = (last, last_bias) if sizes.head else (np.empty((0, sizes.width)), np.empty(0))
    out, out_bias = (w["out.weight"], w["out.bias"]) if sizes.head else (last, last_bias)
    return _Network(
        embed=matrix(w["embed.weight"].reshape(sizes.width, -1)),
        embed_bias=prior.weights["embed.bias"],
        gain=prior.weights["embed_norm.weight"],
        shift=prior.weights["embed_norm.bias"],
        time=np.stack([prior.weights[f"{block}time.weight"] for block in blocks]),
        time_bias=np.stack([prior.weights[f"{block}time.bias"] for block in blocks]),
        up=np.stack([matrix(weight) for weight, _ in ups]),
        up_bias=np.stack([bias for _, bias in ups]).astype(np.float32),
        down=np.stack([matrix(w[f"{b}scale"][:, np.newaxis] * w[f"{b}down.weight"]) for b in blocks]),
        down_bias=np.stack([w[f"{b}scale"] * w[f"{b}down.bias"] for b in blocks]).astype(np.float32),
        head=matrix(head),
        head_bias=head_bias.astype(np.float32),
        out=matrix(out),
        out_bias=np.pad(out_bias, (0, -len(out_bias) % _AT_ONCE)).astype(np.float32),
    )


@kernel
def _forward(x: Flat, own: Flat, net: _Network, spread: Runs, s: Flat) -> None:
    """Write the log magnitude ``(n_groups, n_bins, LANES)`` of a network's input to `s`.

    Parameters
    ----------
    x : ndarray of float32, shape (n_groups + 2, n_mels, LANES)
        Zeros past the ends.
    own : ndarray of float32, shape (n_groups, 1, LANES)
        1 for frames of the utterance, else 0.
    net : _Network
    spread : Runs
    s : ndarray of float32, shape (n_groups, n_bins, LANES)
    """
    width, n_mels, n_bins = len(net.gain), x.shape[1], s.shape[1]
    h = np.zeros((x.shape[0], width, LANES), x.dtype)
    new = np.zeros((x.shape[0], width, LANES), x.dtype)
    _embed(x, own, net, h)
    for i in range(net.time.shape[0]):
        _block(h, own, net.time[i], net.time_bias[i], net.up[i], net.up_bias[i], net.down[i], net.down_bias[i], new)
        h, new = new, h
    tile, guess = np.empty(width * LANES, x.dtype), np.empty(len(net.out_bias) * LANES, x.dtype)
    inner, smooth = np.empty(len(net.head_bias) * LANES, x.dtype), np.empty(n_bins * LANES, x.dtype)
    for group in range(s.shape[0]):
        for c in range(width):
            store(tile, c * LANES, load(h, ((group + 1) * width + c) * LANES))
        _normalise(tile)
        if len(inner):
            _product(net.head, net.head_bias, tile, inner)
            _gate(inner)
            _product(net.out, net.out_bias, inner, guess)
        else:
            _product(net.out, net.out_bias, tile, guess)
        apply(spread, x, smooth, (group + 1) * n_mels * LANES, 0)
        for row in range(0, n_bins * LANES, LANES):
            store(s, group * n_bins * LANES + row, smaller(load(guess, row) + load(smooth, row), HIGHEST))


@kernel
def _embed(x: Flat, own: Flat, net: _Network, h: Flat) -> None:
    """Write the first convolution over time and its norm to the inner groups of `h`."""
    n_mels, width = x.shape[1], h.shape[1]
    n_taps = net.embed.shape[1] // n_mels
    line, taps = np.empty(3 * LANES, x.dtype), np.empty(n_mels * n_taps * LANES, x.dtype)
    tile = np.empty(width * LANES, x.dtype)
    for group in range(1, x.shape[0] - 1):
        for b in range(n_mels):
            _neighbours(x, group, b, line)
            for k in range(n_taps):
                store(taps, (b * n_taps + k) * LANES, load(line, LANES - n_taps // 2 + k))
        _product(net.embed, net.embed_bias, taps, tile)
        _normalise(tile)
        mine = load(own, (group - 1) * LANES)
        for c in range(width):
            row = c * LANES
            store(h, group * width * LANES + row, (load(tile, row) * net.gain[c] + net.shift[c]) * mine)


@kernel
def _block(
    h: Flat, own: Flat, time: Flat, time_bias: Flat, up: Flat, up_bias: Flat, down: Flat, down_bias: Flat, new: Flat
) -> None:
    """Write a block's output to the inner groups of `new`."""
    width, n_taps = time.shape
    line, tile = np.empty(3 * LANES, h.dtype), np.empty(width * LANES, h.dtype)
    inner = np.empty(len(up_bias) * LANES, h.dtype)
    for group in range(1, h.shape[0] - 1):
        for c in range(width):
            _neighbours(h, group, c, line)
            total = load(line, LANES - n_taps // 2) * time[c, 0]
            for k in range(1, n_taps):
                total = total + load(line, LANES - n_taps // 2 + k) * time[c, k]
            store(tile, c * LANES, total + time_bias[c])
        _normalise(tile)
        _product(up, up_bias, tile, inner)
        _gate(inner)
        _product(down, down_bias, inner, tile)
        mine = load(own, (group - 1) * LANES)
        for row in range(0, len(tile), LANES):
            at = group * width * LANES + row
            store(new, at, (load(h, at) + load(tile, row)) * mine)


@inlined
def _neighbours(h: Flat, group: int, row: int, line: Flat) -> None:
    """Write a row of a group to `line`, between those of the groups beside it."""
    n_rows = h.shape[1]
    for side in range(3):
        store(line, side * LANES, load(h, ((group - 1 + side) * n_rows + row) * LANES))


@inlined
def _gate(tile: Flat) -> None:
    for row in range(0, len(tile), LANES):
        store(tile, row, _gated(load(tile, row)))


@inlined
def _gated(x: Lanes) -> Lanes:
    near = smaller(larger(x, -GATE_REACH), GATE_REACH)
    square = near * near
    u = near * (GATE[0] + square * (GATE[1] + square * (GATE[2] + square * GATE[3])))
    return x * (0.5 + 0.5 * u / root(1.0 + u * u))


@kernel
def _normalise(tile: Flat) -> None:
    """Give the rows of a tile mean 0 and variance 1 over the rows, lane by lane."""
    n_rows = len(tile) // LANES
    mean = zeros(tile)
    for row in range(0, len(tile), LANES):
        mean = mean + load(tile, row)
    mean = mean / float(n_rows)
    variance = zeros(tile)
    for row in range(0, len(tile), LANES):
        difference = load(tile, row) - mean
        variance = variance + difference * difference
    factor = 1.0 / root(variance / float(n_rows) + NORM_EPS)
    for row in range(0, len(tile), LANES):
        store(tile, row, (load(tile, row) - mean) * factor)


@kernel
def _product(matrix: Flat, bias: Flat, x: Flat, out: Flat) -> None:
    """Write ``matrix x + bias`` of the rows of a tile; each sum has one order on every CPU."""
    for block in range(matrix.shape[0]):
        o = block * 8
        s0, s1, s2, s3 = zeros(x), zeros(x), zeros(x), zeros(x)
        s4, s5, s6, s7 = zeros(x), zeros(x), zeros(x), zeros(x)
        for i in range(matrix.shape[1]):
            row = load(x, i * LANES)
            s0, s1 = s0 + row * matrix[block, i, 0], s1 + row * matrix[block, i, 1]
            s2, s3 = s2 + row * matrix[block, i, 2], s3 + row * matrix[block, i, 3]
            s4, s5 = s4 + row * matrix[block, i, 4], s5 + row * matrix[block, i, 5]
            s6, s7 = s6 + row * matrix[block, i, 6], s7 + row * matrix[block, i, 7]
        at = o * LANES
        store(out, at, s0 + bias[o])
        store(out, at + LANES, s1 + bias[o + 1])
        store(out, at + 2 * LANES, s2 + bias[o + 2])
        store(out, at + 3 * LANES, s3 + bias[o + 3])
        store(out, at + 4 * LANES, s4 + bias[o + 4])
        store(out, at + 5 * LANES, s5 + bias[o + 5])
        store(out, at + 6 * LANES, s6 + bias[o + 6])
        store(out, at + 7 * LANES, s7 + bias[o + 7])


@kernel
def _agree(Y: Flat, M: Flat, bank: _Bank, n_updates: int, n_frames: int) -> float:
    """Update a magnitude in place until its mel is near M; return ``||E Y**p - M||^2`` before."""
    n_bins, n_mels = Y.shape[1], M.shape[1]
    S, step = np.empty(n_bins * LANES, Y.dtype), np.empty(n_bins * LANES, Y.dtype)
    ratio, squares = np.empty(n_mels * LANES, Y.dtype), np.empty(LANES, Y.dtype)
    error = 0.0
    for group in range(Y.shape[0]):
        at = group * n_bins * LANES
        for row in range(0, len(S), LANES):
            store(S, row, raised_to(load(Y, at + row), bank.power))
        for update in range(n_updates):
            apply(bank.E, S, ratio, 0, 0)
            if update == 0:
                energy = zeros(Y)
                for row in range(0, len(ratio), LANES):
                    difference = load(ratio, row) - load(M, group * n_mels * LANES + row)
                    energy = energy + difference * difference
                store(squares, 0, energy)
                for lane in range(min(LANES, n_frames - group * LANES)):
                    error += squares[lane]
            for row in range(0, len(ratio), LANES):
                store(ratio, row, load(M, group * n_mels * LANES + row) / (load(ratio, row) + _TINY))
            apply(bank.Et, ratio, step, 0, 0)
            for k in range(n_bins):
                row = k * LANES
                store(S, row, load(S, row) * (load(step, row) * bank.over_sum[k] + bank.kept[k]))
        for row in range(0, len(S), LANES):
            store(Y, at + row, raised_to(load(S, row), 1.0 / bank.power))
    return error
