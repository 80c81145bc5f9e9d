"""Measure batched inversion on a CUDA device: ``python -m benchmarks.gpu [--minutes M]...``.

The speech is synthetic, in utterances of ten seconds. Without CUDA the command says so and exits
with 1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.figure import Figure, table
from melmill.stages.numeric.batched.device import full_precision, placement
from melmill.stages.numeric.batched.inverter import invert_linears
from melmill.stages.numeric.batched.iteration import Start, iterate, iteration
from melmill.stages.numeric.batched.projection import Projection
from melmill.stages.numeric.compiled.inverter import invert_linear
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.mel import mel_spectrogram, to_linear
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import Answer, Problem, Recipe, Solver
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.admm_gla import AdmmGla
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.numeric.solvers.ipalm import Ipalm
from melmill.stages.numeric.solvers.raar import Raar

SPEC = MelSpec()
UTTERANCE_S = 10.0
COPY_BYTES = 2**28

# Bytes a bin that an iteration must move in single precision, if what fits no cache is read and written once: 48 to
# transform back and forth (frames and spectra, 8 each time they are passed on), the rest for the step.
METHODS: Mapping[str, tuple[Solver, int]] = {
    "griffin_lim": (GriffinLim(), 48 + 20),
    "fast griffin_lim": (GriffinLim(momentum=0.99), 48 + 36),
    "admm_gla": (AdmmGla(), 48 + 28),
    "raar": (Raar(), 48 + 36),
    "ipalm": (Ipalm(), 48 + 44),
    "admm": (Admm(), 48 + 40),
}


@click.command()
@click.option(
    "--minutes", multiple=True, type=float, default=(1.0, 5.0, 25.0), help="Speech in a batch; may be repeated."
)
@click.option("--n-iter", default=100, help="Iterations of a whole inversion.")
@click.option("--device", default="cuda", help="Device, as torch names it; 'cpu' shows that the benchmark works.")
def main(minutes: Sequence[float], n_iter: int, device: str) -> None:
    """Print one table: time and memory traffic of each method, and its deviation from the CPU."""
    if device == "cuda" and not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device: nothing was measured")
        sys.exit(1)
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else device}, torch {torch.__version__}", flush=True)
    bandwidth = copy_bandwidth(device)
    figures = [Figure(name="copy bandwidth", measured=bandwidth / 1e9, unit="GB/s")]
    for name, (method, least_bytes) in METHODS.items():
        figures += agreement(name, method, n_iter, device)
        for duration_s in (60 * m for m in minutes):
            figures += speed(name, method, least_bytes, duration_s, n_iter, device, bandwidth)
    print(table(figures))


def copy_bandwidth(device: str) -> float:
    """Return how many bytes a second a large copy reads and writes."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / _seconds(lambda: target.copy_(source), 10, device)


def speed(
    name: str, method: Solver, least_bytes: int, duration_s: float, n_iter: int, device: str, bandwidth: float
) -> list[Figure]:
    """Measure an iteration against the bytes it must move, and whole inversions with transfers."""
    problems = speech(duration_s, Recipe(method=method, n_iter=n_iter, start="random"))
    n_bins = sum(p.linear.shape[1] for p in problems) * SPEC.stft.n_bins
    each = iteration_s(method, [p.length for p in problems], device)
    invert_linears(problems, SPEC, device)  # compiles
    whole = _seconds(lambda: invert_linears(problems, SPEC, device), 1, device)
    what = f"{name}, {duration_s / 60:g} min"
    return [
        Figure(name=f"{what}: an iteration", measured=1e3 * each, unit="ms"),
        Figure(name=f"  as a copy's bytes a bin (least: {least_bytes})", measured=each * bandwidth / n_bins, unit="B"),
        Figure(name=f"  speech inverted in {n_iter} iterations", measured=duration_s / 3600 / whole, unit="h/s"),
    ]


def iteration_s(method: Solver, lengths: Sequence[int], device: str) -> float:
    """Return the time of one iteration on a batch of noise, launched as in a long run, s."""
    place, bank = placement(device, "float32"), bank_of(SPEC)
    projection = Projection(SPEC.stft, lengths, place)

    def run(n_iter: int) -> None:
        Y = torch.rand(*projection.framing.own.shape[:2], SPEC.stft.n_bins, device=place.device)
        M = torch.rand(*Y.shape[:2], SPEC.n_mels, device=place.device)
        X = torch.polar(Y, torch.zeros_like(Y))
        projection.synthesise(X.clone())
        iterate(iteration(method, n_iter, Start(X, projection.analyse(), Y, M), bank, place), projection, place)

    few, many = 2, 22
    with full_precision():
        run(few)  # compiles
        return (_seconds(lambda: run(many), 3, device) - _seconds(lambda: run(few), 3, device)) / (many - few)


def agreement(name: str, method: Solver, n_iter: int, device: str) -> list[Figure]:
    """Compare with the CPU: samples after one iteration, misfit of the mel after all of them."""
    problems = speech(2 * UTTERANCE_S, Recipe(method=method, n_iter=1, start="random", trace=True))
    pairs = list(zip(invert_linears(problems, SPEC, device), _on_cpu(problems), strict=True))
    apart = max(float(np.abs(y - expected).max() / np.abs(expected).max()) for (y, *_), (expected, *_) in pairs)
    longer = speech(2 * UTTERANCE_S, Recipe(method=method, n_iter=n_iter, start="random", trace=True))
    scores = [
        10 * np.log10(misfits[-1] / expected[-1])
        for (_, misfits, _), (_, expected, _) in zip(invert_linears(longer, SPEC, device), _on_cpu(longer), strict=True)
    ]
    return [
        Figure(name=f"{name}: off the CPU engine after 1 iteration", measured=apart, unit="of the peak", goal=1e-3),
        Figure(name=f"  SCM off after {n_iter}", measured=float(np.abs(np.mean(scores))), unit="dB", goal=0.1),
    ]


def speech(duration_s: float, recipe: Recipe) -> list[Problem]:
    """Return mels of synthetic speech, in utterances of `UTTERANCE_S` s or one shorter utterance."""
    n_samples = int(min(duration_s, UTTERANCE_S) * SPEC.sr)
    y = _voice(n_samples)
    linear = to_linear(mel_spectrogram(y, SPEC), SPEC)
    problem = Problem(linear=linear, recipe=recipe, length=n_samples)
    return [problem] * max(1, round(duration_s / UTTERANCE_S))


def _voice(n_samples: int) -> NDArray[np.float32]:
    """Return gliding harmonics in bursts, over faint noise."""
    t = np.arange(n_samples) / SPEC.sr
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * t)) / SPEC.sr
    bursts = np.clip(2 * np.sin(2 * np.pi * 3 * t), 0, 1)
    harmonics = sum(np.sin(k * pitch + k) / k for k in range(1, 30))
    return np.asarray(
        0.1 * bursts * harmonics + 0.003 * np.random.default_rng(0).standard_normal(n_samples), dtype=np.float32
    )


def _on_cpu(problems: Sequence[Problem]) -> list[Answer]:
    return [invert_linear(p.linear, SPEC, p.recipe, p.length) for p in problems]


def _seconds(call: Callable[[], object], repeats: int, device: str) -> float:
    """Return the shortest time of a few calls, s."""
    times = []
    for _ in range(repeats):
        _synchronise(device)
        started = time.perf_counter()
        call()
        _synchronise(device)
        times.append(time.perf_counter() - started)
    return min(times)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
