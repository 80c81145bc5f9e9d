"""PESQ of our own against the `pesq` package: agreement on real pairs, and speed.

    python -m benchmarks.pesq [--recordings 120] [--seed 0]

Recordings are those of the corpora under ``$MELMILL_REAL_DATA``: LibriSpeech, VCTK, LJSpeech and
LibriTTS. Each is damaged in several ways, and every pair is scored in three modes: wide band at 16
kHz, narrow band at 16 and at 8 kHz. It needs the extra `pesq`. The package runs in a process of its
own, as it may crash. Levels do not matter to PESQ. So pairs that are apart are scored again with
both signals scaled, which shows where the package's own answer hangs on rounding errors. Times are
the processor's, of one thread each, in turns.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

import numpy as np
import scipy.signal
import soundfile
from numpy.typing import NDArray

import melmill
from benchmarks.corpora import librispeech
from melmill.stages.numeric.resample import resample
from melmill.stages.score.p862 import mos
from melmill.stages.score.p862.tables import Mode

SR = 16000
CORPORA = ("LibriSpeech", "VCTK", "LJSpeech", "LibriTTS")
MODES: tuple[tuple[Mode, int], ...] = (("wb", 16000), ("nb", 16000), ("nb", 8000))
KINDS_EACH = 6
CLOSE, FAR = 0.001, 0.02
SCALES = ((0.999, 0.999), (1.0, 0.9), (0.7, 0.35))

Signal = NDArray[np.float32]
Damage = Callable[[Signal, np.random.Generator], Signal]


@dataclass(frozen=True)
class Compared:
    """Hold both answers for one pair: a score, or why there is none."""

    name: str
    kind: str
    mode: str
    ours: float | str
    package: float | str
    scaled: tuple[float | str, ...] = ()  # the package's answers with both signals scaled; only if they are apart

    @property
    def difference(self) -> float:
        """How far the scores are apart; infinite where only one answered."""
        if isinstance(self.ours, str) or isinstance(self.package, str):
            return 0.0 if self.ours == self.package else math.inf
        return abs(self.ours - self.package)


def main() -> None:
    """Compare, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=120, help=f"{KINDS_EACH} pairs in {len(MODES)} modes of each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    compared: list[Compared] = []
    taken: dict[tuple[str, str], float] = defaultdict(float)
    duration_s: dict[str, float] = defaultdict(float)
    with Judge() as judge:
        for name, kind, reference, estimate in pairs(options.recordings, options.seed):
            for mode, sr in MODES:
                x, y = (np.ascontiguousarray(resample(z, SR, sr)) for z in (reference, estimate))
                label = f"{mode} {sr // 1000} kHz"
                package, package_s = judge.score(x, y, sr, mode)
                ours, ours_s = scored(x, y, sr, mode)
                one = Compared(name, kind, label, ours, package)
                if one.difference > CLOSE:
                    scaled = tuple(judge.score(a * x, b * y, sr, mode)[0] for a, b in SCALES)
                    one = replace(one, scaled=scaled)
                compared.append(one)
                if len(compared) > len(MODES):  # the first compile
                    taken["package", label] += package_s
                    taken["ours", label] += ours_s
                    duration_s[label] += x.size / sr
    report(compared)
    for label, duration in duration_s.items():
        ours_s, package_s = taken["ours", label], taken["package", label]
        print(
            f"{label}: {duration / ours_s:,.0f} x real time, the package {duration / package_s:,.0f} x: "
            f"{package_s / ours_s:.1f} times as fast, over {duration:,.0f} s"
        )


def report(compared: list[Compared]) -> None:
    """Print how far both are apart, by kind of damage, and the worst pairs."""
    print(f"{'kind':<16} {'n':>6} {'within 0.001':>13} {'largest':>9} {'mean score':>11}")
    for kind in [*dict.fromkeys(one.kind for one in compared), ""]:
        chosen = [one for one in compared if kind in ("", one.kind)]
        apart = np.array([one.difference for one in chosen])
        scores = [one.package for one in chosen if isinstance(one.package, float)]
        mean = f"{np.mean(scores):.2f}" if scores else "-"
        print(f"{kind or 'all':<16} {len(chosen):>6,} {np.mean(apart <= CLOSE):>12.2%} {apart.max():>9.5f} {mean:>11}")
    both = [one for one in compared if isinstance(one.package, float)]
    print(f"of {len(both):,} with a score by the package: {sum(one.difference <= FAR for one in both):,} within {FAR}")
    for one in sorted(compared, key=lambda one: -one.difference)[:12]:
        if one.difference > CLOSE:
            again = ", ".join(str(answer) for answer in one.scaled)
            print(f"  {one.name} {one.kind} {one.mode}: {one.ours} for {one.package}, and {again} scaled")


