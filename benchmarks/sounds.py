"""Sounds to judge priors by: speech of several corpora, speech made strange, and what is no speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, sosfilt, stft
from scipy.signal import istft as inverse_stft

from benchmarks.corpora import librispeech
from benchmarks.prior_corpus import CORPORA, JUDGES, choose
from melmill.stages.numeric.resample import resample

Array = NDArray[np.float32]

LONGEST_S = 10.0
SHORTEST_S = 0.5

# The utterances of LibriSpeech's test-other that are judged.
_REFERENCE = "*-000[34].flac"


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """Sounds of a kind.

    Parameters
    ----------
    name : str
    speech : bool
        Whether PESQ and ESTOI say something of them.
    waves : list of ndarray of float32, shape (n_samples,)
    """

    name: str
    speech: bool
    waves: list[Array]


def judged(sr: int, n: int, only: str = "") -> Iterator[Sounds]:
    """Yield kinds of sounds at a rate, at most `n` of each, whose names hold a text.

    Corpora that are not at hand are left out, and so is what `prior_corpus` chooses to train with.
    What is made of speech is made of test-other.
    """
    root = librispeech().parent
    test_other = sorted((root / "LibriSpeech" / JUDGES).rglob(_REFERENCE))
    _, held = choose([folder for folder in (root, root.with_name("corpora-more")) if folder.is_dir()])
    corpora = {f"LibriSpeech {JUDGES}": test_other} | {
        name: [file for corpus, _, file in held if corpus == name] for name in CORPORA[1:]
    }
    for name, files in corpora.items():
        if files and only in name:
            yield Sounds(name=name, speech=True, waves=_taken(files, sr, n))
    sounds = sorted((root / "ESC-10").rglob("*.ogg"))
    if sounds and only in "ESC-10":
        yield Sounds(name="ESC-10", speech=False, waves=_taken(sounds, sr, n))
    clean, rng = _taken(test_other, sr, n), np.random.default_rng(0)
    for name, (change, speech) in _STRANGE.items():
        waves = [change(y, sr, rng) for y in clean]  # of every kind, so that `only` moves no draws
        if clean and only in name:
            yield Sounds(name=name, speech=speech, waves=waves)
    for name, make in _SYNTHETIC.items():
        waves = [make(sr, rng) for _ in range(min(n, 8))]
        if only in name:
            yield Sounds(name=name, speech=False, waves=waves)


def _taken(files: list[Path], sr: int, n: int) -> list[Array]:
    """Return `n` recordings spread over the files, without those that are very short."""
    waves = []
    for file in files[:: max(1, len(files) // n)][:n]:
        y, own_sr = soundfile.read(file, dtype="float32", always_2d=True)
        wave = y.mean(axis=1) if own_sr == sr else resample(y.mean(axis=1), own_sr, sr)
        if wave.size >= SHORTEST_S * sr and wave.any():
            waves.append(np.asarray(wave[: int(LONGEST_S * sr)], dtype=np.float32))
    return waves


def _fast(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return speech at a child's pitch."""
    del rng
    return resample(y, round(1.6 * sr), sr)


def _clipped(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return speech whose peaks are 18 dB over full scale."""
    del sr, rng
    return np.asarray(0.5 * np.clip(8 * y / np.abs(y).max(), -1, 1), dtype=np.float32)


def _telephone(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return speech of 300 to 3400 Hz."""
    del rng
    return np.asarray(sosfilt(butter(6, (300, 3400), "bandpass", fs=sr, output="sos"), y), dtype=np.float32)


def _low_passed(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return speech up to 3.4 kHz."""
    del rng
    return np.asarray(sosfilt(butter(10, 3400, fs=sr, output="sos"), y), dtype=np.float32)


def _with_silences(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return speech with digital silence before, after and within."""
    del rng
    silence, third = np.zeros(sr // 2, dtype=np.float32), y.size // 3
    return np.concatenate([silence, y[:third], silence, y[third : 2 * third], silence, y[2 * third :], silence])


def _noisy(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return speech 5 dB above white noise."""
    del sr
    return np.asarray(y + rng.standard_normal(y.size) * y.std() * 10 ** (-5 / 20), dtype=np.float32)


def _humming(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return speech with as much rumble below the lowest band."""
    rumble = sosfilt(butter(2, 25, fs=sr, output="sos"), rng.standard_normal(y.size))
    return np.asarray(y + rumble * (y.std() / rumble.std()), dtype=np.float32)


def _whispered(y: Array, sr: int, rng: np.random.Generator) -> Array:
    """Return noise in the envelope of speech."""
    size = 2 * sr // 32

    def spectrum(x: NDArray[np.floating]) -> NDArray[np.complexfloating]:
        return np.asarray(stft(x, nperseg=size)[2])

    envelope = uniform_filter1d(np.abs(spectrum(y)), 12, axis=0)
    noise = spectrum(rng.standard_normal(y.size))
    made = inverse_stft(envelope * noise / np.abs(noise).mean(), nperseg=size)[1][: y.size]
    return np.asarray(0.5 * made / np.abs(made).max(), dtype=np.float32)


def _white(sr: int, rng: np.random.Generator) -> Array:
    return np.asarray(0.1 * rng.standard_normal(3 * sr), dtype=np.float32)


def _chords(sr: int, rng: np.random.Generator) -> Array:
    """Return decaying triads, each note with its harmonics."""
    t, y = np.arange(4 * sr) / sr, np.zeros(4 * sr)
    for start in np.arange(0, 4, 0.5):
        f0, envelope = 220 * 2 ** (rng.integers(0, 24) / 12), np.where(t >= start, np.exp(-3 * (t - start)), 0)
        for f in np.outer((1, 1.25, 1.5), f0 * np.arange(1, 12)).ravel():
            if f < sr / 2:
                y += envelope * np.sin(2 * np.pi * f * t + rng.uniform(0, 6)) / (f / f0) ** 1.2
    return np.asarray(0.3 * y / np.abs(y).max(), dtype=np.float32)


def _chirp(sr: int, rng: np.random.Generator) -> Array:
    t = np.arange(3 * sr) / sr
    return np.asarray(0.3 * np.sin(2 * np.pi * (100 * t + rng.uniform(200, 1200) * t**2)), dtype=np.float32)


def _clicks(sr: int, rng: np.random.Generator) -> Array:
    y = 1e-4 * rng.standard_normal(3 * sr)
    y[:: int(rng.uniform(0.2, 0.4) * sr)] = 0.8
    return np.asarray(y, dtype=np.float32)


_STRANGE: Mapping[str, tuple[Callable[[Array, int, np.random.Generator], Array], bool]] = {
    "speed 1.6": (_fast, True),
    "clipped": (_clipped, True),
    "telephone": (_telephone, True),
    "up to 3.4 kHz": (_low_passed, True),
    "with silences": (_with_silences, True),
    "noise at 5 dB": (_noisy, True),
    "rumble at 0 dB": (_humming, True),
    "whispered": (_whispered, False),
}
_SYNTHETIC: Mapping[str, Callable[[int, np.random.Generator], Array]] = {
    "white noise": _white,
    "chords": _chords,
    "chirps": _chirp,
    "clicks": _clicks,
}
