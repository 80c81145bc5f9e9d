"""The parts of the inversion benchmark that measure time and memory."""

from __future__ import annotations

import importlib.util
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

import melmill
from benchmarks.corpora import SR, speech
from benchmarks.figure import Figure
from benchmarks.timing import in_turns
from melmill.stages.invert.inversion import solve
from melmill.stages.numeric.compiled.magnitude import estimate_magnitude
from melmill.stages.numeric.compiled.phase import pghi, random_phase, segments, spread
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.lanes.sweep import to_lanes
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import Recipe, Solver
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.admm_gla import AdmmGla
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.numeric.solvers.ipalm import Ipalm
from melmill.stages.numeric.solvers.raar import Raar

SPEC = MelSpec()
DURATION_S = 11.66
REPEATS = 5
METHODS: Mapping[str, Solver] = {
    "griffin_lim": GriffinLim(),
    "fast griffin_lim": GriffinLim(momentum=0.99),
    "admm_gla": AdmmGla(),
    "raar": Raar(),
    "ipalm": Ipalm(),
    "admm": Admm(),
}
GOALS = {"griffin_lim": 2.0, "fast griffin_lim": 2.0, "admm": 3.0}


@dataclass(frozen=True, kw_only=True)
class Speech:
    """A stretch of speech.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        At 16 kHz.
    name : str
    root : Path
        Of the corpus.
    """

    y: NDArray[np.float32]
    name: str
    root: Path

    @classmethod
    def at_hand(cls) -> Speech:
        """Return the first utterances of a corpus, joined."""
        folder = Path(tempfile.mkdtemp(prefix="melmill-benchmark-"))
        root, name = speech(folder)
        n, parts = round(DURATION_S * SR), list[NDArray[np.float32]]()
        for file in sorted(root.rglob("*.flac")):
            if sum(part.size for part in parts) < n:
                parts.append(soundfile.read(file, dtype="float32")[0])
        return cls(y=np.concatenate(parts)[:n], name=name, root=root)

    @property
    def duration_s(self) -> float:
        """Duration, s."""
        return self.y.size / SR

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return SPEC.n_frames(self.y.size)

    @property
    def mel(self) -> NDArray[np.float32]:
        """Mel spectrogram of the speech."""
        return melmill.mel(self.y, SPEC)


def iterations(speech: Speech) -> list[Figure]:
    """Time of an iteration, as a multiple of the time of its FFTs by the fastest library."""
    frames = torch.randn(speech.n_frames, SPEC.n_fft)
    rows = frames.numpy()
    M, few, many = speech.mel, 10, 110

    def run(method: Solver, n_iter: int) -> Callable[[], object]:
        recipe = Recipe(method=method, n_iter=n_iter, start="random", magnitude="pinv")
        return lambda: solve(M, SPEC, recipe, speech.y.size)

    contenders: dict[str, Callable[[], object]] = {
        "torch (MKL or pocketfft), all at once": lambda: torch.fft.irfft(torch.fft.rfft(frames)),
        "torch, in blocks that stay in cache": _torch_blocks(frames),
        "numpy's pocketfft": lambda: np.fft.irfft(np.fft.rfft(rows)),
        **_fftw(rows),
        "ours alone": _our_ffts(speech.n_frames),
        **{f"{name} {n}": run(method, n) for name, method in METHODS.items() for n in (few, many)},
    }
    taken = in_turns(contenders, 3 * REPEATS)
    floor = min(taken[name] for name in contenders if name.split()[-1] not in (str(few), str(many), "alone"))
    found = [
        Figure(name=f"FFTs of {speech.n_frames} frames, {name}", measured=1e3 * taken[name], unit="ms")
        for name in contenders
        if name.split()[-1] not in (str(few), str(many))
    ]
    for name in METHODS:
        one = (taken[f"{name} {many}"] - taken[f"{name} {few}"]) / (many - few)
        found += [
            Figure(name=f"{name}, an iteration", measured=1e3 * one, unit="ms"),
            Figure(name="  over the floor", measured=one / floor, unit="x", goal=GOALS.get(name)),
        ]
    return found


