"""Damages of recordings in known steps: each ever more audible, or never audible at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.trust.same_mel import scrambled

Signal = NDArray[np.float32]
Expected = Literal["worse", "same"]
Apply = Callable[[Signal, int, float, MelSpec, np.random.Generator], Signal]

_EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Describe one kind of damage, its steps, and do it.

    Parameters
    ----------
    name, title : str
        In tables, and in headings.
    steps : tuple of float
        From mild to strong, in `unit`.
    unit : str
    expected : {"worse", "same"}
        What a listener hears from step to step: ever more damage, or no difference at all.
    apply : callable
        Takes recording ``(n_samples,)``, rate in Hz, step, mel of the metrics and a generator, and
        returns a signal of the same length.
    says : str
        What it does, in a sentence.
    """

    name: str
    title: str
    steps: tuple[float, ...]
    unit: str
    expected: Expected
    apply: Apply
    says: str

    def step_label(self, step: float) -> str:
        """Return a step with its unit.

        >>> DAMAGES["noise"].step_label(30.0)
        '30 dB'
        """
        return f"{step:g} {self.unit}".rstrip()


def _phase(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    return scrambled(y, spec, step / 100.0, rng)


def _smear(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    """Blur magnitudes along frequency by a Gaussian of standard deviation `step` Hz; keep the phase."""
    import scipy.ndimage
    import scipy.signal

    n = _window(sr, 0.032)
    D = scipy.signal.stft(y, sr, nperseg=n, noverlap=n - n // 4)[2]
    A = np.abs(D)
    blurred = scipy.ndimage.gaussian_filter1d(A, step / (sr / n), axis=0, mode="nearest")
    # Each frame keeps its energy, so that the damage is no change of level.
    energy = np.sqrt(np.sum(A**2, axis=0) / np.maximum(np.sum(blurred**2, axis=0), _EPS))
    back = scipy.signal.istft(D / np.maximum(A, _EPS) * blurred * energy, sr, nperseg=n, noverlap=n - n // 4)[1]
    return _as_long(back, y.size)


def _buzz(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    """Add pulses, 100 a second, that follow the envelope of the recording, at an SNR of `step` dB."""
    import scipy.ndimage

    period = round(sr / 100)
    pulses = np.zeros(y.size)
    pulses[::period] = 1.0
    envelope = np.sqrt(scipy.ndimage.uniform_filter1d(y.astype(np.float64) ** 2, max(1, round(0.03 * sr))) + _EPS)
    return _with_noise(y, pulses * envelope, step)


def _noise(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    return _with_noise(y, rng.standard_normal(y.size), step)


def _clip(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    """Clip at the level that `step` percent of the samples exceed; the peak is that level then."""
    limit = float(np.quantile(np.abs(y), 1.0 - step / 100.0))
    return np.clip(y, -limit, limit)


def _low_pass(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    import scipy.signal

    sos = scipy.signal.butter(8, step * 1000.0, fs=sr, output="sos")
    return np.asarray(scipy.signal.sosfiltfilt(sos, y.astype(np.float64)), dtype=np.float32)


def _codec(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    """Quantise the MDCT of 32 ms frames, with `step` levels up to the peak of each of 21 bands."""
    import scipy.fft

    half = _window(sr, 0.016)
    window = np.sin(np.pi * (np.arange(2 * half) + 0.5) / (2 * half))
    n_frames = -(-y.size // half) + 1
    padded = np.zeros((n_frames + 1) * half)
    padded[half : half + y.size] = y
    blocks = padded.reshape(-1, half)
    frames = np.concatenate([blocks[:-1], blocks[1:]], axis=1) * window
    quarter = half // 2
    a, b, c, d = np.split(frames, [quarter, half, half + quarter], axis=1)
    X = scipy.fft.dct(np.concatenate([-c[:, ::-1] - d, a - b[:, ::-1]], axis=1), type=4, norm="ortho")
    edges = np.unique(np.round(np.geomspace(4, half + 4, 22)).astype(int) - 4)
    for low, high in itertools.pairwise(edges):
        peak = np.maximum(np.max(np.abs(X[:, low:high]), axis=1, keepdims=True), _EPS)
        X[:, low:high] = np.round(X[:, low:high] / peak * step) / step * peak
    folded = scipy.fft.dct(X, type=4, norm="ortho")
    first, second = folded[:, :quarter], folded[:, quarter:]
    frames = np.concatenate([second, -second[:, ::-1], -first[:, ::-1], -first], axis=1) * window
    out = np.zeros_like(blocks)
    out[:-1] += frames[:, :half]
    out[1:] += frames[:, half:]
    return np.asarray(out.ravel()[half : half + y.size], dtype=np.float32)


def _shift(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    """Delay by `step` ms, to the nearest sample, with zeros before it."""
    n = min(max(1, round(step / 1000.0 * sr)), y.size)
    return np.concatenate([np.zeros(n, dtype=np.float32), y[: y.size - n]])


def _gain(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    return np.asarray(y * 10.0 ** (step / 20.0), dtype=np.float32)


def _polarity(y: Signal, sr: int, step: float, spec: MelSpec, rng: np.random.Generator) -> Signal:
    return -y


def _with_noise(y: Signal, noise: NDArray[np.float64], snr_db: float) -> Signal:
    """Return a signal with noise at a ratio of energies of `snr_db` dB."""
    energy = float(np.sum(noise**2))
    scale = np.sqrt(float(np.sum(y.astype(np.float64) ** 2)) / max(energy, _EPS)) * 10.0 ** (-snr_db / 20.0)
    return np.asarray(y + scale * noise, dtype=np.float32)


def _window(sr: int, seconds: float) -> int:
    """Return an even number of samples, a power of two near `seconds`."""
    return int(2 ** round(np.log2(seconds * sr)))


def _as_long(y: NDArray[np.float64], n: int) -> Signal:
    return np.asarray(y[:n] if y.size >= n else np.pad(y, (0, n - y.size)), dtype=np.float32)


_ALL = (
    Damage(
        name="phase", title="Phase scrambled, mel untouched", steps=(10.0, 20.0, 35.0, 50.0), unit="%",
        expected="worse", apply=_phase,
        says="The phase of each bin is turned at random, by up to this share of 180°. Then the signal is pulled back "
        "to the mel of the recording. What is left of the difference is said by SCM.",
    ),
    Damage(
        name="smear", title="Bands smeared", steps=(15.0, 30.0, 60.0, 120.0, 240.0), unit="Hz",
        expected="worse", apply=_smear,
        says="Magnitudes of windows of 32 ms are blurred along frequency by a Gaussian of this standard deviation. "
        "The phase and the energy of each frame stay.",
    ),
    Damage(
        name="buzz", title="Buzz", steps=(40.0, 30.0, 20.0, 10.0, 0.0), unit="dB",
        expected="worse", apply=_buzz,
        says="Pulses, 100 a second, that follow the envelope of the speech, at this signal-to-noise ratio.",
    ),
    Damage(
        name="noise", title="Noise", steps=(50.0, 40.0, 30.0, 20.0, 10.0, 0.0), unit="dB",
        expected="worse", apply=_noise,
        says="White Gaussian noise at this signal-to-noise ratio.",
    ),
    Damage(
        name="clip", title="Clipping", steps=(0.1, 0.5, 2.0, 5.0, 10.0, 20.0), unit="%",
        expected="worse", apply=_clip,
        says="Samples are clipped at the level that this share of them exceeds.",
    ),
    Damage(
        name="lowpass", title="Low-pass", steps=(7.0, 6.0, 4.0, 3.0, 2.0, 1.0), unit="kHz",
        expected="worse", apply=_low_pass,
        says="Butterworth of order 8, forward and backward, from this frequency on. Steps above 0.45 of the rate are "
        "left out.",
    ),
    Damage(
        name="codec", title="Codec-like quantisation", steps=(16.0, 8.0, 4.0, 2.0, 1.0), unit="levels",
        expected="worse", apply=_codec,
        says="The MDCT of frames of 32 ms is quantised with so many levels either side of zero, up to the peak of "
        "each of some twenty bands, as a codec of few bits does.",
    ),
    Damage(
        name="shift", title="Time shift", steps=(0.1, 0.5, 2.5, 10.0), unit="ms",
        expected="same", apply=_shift,
        says="A delay of the whole recording. Nobody hears it.",
    ),
    Damage(
        name="gain", title="Gain", steps=(-0.5, -1.0, -3.0, -6.0), unit="dB",
        expected="same", apply=_gain,
        says="Another level of the whole recording: the quality is the same.",
    ),
    Damage(
        name="polarity", title="Polarity", steps=(1.0,), unit="",
        expected="same", apply=_polarity,
        says="All samples with the other sign. Nobody hears it.",
    ),
)  # fmt: skip

DAMAGES = {one.name: one for one in _ALL}
"""All kinds of damage by name, those that are heard first."""


def steps_at(damage: Damage, sr: int) -> tuple[float, ...]:
    """Return the steps of a damage that make sense at a rate: frequencies must lie well below half of it.

    >>> steps_at(DAMAGES["lowpass"], 8000)
    (3.0, 2.0, 1.0)
    """
    if damage.unit != "kHz":
        return damage.steps
    return tuple(step for step in damage.steps if step * 1000.0 <= 0.45 * sr)


def damaged(y: Signal, sr: int, damage: Damage, step: float, spec: MelSpec, seed: int) -> Signal:
    """Return a recording ``(n_samples,)`` with one step of a damage.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        Full scale 1.
    sr : int
        Hz.
    damage : Damage
    step : float
    spec : MelSpec
        Mel that the scrambled phase leaves as it is; at `sr`.
    seed : int
        The same seed draws the same noise at every step.
    """
    rng = np.random.default_rng([seed % 2**63, sum(map(ord, damage.name))])
    return np.ascontiguousarray(damage.apply(y, sr, step, spec, rng), dtype=np.float32)
