"""Mels of known and of unknown makes, normalised and disturbed at random, to tell how they were made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melmill.stages.formats.audio import decode
from melmill.stages.numeric.errors import StageError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.resample import resample

Values = NDArray[np.float64]
NORMALISATIONS = ("none", "affine", "range", "standard", "per band", "statistics", "float16")
# Misfit of two makes that give equal mels.
EQUAL = 1e-4
_SUFFIXES = (".wav", ".flac", ".ogg")


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """Hold a recording, or a part of it, and whose it is."""

    corpus: str
    speaker: str
    y: NDArray[np.float32]
    sr: int

    def at(self, sr: int) -> NDArray[np.float32]:
        """Return the samples at a rate, Hz, in [-1, 1]."""
        return np.asarray(resample(self.y, self.sr, sr), dtype=np.float32)


def recordings(root: Path, *, without: Sequence[str] = (), speakers: Collection[str] = ()) -> list[Path]:
    """Return the recordings below ``root/CORPUS/``, without some corpora and speakers (``CORPUS/NAME``)."""
    found = [path for path in sorted(root.rglob("*")) if path.suffix in _SUFFIXES]
    return [
        path for path in found if path.relative_to(root).parts[0] not in without and owner(path, root) not in speakers
    ]


def owner(path: Path, root: Path) -> str:
    """Return corpus and speaker of a recording, ``CORPUS/NAME``."""
    parts = path.relative_to(root).parts
    return f"{parts[0]}/{_speaker(parts)}"


def clips(paths: Sequence[Path], root: Path, rng: np.random.Generator, *, longest_s: float) -> Iterator[Clip]:
    """Yield a part of each recording."""
    for path in paths:
        y, header = decode(path.read_bytes())
        mono = (y / 32768.0 if y.dtype == np.int16 else y).astype(np.float32)
        mono = mono.mean(axis=1) if mono.ndim == 2 else mono
        n = int(rng.uniform(0.4, 1.0) * longest_s * header.sr)
        begin = int(rng.integers(0, max(1, mono.size - n)))
        part = np.ascontiguousarray(mono[begin : begin + n])
        if part.size > header.sr and part.std() > 1e-4:
            parts = path.relative_to(root).parts
            yield Clip(corpus=parts[0], speaker=_speaker(parts), y=part, sr=header.sr)


def _speaker(parts: tuple[str, ...]) -> str:
    """Return who speaks: the folder below the corpus, or below the subset of LibriSpeech."""
    return parts[2] if len(parts) > 3 else parts[1]


def normalised(M: Values, kind: str, rng: np.random.Generator) -> NDArray[np.floating]:
    """Return a mel normalised as projects do, with numbers of its own or drawn at random."""
    low, high = float(M.min()), float(M.max())
    if kind == "affine":
        return M * rng.choice([0.1, 0.25, 0.5, 2.0, 20.0]) + rng.uniform(-5, 5)
    if kind == "range":
        bottom, top = ((-1.0, 1.0), (0.0, 1.0), (-4.0, 4.0))[rng.integers(3)]
        return (M - low) / (high - low) * (top - bottom) + bottom
    if kind == "standard":
        return (M - M.mean()) / M.std()
    if kind == "per band":
        return (M - M.mean(axis=1, keepdims=True)) / (M.std(axis=1, keepdims=True) + 1e-5)
    if kind == "statistics":  # of a corpus, which are not quite those of an utterance
        mean = M.mean(axis=1, keepdims=True) + rng.normal(0, 0.3, (len(M), 1)) * M.std()
        return (M - mean) / (M.std(axis=1, keepdims=True) * rng.uniform(0.8, 1.25, (len(M), 1)) + 1e-5)
    return M.astype(np.float16) if kind == "float16" and np.abs(M).max() < 6e4 else M


def predicted(M: Values, rng: np.random.Generator, amount: float = 1.0) -> Values:
    """Return a mel as an acoustic model may predict it: smoother in time and bands, with errors.

    Errors are those of logs. They last some frames. A mel without a log gets factors.
    """
    logs = bool(M.min() < 0)
    X = M if logs else np.log(np.maximum(M, 1e-7 * M.max()))
    for axis, width in ((1, rng.uniform(0.0, 0.8) * amount), (0, rng.uniform(0.0, 0.5) * amount)):
        X = _blurred(X, width, axis)
    noise = rng.normal(0, 1, X.shape)
    noise = _blurred(noise, rng.uniform(0.3, 1.5), 1)
    X = X + noise / noise.std() * X.std() * rng.uniform(0.01, 0.1) * amount
    return X if logs else np.exp(X)


def _blurred(X: Values, width: float, axis: int) -> Values:
    if width < 0.05:
        return X
    taps = np.exp(-0.5 * (np.arange(-3, 4) / width) ** 2)
    padded = np.pad(X, [(3, 3) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
    n = X.shape[axis]
    return np.asarray(sum(t * np.take(padded, range(k, k + n), axis=axis) for k, t in enumerate(taps)) / taps.sum())


def unknown_make(rng: np.random.Generator, known: Sequence[MelSpec]) -> MelSpec:
    """Return a spec that no preset has: one of theirs with other bands, transform or framing."""
    while True:
        base = known[int(rng.integers(len(known)))]
        n_fft = int(rng.choice([512, 800, 1024, 1280, 1536, 2048, 4096]))
        changes = {
            "n_fft": n_fft,
            "win_length": int(rng.choice([n_fft, n_fft, int(n_fft * 0.75), int(n_fft * 0.6)])),
            "hop_length": int(n_fft * rng.choice([0.1, 0.15, 0.2, 0.3, 0.4])),
            "fmin": float(rng.choice([0, 15, 35, 65, 100, 150, 200, 300])),
            "fmax": float(rng.uniform(0.5, 1.0) * base.sr / 2),
            "htk": bool(rng.integers(2)),
            "norm": [None, "slaney"][int(rng.integers(2))],
        }
        chosen = rng.permutation(list(changes))[: int(rng.integers(1, len(changes)))]
        if {"n_fft", "win_length", "hop_length"} & set(chosen):
            chosen = [*chosen, "n_fft", "win_length", "hop_length"]
        try:
            made = replace(base, **{name: changes[name] for name in chosen})
        except StageError:
            continue
        if not any(_alike(made, spec) for spec in known):
            return made


def _alike(a: MelSpec, b: MelSpec) -> bool:
    """Tell whether two specs have the same bands of the same frames."""
    names = ("sr", "n_fft", "win_length", "hop_length", "n_mels", "fmin", "top_hz", "htk", "norm", "power")
    return all(getattr(a, name) == getattr(b, name) for name in names)