def _torch_blocks(frames: torch.Tensor) -> Callable[[], object]:
    blocks = frames.split(64)
    spectra = [torch.fft.rfft(block) for block in blocks]
    back = [torch.empty_like(block) for block in blocks]

    def run() -> None:
        for block, spectrum, frame in zip(blocks, spectra, back, strict=True):
            torch.fft.rfft(block, out=spectrum)
            torch.fft.irfft(spectrum, out=frame)

    return run


def _fftw(frames: NDArray[np.float32]) -> dict[str, Callable[[], object]]:
    if importlib.util.find_spec("pyfftw") is None:
        return {}
    import pyfftw

    there = pyfftw.builders.rfft(frames, threads=1, planner_effort="FFTW_MEASURE")
    back = pyfftw.builders.irfft(there(), threads=1, planner_effort="FFTW_MEASURE")
    return {"FFTW": lambda: back(there(frames))}


def _our_ffts(n_frames: int) -> Callable[[], object]:
    from melmill.stages.numeric.compiled.projection import Projection
    from melmill.stages.numeric.lanes.fourier import forward, inverse

    projection = Projection(SPEC.stft, n_frames * SPEC.hop_length)
    s = projection.sweep

    def run() -> None:
        for _ in range(projection.shape[0]):
            forward(s.work, s.Z, s.fourier)
            inverse(s.Z, s.work, s.fourier)

    return run


def starts(speech: Speech) -> list[Figure]:
    """Time of the work before the first iteration, and time of PGHI in iterations."""
    bank, M = bank_of(SPEC), speech.mel
    lanes = to_lanes(np.asarray(M / bank.norm, dtype=np.float32))
    Y, n = estimate_magnitude(lanes, bank, "nnls"), speech.n_frames

    def admm(n_iter: int) -> Callable[[], object]:
        recipe = Recipe(method=Admm(), n_iter=n_iter, start="random", magnitude="pinv")
        return lambda: solve(M, SPEC, recipe, speech.y.size)

    taken = in_turns(
        {
            "NNLS": lambda: estimate_magnitude(lanes, bank, "nnls"),
            "clipped pseudo-inverse": lambda: estimate_magnitude(lanes, bank, "pinv"),
            "random phase": lambda: random_phase(n, SPEC.stft.n_bins, 0),
            "PGHI": lambda: pghi(Y, n, SPEC.stft, 0),
            "PGHI's heap alone": _heap(Y, n),
            "few": admm(10),
            "many": admm(60),
        },
        3 * REPEATS,
    )
    one = (taken.pop("many") - taken.pop("few")) / 50
    return [
        *(Figure(name=f"start: {name}", measured=1e3 * seconds, unit="ms") for name, seconds in taken.items()),
        Figure(name="  PGHI in ADMM iterations", measured=taken["PGHI"] / one, unit="iterations"),
        Figure(name="  its heap", measured=taken["PGHI's heap alone"] / one, unit="iterations", goal=10),
    ]


def _heap(Y: NDArray[np.float32], n_frames: int) -> Callable[[], object]:
    """Integrate as `pghi` does, from given log magnitudes."""
    parts, phase = list(segments(Y, n_frames)), np.empty_like(Y)

    def run() -> None:
        for part in parts:
            spread(part, SPEC.stft, phase)

    return run


def whole(speech: Speech) -> list[Figure]:
    """Whole inversions, without a prior, against the defaults of other libraries."""
    import librosa

    M, n = speech.mel, speech.y.size

    def ours(**how: Any) -> Callable[[], object]:  # noqa: ANN401
        return lambda: melmill.invert(M, SPEC, length=n, **how)

    stft = {"n_fft": SPEC.n_fft, "hop_length": SPEC.hop_length}
    contenders = {
        "griffin_lim 32": ours(method="griffin_lim", n_iter=32, start="random"),
        "admm 500": ours(method="admm", n_iter=500),
        "invert, draft": ours(quality="draft", prior="none"),
        "invert, good": ours(quality="good", prior="none"),
        "librosa mel_to_audio 32": lambda: librosa.feature.inverse.mel_to_audio(M, sr=SR, power=1, length=n, **stft),
        **_torchaudio_inversion(M),
    }
    taken = in_turns(contenders, REPEATS)
    librosa_s = taken["librosa mel_to_audio 32"]
    found = [Figure(name=name, measured=1e3 * seconds, unit="ms") for name, seconds in taken.items()]
    found += [
        _times("librosa's mel_to_audio over griffin_lim 32", librosa_s / taken["griffin_lim 32"], 20),
        _times("librosa's mel_to_audio over admm 500", librosa_s / taken["admm 500"], 1),
        _times("librosa's mel_to_audio over invert, draft", librosa_s / taken["invert, draft"], 15),
    ]
    if "torchaudio GriffinLim 32" in taken:
        ratio = taken["torchaudio GriffinLim 32"] / taken["griffin_lim 32"]
        found.append(_times("torchaudio's GriffinLim over griffin_lim 32", ratio, 10))
    return found


