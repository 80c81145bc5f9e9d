"""Mel bands of a signal."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.compiled.misfit import raised_to
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.lanes.bands import Runs, apply, runs
from melmill.stages.numeric.lanes.framing import analysis, n_groups, tiled_signal
from melmill.stages.numeric.lanes.sweep import Sweep, groups, spectrum, sweep
from melmill.stages.numeric.lanes.vector import LANES, Flat, kernel, larger, load, root, store
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.stft import hann, window_norm


def mel_bands(y: NDArray[np.floating | np.int16], spec: MelSpec) -> NDArray[np.float32]:
    """Return what a spec's bank makes of a waveform ``(n_samples,)``: ``(n_mels, n_frames)``.

    The steps before the transform are not taken here. It is computed in double precision. Single
    precision would leave quiet bins of loud frames with 3 digits, which a log shows: 2e-4 nats on
    speech. int16 PCM counts as a fraction of 32768.
    """
    params = spec.stft
    n_frames = params.n_frames(y.size)
    framed = analysis(hann(params), params.hop_length, n_frames, "float64")
    s = sweep(framed, params.n_fft, tiled_signal(y, params, "float64"))
    bands = np.empty((spec.n_mels, n_groups(n_frames) * LANES), dtype=np.float32)
    added, least = float(spec.eps), float(spec.energy_floor)
    sweep_bands(s, _bank_runs(spec), window_norm(spec) ** -2.0, added, least, float(spec.power), bands)
    return bands[:, :n_frames]


@lru_cache(maxsize=8)
def _bank_runs(spec: MelSpec) -> Runs:
    """Return the runs of a spec's bank; cached."""
    return runs(mel_bank(spec), "float64")


@kernel
def sweep_bands(s: Sweep, bank: Runs, scale: float, eps: float, least: float, power: float, bands: Flat) -> None:
    """Write the bands of ``(max(scale |Z|^2, least) + eps)^(power / 2)``.

    `bands` is ``(n_bands, n_frames)``, of whole groups of frames.
    """
    n_mels = bands.shape[0]
    S, mel = np.empty(s.Z.size // 2, s.Z.dtype), np.empty(n_mels * LANES, s.Z.dtype)
    for group in groups(s):
        spectrum(s, group)
        for row in range(0, S.size, LANES):
            re, im = load(s.Z, 2 * row), load(s.Z, 2 * row + LANES)
            if least > 0.0:
                energy = larger((re * re + im * im) * scale, least) + eps
            else:
                energy = (re * re + im * im) * scale + eps
            store(S, row, energy if power == 2.0 else raised_to(root(energy), power))
        apply(bank, S, mel, 0, 0)
        for b in range(n_mels):
            for lane in range(LANES):
                bands[b, group * LANES + lane] = mel[b * LANES + lane]
