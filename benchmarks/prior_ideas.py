"""Score variants of what a prior's guess becomes: how it starts, what iterates on it, and bounds.

python -m benchmarks.prior_ideas [--prior NAME|FILE] [--subset S] [--n-iter N] [--only TEXT]

Each line changes one thing of `invert` with a prior. Lines that begin with *truth* know the
recording: they say where there is room. Scores are means over the 20 utterances of test-other whose
names end in -0003 or -0004. For another subset they are means over every eighth utterance. The
networks that were tried are in docs/results.md. ``MELMILL_REAL_DATA`` names the folder that holds
``corpora/LibriSpeech``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import click
import numpy as np
import soundfile
from numpy.typing import NDArray

import melmill
from benchmarks.ideas import METRICS, chosen
from benchmarks.inverting import SPEC
from benchmarks.judging import pair
from melmill.stages.numeric.compiled import prior as compiled_prior
from melmill.stages.numeric.compiled.inverter import iterate
from melmill.stages.numeric.compiled.magnitude import estimate_magnitude
from melmill.stages.numeric.compiled.phase import GUIDED_TOLERANCE, pghi, random_phase
from melmill.stages.numeric.compiled.projection import Projection
from melmill.stages.numeric.compiled.start import with_phase
from melmill.stages.numeric.filterbank import bank_of, mel_bank
from melmill.stages.numeric.lanes.sweep import from_lanes, to_lanes
from melmill.stages.numeric.prior import Prior
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.stft import Stft
from melmill.stages.score.metric import metric

Array = NDArray[np.float32]
TINY = 1e-9
_LAM = 85.8
# f0 that the comb looks for, Hz, and how deep it is, nepers.
_PITCHES = np.geomspace(70.0, 400.0, 160)
_DEPTH = 1.2


@dataclass(frozen=True, kw_only=True)
class Swing(Admm):
    """ADMM whose penalty swings by other numbers: first, lowest and last share of rho, and where it is lowest."""

    shares: tuple[float, float, float] = (10.0, 0.7, 1.5)
    knee: float = 0.5

    def penalties(self, n_iter: int) -> NDArray[np.float64]:
        """Return rho of every iteration."""
        legs = np.interp(np.linspace(0, 1, n_iter), (0, self.knee, 1), np.log(self.shares))
        return np.asarray(self.rho * np.exp(legs))


SWING = Admm(lam=_LAM, schedule="swing")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recording, its mel, and how long ideas may iterate."""

    y: Array
    linear: Array
    prior: Prior
    n_iter: int

    @property
    def n_frames(self) -> int:
        """Frames."""
        return int(self.linear.shape[1])

    @cached_property
    def D(self) -> NDArray[np.complexfloating]:
        """Spectrum of the recording ``(n_bins, n_frames)``."""
        D = Stft(SPEC.stft).forward(self.y)
        return D if D.shape[0] == SPEC.stft.n_bins else D.T

    def guess(self, n_updates: int = compiled_prior.N_UPDATES) -> Array:
        """Return the prior's magnitude in lane layout after some updates."""
        before, compiled_prior.N_UPDATES = compiled_prior.N_UPDATES, n_updates
        try:
            return compiled_prior.guess(self.linear, SPEC, self.prior).Y
        finally:
            compiled_prior.N_UPDATES = before

    def integrated(self, Y: Array, tolerance: float = GUIDED_TOLERANCE) -> Array:
        """Return PGHI's phase of a magnitude in lane layout."""
        return pghi(Y, self.n_frames, SPEC.stft, 0, tolerance)

    def spectra(self, y: Array) -> Array:
        """Return the spectra of a signal in lane layout."""
        projection = Projection(SPEC.stft, self.y.size)
        projection.samples = y
        return np.asarray(projection.analyse())

    def iterated(self, Y: Array, phase: Array, legs: Sequence[int] | None = None, solver: Admm = SWING) -> Array:
        """Return the signal after some iterations.

        After each leg the magnitude is Y again, and the phase stays as it is.
        """
        projection, bank = Projection(SPEC.stft, self.y.size), bank_of(SPEC)
        M = to_lanes(np.asarray(self.linear / bank.norm, dtype=np.float32))
        for leg, n_iter in enumerate([self.n_iter] if legs is None else legs):
            X = _with_magnitude(projection.analyse(), Y) if leg else with_phase(Y, phase)
            projection.synthesise(X)
            iterate(solver, np.array(X), Y.copy(), M, bank, projection, n_iter)
        return np.asarray(projection.samples)