class Judge:
    """The package, in a process that may crash."""

    def __enter__(self) -> Judge:
        """Start the process."""
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._pool.shutdown()

    def score(self, x: Signal, y: Signal, sr: int, mode: Mode) -> tuple[float | str, float]:
        """Return the package's score or the name of its error, and the time that it took, s."""
        try:
            return self._pool.submit(_judged, x, y, sr, mode).result()
        except BrokenProcessPool:
            self.__exit__()
            self.__enter__()
            return "crashed", 0.0


def _judged(x: Signal, y: Signal, sr: int, mode: Mode) -> tuple[float | str, float]:
    import pesq

    started = time.thread_time()
    try:
        score: float | str = float(pesq.pesq(sr, x, y, mode))
    except pesq.NoUtterancesError:
        score = "no utterances"
    return score, time.thread_time() - started


def scored(x: Signal, y: Signal, sr: int, mode: Mode) -> tuple[float | str, float]:
    """Return our score or why there is none, and the time that it took, s."""
    started = time.thread_time()
    score = mos.mos_lqo(x, y, sr, mode)
    return "no utterances" if score is None else score, time.thread_time() - started


def pairs(n_recordings: int, seed: int) -> Iterator[tuple[str, str, Signal, Signal]]:
    """Yield name, kind of damage, recording and damaged recording at 16 kHz."""
    root = librispeech().parent
    files = {
        corpus: sorted(path for path in (root / corpus).rglob("*") if path.suffix in (".flac", ".wav"))
        for corpus in CORPORA
    }
    choose = random.Random(seed)
    kinds = [*DAMAGES]
    for n in range(n_recordings):
        file = choose.choice(files[CORPORA[n % len(CORPORA)]])
        y, sr = soundfile.read(file, dtype="float32")
        y = y[:, 0] if y.ndim > 1 else y
        # Mostly short, as most utterances are; every twelfth as it is.
        longest_s = 60.0 if n % 12 == 0 else choose.uniform(1.0, 8.0)
        reference = np.ascontiguousarray(resample(y[: int(longest_s * sr)], sr, SR), dtype=np.float32)
        for k in range(KINDS_EACH):
            kind = kinds[(n * KINDS_EACH + k) % len(kinds)]
            rng = np.random.default_rng([seed, n, k])
            yield file.name, kind, reference, np.asarray(DAMAGES[kind](reference, rng), dtype=np.float32)


def _inverted(method: str, n_iter: int, start: str = "pghi") -> Damage:
    def invert(x: Signal, rng: np.random.Generator) -> Signal:
        spec = melmill.preset("paper")
        M = melmill.mel(x, spec)
        return melmill.invert(M, spec, method=method, n_iter=n_iter, start=start, length=x.size, prior="none")

    return invert


def _noise(x: Signal, rng: np.random.Generator) -> Signal:
    snr_db = rng.uniform(-5, 45)
    return x + 10 ** (-snr_db / 20) * np.std(x) * rng.standard_normal(x.size)


def _coloured_noise(x: Signal, rng: np.random.Generator) -> Signal:
    noise = scipy.signal.lfilter([1.0], [1.0, -rng.uniform(0.5, 0.99)], rng.standard_normal(x.size))
    return x + 10 ** (-rng.uniform(0, 30) / 20) * np.std(x) / np.std(noise) * noise


