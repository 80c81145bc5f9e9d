"""Score variants of ADMM that may give more quality for the same time.

python -m benchmarks.ideas [--subset S] [--n-iter N]

Each variant changes a few lines of the plain algorithm, which is slow but easy to change. Scores
are means over the 20 utterances of test-other whose names end in -0003 or -0004. For another subset
they are means over every eighth utterance. ``MELMILL_REAL_DATA`` names the folder that holds
``corpora/LibriSpeech``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import click
import numpy as np
import soundfile
from numpy.typing import NDArray

import melmill
from benchmarks.corpora import librispeech
from benchmarks.inverting import SPEC
from benchmarks.judging import pair
from melmill.stages.numeric.compiled.magnitude import estimate_magnitude
from melmill.stages.numeric.compiled.misfit import misfit_energy
from melmill.stages.numeric.compiled.phase import SEGMENT_FRAMES, TOLERANCE, random_phase, segments, spread
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.solver import MagnitudeStart
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.score.metric import metric

Array = NDArray[np.float32]
METRICS = ("scm", "sc", "pesq_wb", "estoi")
TINY = 1e-36
PAPER, HEAVY = 8.58, 85.8


@dataclass(frozen=True, kw_only=True)
class Idea:
    """A variant of ADMM. `rho` returns the penalty at a given share of the run."""

    rho: tuple[float, ...] = (0.1,)
    lam: float = PAPER
    start: Literal["pghi", "random"] = "pghi"
    tolerance: float = TOLERANCE  # of PGHI
    segment: int = SEGMENT_FRAMES  # frames that PGHI integrates at once
    magnitude: MagnitudeStart = "nnls"
    swing: bool = False
    result: Literal["Z", "Y"] = "Z"  # the consistent spectrum, or its phase with the magnitude Y
    reset: int = 0  # duals to 0 after so many iterations
    again: int = 0  # PGHI on |Z| after so many iterations
    dual: float = 1.0  # step of V
    momentum: float = 0.0  # of Z and V
    seeds: int = 1  # the best of so many by SCM, each with its share of the iterations


IDEAS: Mapping[str, Idea] = {
    "the paper's, random start": Idea(start="random"),
    "PGHI start": Idea(),
    "PGHI start, to -120 dB": Idea(tolerance=1e-6),
    "PGHI start, the whole at once": Idea(segment=1 << 20),
    "clipped pseudo-inverse for NNLS": Idea(magnitude="pinv"),
    "rho 0.05": Idea(rho=(0.05,)),
    "rho 0.2": Idea(rho=(0.2,)),
    "lam x 10": Idea(lam=HEAVY),
    "lam x 100": Idea(lam=10 * HEAVY),
    "rho rises, 0.05 to 0.3": Idea(rho=(0.05, 0.3), lam=HEAVY),
    "rho falls, 0.5 to 0.05": Idea(rho=(0.5, 0.05), lam=HEAVY),
    "rho falls, 1 to 0.1": Idea(rho=(1.0, 0.1), lam=HEAVY),
    "swing (invert without a prior)": Idea(swing=True, lam=HEAVY),
    "swing, random start": Idea(swing=True, lam=HEAVY, start="random"),
    "swing, Y's magnitude in the end": Idea(swing=True, lam=HEAVY, result="Y"),
    "duals reset after 5": Idea(reset=5),
    "PGHI again after 10": Idea(again=10),
    "dual step 0.8": Idea(dual=0.8),
    "dual step 1.2": Idea(dual=1.2),
    "momentum 0.3 on Z and V": Idea(momentum=0.3),
    "swing, best of 4 random starts": Idea(swing=True, lam=HEAVY, start="random", seeds=4),
}


class Run:
    """One inversion, in the symbols of Algorithm 2."""

    def __init__(self, idea: Idea, M: Array, n_samples: int, seed: int) -> None:
        self.idea, self.bank = idea, bank_of(SPEC)
        self.P = Projection(SPEC.stft, n_samples)
        self.M = to_lanes(np.asarray(M / self.bank.norm, dtype=np.float32))
        self.Y = estimate_magnitude(self.M, self.bank, idea.magnitude)
        self.Z = self._projected(self._with_phase(self.Y, seed))
        self.V, self.U = np.zeros_like(self.Z), np.zeros_like(self.Y)
        self.Z_old, self.V_old = self.Z, self.V

    def iterate(self, n_iter: int) -> None:
        """Iterate Algorithm 2."""
        idea, rhos = self.idea, _penalties(self.idea, n_iter)
        E, mu = self.bank.E.astype(np.float32), rhos[0] / idea.lam
        for i, rho in enumerate(rhos):
            mu = 0.1 / idea.lam if idea.swing or len(idea.rho) > 1 else mu
            shrunk = np.float32(rhos[max(i - 1, 0)] / rho)
            V, U = self.V * shrunk, self.U * shrunk
            if i and i == idea.reset:
                V, U = np.zeros_like(V), np.zeros_like(U)
            if i and i == idea.again:
                self.Z = self._projected(self._with_phase(_modulus(self.Z), 0))
            Psi = self.Z + V
            a = _modulus(Psi)
            X_abs = (self.Y + np.float32(rho) * a) / np.float32(1 + rho)
            X = Psi * (X_abs / a)[:, :, np.newaxis]
            Phi = self.Y + U
            W = Phi - E.T @ (_resolvent(mu) @ (E @ Phi - self.M))
            Z = self._projected(X - V)
            Y = np.maximum(X_abs + np.float32(rho) * (W - U), 0) / np.float32(1 + rho)
            V = V + np.float32(idea.dual) * (Z - X)
            self.U, self.Y = U + Y - W, Y
            self.Z = Z + np.float32(idea.momentum) * (Z - self.Z_old)
            self.V = V + np.float32(idea.momentum) * (V - self.V_old)
            self.Z_old, self.V_old = Z, V

    def result(self) -> Array:
        """Return the waveform."""
        if self.idea.result == "Y":
            self._projected(self.Z * (self.Y / _modulus(self.Z))[:, :, np.newaxis])
        return np.asarray(self.P.samples)

    @property
    def misfit(self) -> float:
        """Return the numerator of SCM."""
        return misfit_energy(self.P.sweep, self.M, self.bank)

    def _projected(self, X: Array) -> Array:
        self.P.synthesise(X)
        return np.asarray(self.P.analyse())

    def _with_phase(self, Y: Array, seed: int) -> Array:
        n, idea = self.P.n_frames, self.idea
        phase = random_phase(n, SPEC.stft.n_bins, seed)
        if idea.start == "pghi":
            for segment in segments(Y, n, idea.tolerance, idea.segment):
                spread(segment, SPEC.stft, phase)
        return np.stack([Y * np.cos(phase), Y * np.sin(phase)], axis=2)


def _penalties(idea: Idea, n_iter: int) -> NDArray[np.float64]:
    if idea.swing:
        return Admm(schedule="swing").penalties(n_iter)
    return np.exp(np.interp(np.linspace(0, 1, n_iter), np.linspace(0, 1, len(idea.rho)), np.log(idea.rho)))


def _modulus(Z: Array) -> Array:
    return np.asarray(np.sqrt(Z[:, :, 0] ** 2 + Z[:, :, 1] ** 2 + np.float32(TINY)))


@lru_cache(maxsize=8)
def _resolvent(mu: float) -> Array:
    E = bank_of(SPEC).E
    return np.asarray(np.linalg.inv(E @ E.T + mu * np.eye(len(E))), dtype=np.float32)


def invert(idea: Idea, M: Array, n_samples: int, n_iter: int) -> Array:
    """Return the waveform of a variant after `n_iter` iterations."""
    runs = [Run(replace(idea, seeds=1), M, n_samples, seed) for seed in range(idea.seeds)]
    for run in runs:
        run.iterate(n_iter // idea.seeds)
    return min(runs, key=lambda run: run.misfit).result()


def chosen(subset: str) -> list[Path]:
    """Return the utterances of a subset to score by."""
    root = librispeech()
    pattern = "*-000[34].flac" if subset == "test-other" else "*.flac"
    files = sorted((root / subset).rglob(pattern))[:: 1 if subset == "test-other" else 8]
    if not files:
        sys.exit(f"{root / subset} holds no such files: MELMILL_REAL_DATA names the folder of corpora/LibriSpeech")
    return files


@click.command()
@click.option("--subset", default="test-other", show_default=True)
@click.option("--n-iter", default=50, show_default=True)
@click.option("--only", default="", help="Variants whose names contain this text.")
def main(subset: str, n_iter: int, only: str) -> None:
    """Print a Markdown table with a row for each variant."""
    files = chosen(subset)
    print(f"{len(files)} utterances of {subset}, {n_iter} iterations in all\n")
    print("| idea | SCM dB | SC dB | PESQ-wb | ESTOI |\n|---|---|---|---|---|")
    for title, idea in IDEAS.items():
        if only in title:
            means = np.mean([_scores(file, lambda M, n, idea=idea: invert(idea, M, n, n_iter)) for file in files], 0)
            print(f"| {title} | {means[0]:.2f} | {means[1]:.2f} | {means[2]:.3f} | {means[3]:.4f} |", flush=True)


def _scores(file: Path, inverted: Callable[[Array, int], Array]) -> list[float]:
    y = soundfile.read(file, dtype="float32")[0]
    both = pair(y, inverted(melmill.mel(y, SPEC), y.size))
    return [metric(name).measure(both).value for name in METRICS]


if __name__ == "__main__":
    main()
