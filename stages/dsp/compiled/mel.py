"""Mel bands of a signal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.compiled.misfit import raised_to
from melmill.stages.dsp.compiled.projection import Projection
from melmill.stages.dsp.filterbank import mel_bank
from melmill.stages.dsp.lanes.bands import Runs, apply, runs
from melmill.stages.dsp.lanes.sweep import Sweep, groups, spectrum
from melmill.stages.dsp.lanes.vector import LANES, Flat, kernel, load, root, store
from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.dsp.undo import window_norm


def mel_bands(y: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Return what the bank of a spec makes of a waveform ``(n_samples,)``, shape (n_mels, n_frames).

    Single precision would leave quiet bins of loud frames with 3 digits, which a log shows (2e-4 nats on speech): it is
    computed in double.
    """
    projection = Projection(spec.stft, y.size, "float64")
    projection.samples = y
    bands = np.empty((spec.n_mels, projection.shape[0] * LANES), dtype=np.float32)
    bank = runs(mel_bank(spec), "float64")
    _mel_bands(projection.sweep, bank, window_norm(spec) ** -2.0, float(spec.eps), float(spec.power), bands)
    return bands[:, : projection.n_frames]


@kernel
def _mel_bands(s: Sweep, bank: Runs, scale: float, eps: float, power: float, bands: Flat) -> None:
    n_mels = bands.shape[0]
    S, mel = np.empty(s.Z.size // 2, s.Z.dtype), np.empty(n_mels * LANES, s.Z.dtype)
    for group in groups(s):
        spectrum(s, group)
        for row in range(0, S.size, LANES):
            re, im = load(s.Z, 2 * row), load(s.Z, 2 * row + LANES)
            energy = (re * re + im * im) * scale + eps
            store(S, row, energy if power == 2.0 else raised_to(root(energy), power))
        apply(bank, S, mel, 0, 0)
        for b in range(n_mels):
            for lane in range(LANES):
                bands[b, group * LANES + lane] = mel[b * LANES + lane]