Idea = Callable[[Case], Array]


def _started(Y: Callable[[Case], Array], phase: Callable[[Case], Array] | None = None) -> Idea:
    """Return the idea to start from another magnitude, and from its phase or from another."""

    def run(case: Case) -> Array:
        magnitude = Y(case)
        return case.iterated(magnitude, case.integrated(magnitude) if phase is None else phase(case))

    return run


def _solved(solver: Admm) -> Idea:
    return lambda case: case.iterated(case.guess(), case.integrated(case.guess()), solver=solver)


def _in_legs(n_legs: int) -> Idea:
    def run(case: Case) -> Array:
        Y = case.guess()
        return case.iterated(Y, case.integrated(Y), [case.n_iter // n_legs] * n_legs)

    return run


def _averaged(case: Case) -> Array:
    """Start again from the mean of the guess and of what half of the iterations make of it."""
    Y = case.guess()
    Z = case.spectra(case.iterated(Y, case.integrated(Y), [case.n_iter // 2]))
    mean = np.asarray(0.5 * (Y + _modulus(Z)), dtype=np.float32)
    return case.iterated(mean, np.arctan2(Z[:, :, 1], Z[:, :, 0]), [case.n_iter - case.n_iter // 2])


def _null_space(case: Case) -> Array:
    """Return the guess, moved by the least that gives it the mel, twice, and clipped."""
    Y = np.asarray(from_lanes(case.guess(0), case.n_frames), dtype=np.float64)
    for _ in range(2):
        Y = np.maximum(Y - _pseudo_inverse() @ (mel_bank(SPEC) @ Y - case.linear), 0)
    return to_lanes(np.ascontiguousarray(Y, dtype=np.float32))


@lru_cache(maxsize=1)
def _pseudo_inverse() -> NDArray[np.float64]:
    return np.asarray(np.linalg.pinv(mel_bank(SPEC).astype(np.float64)))


def _peaks(case: Case) -> Array:
    """Return phases without a heap: each peak goes on by its own frequency, its slopes are locked to it."""
    Y = case.guess()
    s = np.log(from_lanes(Y, case.n_frames) + TINY).T.astype(np.float64)
    phase, before = np.empty_like(s), np.zeros(s.shape[1])
    turn = 2 * np.pi * SPEC.hop_length / SPEC.n_fft
    for t, frame in enumerate(s):
        peaks = np.flatnonzero((frame[1:-1] > frame[:-2]) & (frame[1:-1] >= frame[2:])) + 1
        peaks = peaks if peaks.size else np.array([1])
        left, top, right = frame[peaks - 1], frame[peaks], frame[peaks + 1]
        bend = left - 2 * top + right
        offset = np.where(bend < -TINY, 0.5 * (left - right) / np.where(bend < -TINY, bend, -1.0), 0.0)
        at = before[peaks] + turn * (peaks + offset)
        valleys = [a + int(np.argmin(frame[a : b + 1])) for a, b in pairwise(peaks)]
        owner = np.searchsorted(valleys, np.arange(frame.size), side="right")
        before = at[owner] - np.pi * (np.arange(frame.size) - peaks[owner])
        phase[t] = before
    return to_lanes(np.ascontiguousarray(phase.T, dtype=np.float32))


def _comb(case: Case) -> Array:
    """Return NNLS's magnitude under an untrained comb at the pitch that explains its low bins best."""
    lanes = _nnls(case)
    Y = np.asarray(from_lanes(lanes, case.n_frames), dtype=np.float64)
    hz = np.arange(len(Y)) * SPEC.sr / SPEC.n_fft
    combs = np.cos(2 * np.pi * hz / _PITCHES[:, np.newaxis])
    low = (hz > 60) & (hz < 1500)
    root = np.sqrt(Y[low])
    fit = (combs[:, low] @ (root - root.mean(axis=0))) / (np.linalg.norm(root, axis=0) + TINY)
    best = fit.argmax(axis=0)
    voiced = np.clip(fit.max(axis=0) / np.sqrt(low.sum() / 2), 0, 1)
    W = Y * np.exp(_DEPTH * voiced * combs[best].T)
    E = mel_bank(SPEC).astype(np.float64)
    for _ in range(compiled_prior.N_UPDATES):
        W *= (E.T @ (case.linear / (E @ W + TINY))) / np.where(E.sum(axis=0) > 0, E.sum(axis=0), 1)[:, np.newaxis]
    return to_lanes(np.ascontiguousarray(W, dtype=np.float32))


def _nnls(case: Case) -> Array:
    """Return NNLS's magnitude in lane layout."""
    bank = bank_of(SPEC)
    lanes = to_lanes(np.asarray(case.linear / bank.norm, dtype=np.float32))
    return np.asarray(estimate_magnitude(lanes, bank, "nnls"))


def _true(case: Case) -> Array:
    return to_lanes(np.ascontiguousarray(np.abs(case.D), dtype=np.float32))


def _towards(share: float) -> Callable[[Case], Array]:
    """Return the geometric mean of guess and true magnitude."""

    def magnitude(case: Case) -> Array:
        logs = (1 - share) * np.log(case.guess() + TINY) + share * np.log(_true(case) + TINY)
        return np.asarray(np.exp(logs), dtype=np.float32)

    return magnitude


def _modulus(Z: Array) -> Array:
    return np.asarray(np.sqrt(Z[:, :, 0] ** 2 + Z[:, :, 1] ** 2 + np.float32(TINY) ** 2))


def _with_magnitude(Z: Array, Y: Array) -> Array:
    return np.asarray(Z * (Y / _modulus(Z))[:, :, np.newaxis])


def _guess(case: Case) -> Array:
    return case.guess()


IDEAS: Mapping[str, Idea] = {
    "NNLS, no prior": _started(_nnls),
    "an untrained comb on NNLS": _started(_comb),
    "prior (invert)": _started(_guess),
    "no update": _started(lambda case: case.guess(0)),
    "3 updates": _started(lambda case: case.guess(3)),
    "20 updates": _started(lambda case: case.guess(20)),
    "null space in place of updates": _started(_null_space),
    "PGHI to -80 dB": _started(_guess, lambda case: case.integrated(case.guess(), 1e-4)),
    "PGHI to -50 dB": _started(_guess, lambda case: case.integrated(case.guess(), 10 ** (-50 / 20))),
    "PGHI to -40 dB": _started(_guess, lambda case: case.integrated(case.guess(), 1e-2)),
    "peaks in place of PGHI": _started(_guess, _peaks),
    "random phase": _started(_guess, lambda case: random_phase(case.n_frames, SPEC.stft.n_bins, 0)),
    "swing, the best of 60 draws": _solved(Swing(lam=122.6, shares=(10.2, 0.587, 1.366), knee=0.413)),
    "constant rho": _solved(Admm(lam=_LAM)),
    "magnitude reset at half-time": _in_legs(2),
    "magnitude reset three times": _in_legs(4),
    "mean with the iterate at half-time": _averaged,
    "truth: 15 % of the true magnitude": _started(_towards(0.15)),
    "truth: 30 % of the true magnitude": _started(_towards(0.3)),
    "truth: the true magnitude": _started(_true),
    "truth: PGHI of the true magnitude": _started(_guess, lambda case: case.integrated(_true(case), 1e-4)),
    "truth: the true phase": _started(
        _guess, lambda case: to_lanes(np.ascontiguousarray(np.angle(case.D), dtype=np.float32))
    ),
}


@click.command()
@click.option("--prior", "which", default="paper", show_default=True, help="Name or file of a prior.")
@click.option("--subset", default="test-other", show_default=True)
@click.option("--n-iter", default=40, show_default=True)
@click.option("--only", default="", help="Ideas whose names contain this text.")
def main(which: str, subset: str, n_iter: int, only: str) -> None:
    """Print a Markdown table with a row for each idea."""
    prior, files = melmill.load_prior(which), chosen(subset)
    print(f"{len(files)} utterances of {subset}, prior {which}, {n_iter} iterations in all\n")
    print("| idea | SCM dB | SC dB | PESQ-wb | ESTOI |\n|---|---|---|---|---|")
    cases = []
    for file in files:
        y = soundfile.read(file, dtype="float32")[0]
        cases.append(Case(y=y, linear=melmill.mel(y, SPEC), prior=prior, n_iter=n_iter))
    for title, idea in IDEAS.items():
        if only in title:
            rows = [[metric(name).measure(pair(case.y, idea(case))).value for name in METRICS] for case in cases]
            means = np.mean(np.array(rows, dtype=float), axis=0)
            print(f"| {title} | {means[0]:.2f} | {means[1]:.2f} | {means[2]:.3f} | {means[3]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
