"""Mels and the audio that they are of, aligned: frame `n` begins with sample ``n * hop_length``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.storage.arrays import ArraySpec
from melmill.storage.description import ProductDescription
from melmill.storage.errors import StoreError
from melmill.storage.utterance import Utterance, resampled_length


def check_aligned(mel: ProductDescription, audio: ProductDescription) -> None:
    """Raise StoreError unless one product holds mels and the other the audio that they are of."""
    if mel.kind != "mel" or audio.kind not in ("waveform", "utterances"):
        raise StoreError(f"mel={mel.node!r} makes {mel.kind} and audio={audio.node!r} {audio.kind}")
    if (mel.sr, mel.catalogue) != (audio.sr, audio.catalogue):
        raise StoreError(
            f"{audio.node!r} is not the audio of {mel.node!r}: sr is {audio.sr} Hz, not {mel.sr} Hz, or it is "
            f"of another corpus ({audio.catalogue} and {mel.catalogue})"
        )


def aligned_frames(spec: ArraySpec, utterance: Utterance) -> int:
    """Return how many frames of an utterance's mel have audio of a whole hop."""
    n_samples = resampled_length(utterance.n_samples, utterance.sr, spec.sr)
    # The last frames of a centred mel reach beyond the audio.
    return min(spec.length(utterance), n_samples // spec.hop_length)


def silence_of(mel: ProductDescription) -> float:
    """Return the value of digital silence in a product of mels; raise StoreError where it does not say its spec."""
    if mel.mel is None:
        raise StoreError(f"{mel.node!r} does not say how its mels were made")
    return silence(mel.mel)


def silence(mel: Mapping[str, Any]) -> float:
    """Return the value of digital silence in a mel of the given spec.

    Parameters
    ----------
    mel : mapping
        Fields of the mel spec; without `log`, compressions leave 0 at 0.

    >>> silence({"log": "log10", "floor": 1e-5, "power": 1.0, "shift": 4.0, "scale": 0.5, "clip": None})
    -0.5
    """
    value = 0.0
    if mel["log"] is not None:
        # What a tenfold mel adds.
        decade = {"ln": math.log(10), "log10": 1.0, "db": 20.0 / mel["power"]}[mel["log"]]
        value = decade * math.log10(mel["floor"])
    low, high = mel["clip"] or (-math.inf, math.inf)
    return float(min(max((value + mel["shift"]) * mel["scale"], low), high))


def as_float(y: NDArray[Any]) -> NDArray[np.float32]:
    """Return stored audio as float32 in [-1, 1)."""
    scale = np.float32(32768.0) if y.dtype == np.int16 else np.float32(1.0)
    return y.astype(np.float32) / scale


def filled(array: NDArray[Any], length: int, value: float) -> NDArray[np.float32]:
    """Return an array as float32, its last axis filled up to `length` with `value`."""
    whole = np.full((*array.shape[:-1], length), value, dtype=np.float32)
    whole[..., : array.shape[-1]] = array
    return whole