def _times(name: str, ratio: float, goal: float | None) -> Figure:
    return Figure(name=name, measured=ratio, unit="x", goal=goal, at_least=True)


def _torchaudio_inversion(M: NDArray[np.float32]) -> dict[str, Callable[[], object]]:
    if importlib.util.find_spec("torchaudio") is None:
        return {}
    from torchaudio.transforms import GriffinLim, InverseMelScale

    bank = InverseMelScale(SPEC.stft.n_bins, SPEC.n_mels, SR, norm="slaney", mel_scale="slaney")
    lim = GriffinLim(n_fft=SPEC.n_fft, hop_length=SPEC.hop_length, n_iter=32, power=1)
    return {"torchaudio GriffinLim 32": lambda: lim(bank(torch.from_numpy(M)))}


def extraction(speech: Speech) -> list[Figure]:
    """Mel extraction from PCM."""
    import librosa

    pcm = np.rint(speech.y * 32767).astype(np.int16)
    stft = {"n_fft": SPEC.n_fft, "hop_length": SPEC.hop_length}
    contenders: dict[str, Callable[[], object]] = {
        "melmill": lambda: melmill.mel(pcm, SPEC),
        "librosa": lambda: librosa.feature.melspectrogram(y=speech.y, sr=SR, power=1, **stft),
    }
    if importlib.util.find_spec("torchaudio") is not None:
        from torchaudio.transforms import MelSpectrogram

        transform = MelSpectrogram(SR, power=1, n_mels=80, norm="slaney", mel_scale="slaney", **stft)
        contenders["torchaudio"] = lambda: transform(torch.from_numpy(speech.y))
    taken = in_turns(contenders, 4 * REPEATS)
    ours = taken.pop("melmill")
    return [
        _times("mel extraction from PCM, of real time", speech.duration_s / ours, 1500),
        *(_times(f"  {name}'s time over ours", seconds / ours, 1) for name, seconds in taken.items()),
    ]


def threads(speech: Speech) -> list[Figure]:
    """Two utterances on two threads of one process, against one after the other."""
    M, n = speech.mel, speech.y.size

    def run() -> None:
        melmill.invert(M, SPEC, length=n, method="admm", n_iter=300)

    def together() -> None:
        both = [threading.Thread(target=run) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()

    taken = in_turns({"one": run, "two": together}, REPEATS)
    return [_times("two threads over one, utterances an hour", 2 * taken["one"] / taken["two"], 1.8)]


def memory(speech: Speech) -> list[Figure]:
    """Memory of an inversion, all arrays counted, as a multiple of its number of bins."""
    M, bins, found = speech.mel, speech.n_frames * SPEC.stft.n_bins, []
    for name, method in METHODS.items():
        solve(M, SPEC, Recipe(method=method, n_iter=1), speech.y.size)
        tracemalloc.start()
        solve(M, SPEC, Recipe(method=method, n_iter=1), speech.y.size)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        found.append(Figure(name=f"{name}, peak memory", measured=peak / bins, unit="bytes a bin", goal=48))
    return found


SPEED: Mapping[str, Callable[[Speech], list[Figure]]] = {
    "iterations": iterations,
    "starts": starts,
    "whole": whole,
    "extraction": extraction,
    "threads": threads,
    "memory": memory,
}