def _shift(x: Signal, rng: np.random.Generator) -> Signal:
    n = int(rng.integers(-SR // 3, SR // 3))
    return np.roll(np.where(np.arange(x.size) < x.size - n if n > 0 else np.arange(x.size) >= -n, x, 0), n)


def _gain(x: Signal, rng: np.random.Generator) -> Signal:
    return x * 10 ** (rng.uniform(-40, 20) / 20)


def _low_pass(x: Signal, rng: np.random.Generator) -> Signal:
    return scipy.signal.sosfiltfilt(scipy.signal.butter(8, rng.uniform(800, 7000), fs=SR, output="sos"), x)


def _high_pass(x: Signal, rng: np.random.Generator) -> Signal:
    return scipy.signal.sosfilt(scipy.signal.butter(4, rng.uniform(60, 1500), "high", fs=SR, output="sos"), x)


def _clipped(x: Signal, rng: np.random.Generator) -> Signal:
    most = rng.uniform(0.02, 0.7) * np.max(np.abs(x))
    return np.clip(x, -most, most)


def _quantised(x: Signal, rng: np.random.Generator) -> Signal:
    steps = 2.0 ** rng.integers(3, 12)
    return np.round(x * steps) / steps


def _gaps(x: Signal, rng: np.random.Generator) -> Signal:
    y = x.copy()
    for _ in range(int(rng.integers(1, 6))):
        at, n = int(rng.integers(0, x.size)), int(rng.uniform(0.01, 0.5) * SR)
        y[at : at + n] = 0
    return y


def _bursts(x: Signal, rng: np.random.Generator) -> Signal:
    y = x.copy()
    for _ in range(int(rng.integers(1, 6))):
        at, n = int(rng.integers(0, x.size)), int(rng.uniform(0.005, 0.3) * SR)
        y[at : at + n] += rng.uniform(0.2, 3) * np.std(x) * rng.standard_normal(y[at : at + n].size)
    return y


def _variable_delay(x: Signal, rng: np.random.Generator) -> Signal:
    parts, at = [], 0
    for stop in sorted(rng.integers(0, x.size, int(rng.integers(1, 5))).tolist()):
        jump = int(rng.integers(-3000, 3000))
        parts += [x[at:stop], np.zeros(max(jump, 0), np.float32)]
        at = stop + max(-jump, 0)
    return np.resize(np.concatenate([*parts, x[at:], np.zeros(x.size, np.float32)]), x.size)


def _drift(x: Signal, rng: np.random.Generator) -> Signal:
    at = np.arange(x.size) * (1 + rng.uniform(-0.01, 0.01))
    return np.interp(at, np.arange(x.size), x, right=0.0)


def _reverberant(x: Signal, rng: np.random.Generator) -> Signal:
    n = int(rng.uniform(0.05, 0.6) * SR)
    response = rng.standard_normal(n) * np.exp(-6.9 * np.arange(n) / n)
    response[0] = 3.0
    return 0.2 * scipy.signal.fftconvolve(x, response)[: x.size]


def _mu_law(x: Signal, rng: np.random.Generator) -> Signal:
    mu = 2.0 ** rng.integers(3, 9) - 1
    coded = np.round(np.sign(x) * np.log1p(mu * np.abs(x)) / np.log1p(mu) * (mu // 2)) / (mu // 2)
    return np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(mu)) / mu


def _scrambled(x: Signal, rng: np.random.Generator) -> Signal:
    """Return the signal with random phases, its magnitudes kept."""
    _, _, D = scipy.signal.stft(x, SR, nperseg=512)
    phase = np.exp(1j * rng.uniform(0, rng.uniform(0.2, 6.28), D.shape))
    return np.resize(scipy.signal.istft(D * phase, SR, nperseg=512)[1], x.size)


def _half_silent(x: Signal, rng: np.random.Generator) -> Signal:
    return np.where(np.arange(x.size) < x.size * rng.uniform(0.2, 0.8), x, 0)


def _shorter(x: Signal, rng: np.random.Generator) -> Signal:
    return x[: max(int(x.size * rng.uniform(0.4, 1.0)), SR // 2)]


DAMAGES: dict[str, Damage] = {
    "griffin_lim 1": _inverted("griffin_lim", 1, "random"),
    "griffin_lim 10": _inverted("griffin_lim", 10, "random"),
    "griffin_lim 100": _inverted("griffin_lim", 100, "random"),
    "admm 10": _inverted("admm", 10),
    "admm 50": _inverted("admm", 50),
    "ipalm 20": _inverted("ipalm", 20),
    "raar 20": _inverted("raar", 20),
    "auto 20": _inverted("auto", 20),
    "identical": lambda x, _: x,
    "noise": _noise,
    "coloured noise": _coloured_noise,
    "shift": _shift,
    "gain": _gain,
    "low-pass": _low_pass,
    "high-pass": _high_pass,
    "clipped": _clipped,
    "quantised": _quantised,
    "mu-law": _mu_law,
    "gaps": _gaps,
    "bursts": _bursts,
    "variable delay": _variable_delay,
    "drift": _drift,
    "reverberant": _reverberant,
    "scrambled": _scrambled,
    "half silent": _half_silent,
    "shorter": _shorter,
}


if __name__ == "__main__":
    main()
