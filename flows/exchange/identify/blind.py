"""Which specs probably made a mel, by its values alone.

A small network reads `melmill.flows.exchange.identify.features`. It was trained by ``python -m
benchmarks.identify_model`` on real speech, with mels of all presets, normalised and disturbed at
random, and with mels of makes that no preset has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from melmill.flows.exchange.identify.candidates import Candidate, candidates, fingerprint
from melmill.flows.exchange.identify.features import features
from melmill.flows.exchange.identify.looks import Plane
from melmill.flows.exchange.identify.result import Identified, Match
from melmill.safetensors import unpacked
from melmill.stages.numeric.mel import range_problem
from melmill.stages.numeric.melspec import MelSpec

FILE = Path(__file__).parent / "model.safetensors"
SHA256 = "684161c3402f2ce3ddf0c7b05255768230fb29908a461c1638e1915475d0f376"
"""Digest of the file, as the docs measured it."""

Values = NDArray[np.float64]

# More probable than not.
_LIKELY = 0.5
_SLOPE = 0.1
# Less probable makes are not looked at.
_LEAST = 1e-4


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Hold the number of a make, and the probability that it is right where those before it are not."""

    index: int
    gain: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """Hold the network and what its outputs mean.

    Parameters
    ----------
    layers : sequence of (ndarray, ndarray)
        Weights and biases. Between layers is a leaky rectifier.
    mean, scale : ndarray of float64, shape (n_features,)
        The features are ``(x - mean) / scale``.
    makes : sequence of str
        What each output stands for, a digest of a spec (`digest`). The last output is any other
        make.
    bands : sequence of int
        Number of bands of each make.
    floors : sequence of float
        As `features` takes them.
    equal, alike : ndarray of float64, shape (n_makes, n_makes)
        How often a mel of speech by one make (rows) is that of another (columns): as it is, or but
        for a normalisation of all values or of each band.
    temperature : float
        Divides the outputs, so that probabilities are calibrated.
    """

    layers: Sequence[tuple[Values, Values]]
    mean: Values
    scale: Values
    makes: Sequence[str]
    bands: Sequence[int]
    floors: Sequence[float]
    equal: Values
    alike: Values
    temperature: float

    def probabilities(self, M: NDArray[np.floating]) -> Values:
        """Return the probability of each make, and of any other as the last, shape (n_makes + 1,)."""
        x = np.clip((features(M, self.floors) - self.mean) / self.scale, -8.0, 8.0)
        for index, (weight, bias) in enumerate(self.layers):
            x = weight @ x + bias
            if index < len(self.layers) - 1:
                x = np.where(x > 0, x, _SLOPE * x)
        possible = np.array([*(n == len(M) for n in self.bands), True])
        logits = np.where(possible, x / self.temperature, -np.inf)
        exponentials = np.exp(logits - logits.max())
        return np.asarray(exponentials / exponentials.sum())

    def ranked(self, M: NDArray[np.floating], chances: Values, specs: Sequence[MelSpec | None]) -> Iterator[Ranked]:
        """Yield makes, best first: each adds the most to the probability that one of them is right.

        A make is right for a mel that it gives too. One that gives the same mel as a make before it
        adds nothing.

        Parameters
        ----------
        M : ndarray of float, shape (n_mels, n_frames)
        chances : ndarray of float64, shape (n_makes + 1,)
            Of `probabilities`.
        specs : sequence of MelSpec or None
            Of each make; None where this version has none.
        """
        known = [(i, spec) for i, spec in enumerate(specs) if spec is not None and chances[i] > _LEAST]
        rows = np.array([i for i, _ in known], dtype=np.int64)
        outside = np.array([bool(range_problem(M, spec)) for _, spec in known], dtype=np.bool_)
        right = np.where(outside[:, np.newaxis], self.alike[rows], self.equal[rows])
        right[np.arange(rows.size), rows] = 1.0
        right[:, [spec is None for spec in specs]] = 0.0
        left = chances[rows]
        while rows.size:
            gains = left @ right
            index = int(np.argmax(gains + _LEAST * chances[:-1]))
            if gains[index] <= _LEAST:
                return
            yield Ranked(index=index, gain=float(gains[index]))
            left = left * (1.0 - right[:, index])


def digest(candidate: Candidate) -> str:
    """Return a short digest of a candidate's spec."""
    return hashlib.sha256(fingerprint(candidate.spec).encode()).hexdigest()[:12]


@cache
def model() -> Model:
    """Return the network that comes with melmill."""
    return read_model(FILE.read_bytes())


def read_model(data: bytes) -> Model:
    """Return the network of a file's bytes."""
    tensors, metadata = unpacked(data)
    arrays = {
        name: np.frombuffer(stored.data, dtype={"F16": "<f2", "F32": "<f4", "U8": "u1"}[stored.dtype])
        .reshape(stored.shape)
        .astype(np.float64)
        for name, stored in tensors.items()
    }
    n_layers = sum(name.startswith("weight") for name in arrays)
    about = json.loads(metadata["about"])
    return Model(
        layers=[(arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(n_layers)],
        mean=arrays["mean"],
        scale=arrays["scale"],
        makes=about["makes"],
        bands=about["bands"],
        floors=about["floors"],
        equal=arrays["equal"] / 255.0,
        alike=arrays["alike"] / 255.0,
        temperature=about["temperature"],
    )


def likely(ways: Sequence[Plane], shape: tuple[int, ...], top: int) -> Identified:
    """Return the specs that probably made a mel.

    Parameters
    ----------
    ways : sequence of Plane
        The array either way round, as far as it may be a mel so.
    shape : tuple of int
        Of the array as it was given.
    top : int
        Matches to return.
    """
    net = model()
    found = [(way, net.probabilities(way.M)) for way in ways]
    way, chances = min(found, key=lambda pair: float(pair[1][-1]))
    known = {digest(candidate): candidate for candidate in candidates()}
    makes = [known.get(make) for make in net.makes]
    ranked = net.ranked(way.M, chances, [None if make is None else make.spec for make in makes])
    matches = tuple(_match(way.M, make, one.gain) for one in islice(ranked, top) if (make := makes[one.index]))
    other = float(chances[-1])
    if other >= _LIKELY or not matches:
        return Identified(
            verdict="unknown",
            looks_like=f"with a probability of {other:.2f} it is of no known make; the recording would tell more",
            matches=matches,
            transposed=way.transposed,
            shape=shape,
        )
    return Identified(verdict="likely", matches=matches, transposed=way.transposed, shape=shape)


def _match(M: Values, make: Candidate, confidence: float) -> Match:
    """Return a make as a match. Values outside its range were normalised besides."""
    notes: tuple[str, ...] = ()
    if range_problem(M, make.spec):
        notes = ("its values are not in the preset's range: give the recording to find shift and scale",)
    return Match(presets=make.names, spec=make.spec, confidence=confidence, notes=notes)
