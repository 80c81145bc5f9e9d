"""Whole inversions: what they reach, from which mels, and what they refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.stages.invert.inversion import invert_batch, shortest_length, solve
from melmill.stages.numeric.errors import ContractError, ParameterError, Unusable
from melmill.stages.numeric.filterbank import mel_bank
from melmill.stages.numeric.mel import magnitude_spec, mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.solver import Recipe, Solver
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.numeric.solvers.ipalm import Ipalm
from melmill.stages.numeric.stft import Stft
from tests.priors import random_prior

Float32 = NDArray[np.float32]
PAPER = MelSpec()
METHODS = ["admm", "admm_gla", "auto", "griffin_lim", "ipalm", "raar"]


def scm_db(y: Float32, x: Float32, spec: MelSpec = PAPER) -> float:
    """Return eq. 21 in float64, on the linear mel of the spec."""

    def mel(y: Float32) -> NDArray[np.float64]:
        D = Stft(spec.stft, np.float64).forward(y)
        return np.asarray(np.abs(D) ** spec.power @ mel_bank(spec).T.astype(np.float64))

    return float(20 * np.log10(np.linalg.norm(mel(y) - mel(x)) / np.linalg.norm(mel(x))))


@pytest.mark.parametrize(
    ("method", "start"), [(method, start) for method in METHODS for start in ("random", "zero")] + [("admm", "pghi")]
)
def test_every_method_improves_on_its_start(method: str, start: str, voice: Float32) -> None:
    M = mel_spectrogram(voice, PAPER)
    at_start = scm_db(melmill.invert(M, PAPER, method=method, n_iter=0, start=start, length=voice.size), voice)
    assert (
        scm_db(melmill.invert(M, PAPER, method=method, n_iter=50, start=start, length=voice.size), voice) < at_start - 9
    )


def test_ipalm_reduces_the_misfit_steadily(voice: Float32) -> None:
    every_tenth = _scm_trace(Ipalm(), 60, voice)[::10]
    assert (np.diff(every_tenth[1:]) < 0).all()
    assert every_tenth[-1] < every_tenth[0] - 10


def test_admm_reduces_the_misfit_though_not_steadily(voice: Float32) -> None:
    trace = _scm_trace(Admm(), 200, voice)
    # On a nonconvex problem its objective may rise for a while.
    assert trace[50:].max() < trace[0] - 5
    assert trace[-1] < trace[0] - 20


def _scm_trace(method: Solver, n_iter: int, y: Float32) -> NDArray[Any]:
    recipe = Recipe(method=method, n_iter=n_iter, start="random", trace=True)
    trace = solve(mel_spectrogram(y, PAPER), PAPER, recipe, y.size).trace
    assert trace is not None
    return trace["scm_db"]


def test_joint_methods_beat_those_on_a_fixed_magnitude(voice: Float32) -> None:
    M = mel_spectrogram(voice, PAPER)
    reached = {
        m: scm_db(melmill.invert(M, PAPER, method=m, n_iter=100, start="zero", length=voice.size), voice)
        for m in METHODS
    }
    assert sorted(reached, key=reached.__getitem__)[:3] == ["auto", "admm", "ipalm"]


def test_quality_costs_iterations(voice: Float32) -> None:
    M = mel_spectrogram(voice, PAPER)
    draft, good, best = (
        scm_db(melmill.invert(M, PAPER, quality=quality, length=voice.size), voice)
        for quality in ("draft", "good", "best")
    )
    assert draft > good + 2 > best + 4
    # A prior takes the place of some iterations.
    choices: dict[Literal["auto", "none"], int] = {"none": 50, "auto": 42}
    for prior, n_iter in choices.items():
        again = melmill.invert(M, PAPER, n_iter=n_iter, prior=prior, length=voice.size)
        assert again.tobytes() == melmill.invert(M, PAPER, quality="good", prior=prior, length=voice.size).tobytes()


def test_double_precision_is_the_reference(voice: Float32) -> None:
    M = mel_spectrogram(voice, PAPER)
    for method in (Admm(), Ipalm(), GriffinLim(momentum=0.9)):
        single, double = (
            solve(M, PAPER, Recipe(method=method, n_iter=1, start="random", dtype=dtype), voice.size).y
            for dtype in ("float32", "float64")
        )
        assert double.dtype == np.float64
        assert np.linalg.norm(single - double) < 1e-5 * np.linalg.norm(double)


def test_integrated_phase_saves_iterations(voice: Float32) -> None:
    M = mel_spectrogram(voice, PAPER)
    assert scm_db(melmill.invert(M, PAPER, n_iter=50, length=voice.size), voice) < scm_db(
        melmill.invert(M, PAPER, n_iter=50, start="random", length=voice.size), voice
    )


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(replace(PAPER, log="ln", floor=1e-5), id="ln"),
        pytest.param(replace(PAPER, log="db", floor=1e-6, shift=80.0, scale=0.01), id="dB, shifted and scaled"),
        pytest.param(replace(PAPER, power=2.0), id="power"),
        pytest.param(replace(PAPER, power=2.0, log="log10", floor=1e-10), id="log power"),
        pytest.param(replace(PAPER, norm=None), id="peaks of 1"),
        pytest.param(replace(PAPER, normalized=True), id="normalised window"),
        pytest.param(replace(PAPER, center="same", pad_mode="reflect", log="ln", floor=1e-5), id="HiFi-GAN framing"),
        pytest.param(replace(PAPER, center=False), id="not centred"),
        pytest.param(replace(PAPER, hop_length=300, win_length=1000), id="hop does not divide n_fft"),
    ],
)
def test_every_kind_of_mel_is_inverted(spec: MelSpec, voice: Float32) -> None:
    y = melmill.invert(mel_spectrogram(voice, spec), spec, method="admm", n_iter=60, length=voice.size)
    assert y.dtype == np.float32
    assert y.shape == voice.shape
    assert scm_db(y, voice, magnitude_spec(spec)) < -24


def test_lam_does_not_depend_on_the_banks_scale(voice: Float32) -> None:
    """Bands of peak 1 weigh wide bands more, but the same lam suits them."""
    for_area, for_peak = (
        scm_db(melmill.invert(mel_spectrogram(voice, spec), spec, n_iter=60, length=voice.size), voice)
        for spec in (PAPER, replace(PAPER, norm=None))
    )
    assert for_peak == pytest.approx(for_area, abs=2.5)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_trace_measures_every_iteration(power: float, voice: Float32) -> None:
    spec = replace(PAPER, power=power)
    M = mel_spectrogram(voice, spec)
    result = solve(M, spec, Recipe(method=Admm(), n_iter=7, trace=True), voice.size)
    assert result.trace is not None
    assert result.trace["iteration"].tolist() == list(range(8))
    shorter = [melmill.invert(M, spec, method="admm", n_iter=n, length=voice.size) for n in (1, 7)]
    expected = [scm_db(y, voice, spec) for y in shorter]
    np.testing.assert_allclose(result.trace["scm_db"][[1, 7]], expected, atol=0.01)


def test_a_waveforms_own_phase_is_the_best_start(voice: Float32) -> None:
    M = mel_spectrogram(voice, PAPER)
    y = melmill.invert(M, PAPER, n_iter=60, start=voice, length=voice.size)
    assert scm_db(y, voice) < scm_db(melmill.invert(M, PAPER, n_iter=60, length=voice.size), voice) - 5
    longer = np.pad(voice, (0, 100))
    assert melmill.invert(M, PAPER, n_iter=60, start=longer, length=voice.size).tobytes() == y.tobytes()


def test_bytes_depend_on_mel_and_seed_alone(voice: Float32) -> None:
    M = mel_spectrogram(voice, PAPER)
    first, again, other = (
        melmill.invert(M, PAPER, n_iter=3, start="random", seed=seed).tobytes() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("method", [*METHODS, "pghi"])
@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
def test_silence_gives_silence(method: str, pad_mode: Any) -> None:
    y = melmill.invert(np.zeros((80, 20)), replace(PAPER, pad_mode=pad_mode), method=method, n_iter=5)
    assert y.tobytes() == np.zeros(19 * 256, dtype=np.float32).tobytes()


@pytest.mark.parametrize("method", [*METHODS, "pghi"])
@pytest.mark.parametrize("n_samples", [1, 200])
def test_one_frame_is_inverted(method: str, n_samples: int) -> None:
    y = melmill.invert(np.ones((80, 1)), PAPER, method=method, n_iter=5, length=n_samples)
    assert y.shape == (n_samples,)
    assert np.isfinite(y).all()
    assert y.any()


@pytest.mark.parametrize("method", METHODS)
def test_bytes_do_not_depend_on_threads(method: str, voice: Float32) -> None:
    mels = [mel_spectrogram(y, PAPER) for y in (voice, voice[:9000], voice[3000:])]

    def inverted(M: Float32) -> bytes:
        return melmill.invert(M, PAPER, method=method, n_iter=12, start="random").tobytes()

    alone = [inverted(M) for M in mels]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(inverted, mels)) == alone


@pytest.mark.slow
def test_bytes_do_not_depend_on_registers_and_kernels_of_the_cpu(tmp_path: Path) -> None:
    prior = tmp_path / "p.safetensors"
    prior.write_bytes(random_prior(PAPER).encoded())
    code = f"""
import numpy as np, melmill
y = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
M = melmill.mel(y)
print(M.tobytes().hex(), melmill.invert(M, method="admm", n_iter=5).tobytes().hex())
print(melmill.invert(M, prior={str(prior)!r}, n_iter=2).tobytes().hex())
"""
    # Another CPU, as far as one can play it: no vectors in compiled code, no AVX-512 in numpy, old
    # kernels in OpenBLAS.
    plain = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL",
        "OPENBLAS_CORETYPE": "Prescott",
    }
    answers = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, check=True, capture_output=True).stdout
        for env in ({}, plain)
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_an_hour_is_inverted_whole(voice: Float32) -> None:
    y = np.tile(voice, 3600)
    M = mel_spectrogram(y, PAPER)
    estimate = melmill.invert(M, PAPER, method="admm", n_iter=2, magnitude="pinv", length=y.size)
    second = slice(1800 * 16000, 1801 * 16000)
    assert np.isfinite(estimate).all()
    assert estimate.size == y.size
    # Every second is inverted as any other: integration in segments begins anew.
    here = scm_db(estimate[second], y[second])
    assert here < -10
    assert scm_db(estimate[-16000:], y[-16000:]) == pytest.approx(here, abs=1.5)


def test_trace_of_silence_is_undefined() -> None:
    trace = solve(np.zeros((80, 4)), PAPER, Recipe(method=Admm(), n_iter=1, trace=True)).trace
    assert trace is not None
    assert np.isnan(trace["scm_db"]).all()


@pytest.mark.parametrize(
    ("spec", "n_frames"),
    [(PAPER, 1), (PAPER, 9), (replace(PAPER, center="same"), 1), (replace(PAPER, center=False), 5)],
)
def test_default_length_gives_the_frames(spec: MelSpec, n_frames: int) -> None:
    assert spec.n_frames(shortest_length(spec, n_frames)) == n_frames
    assert melmill.invert(np.zeros((80, n_frames)), spec, n_iter=1).size == shortest_length(spec, n_frames)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"method": "admn"}, "method must be one of .*got 'admn'; did you mean 'admm'"),
        ({"method": "admm", "momentum": 0.9}, "momentum is no parameter of 'admm', which has lam, rho, schedule"),
        ({"rho": 0.1}, "rho is no parameter of 'auto', which has quality"),
        ({"quality": "fine"}, "quality must be one of 'draft', 'good', 'best', got 'fine'"),
        ({"method": "pghi", "rho": 0.9}, "rho is no parameter of 'pghi'"),
        ({"start": "speech"}, "start must be one of random, zero, pghi or a waveform, got 'speech'"),
        ({"magnitude": "ls"}, "magnitude must be 'nnls' or 'pinv', got 'ls'"),
        ({"n_iter": -1}, "n_iter must not be negative, got -1"),
    ],
)
def test_wrong_parameters_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        melmill.invert(np.ones((80, 3)), PAPER, **keywords)


def test_wrong_mels_are_refused() -> None:
    M = np.ones((80, 3))
    with pytest.raises(Unusable, match="the mel has 3 frames but 4000 samples have 16 at hop_length=256"):
        melmill.invert(M, PAPER, length=4000)
    with pytest.raises(Unusable, match="the starting waveform has 10 samples, the result 512"):
        melmill.invert(M, PAPER, start=np.zeros(10, dtype=np.float32))
    with pytest.raises(Unusable, match="512 samples of the starting waveform are not finite"):
        melmill.invert(M, PAPER, start=np.full(512, np.inf, dtype=np.float32))
    with pytest.raises(ContractError, match="n_mels=80"):
        melmill.invert(M.T, PAPER)
    with pytest.raises(Unusable, match="1 mel values are not finite"):
        melmill.invert(np.where(np.arange(3) == 1, np.where(np.arange(80) == 4, np.nan, 1)[:, np.newaxis], 1), PAPER)
    with pytest.raises(Unusable, match="no frames"):
        melmill.invert(np.ones((80, 0)), PAPER)


@pytest.mark.real
def test_speech_reaches_the_published_order(real_data: Path) -> None:
    """Means over these files in dB: iPALM 100 -27.7, ADMM 100 -31.8, from PGHI's phase -34.9."""
    import soundfile

    folder = real_data / "corpora" / "LibriSpeech" / "test-other"
    paths = sorted(folder.glob("*/*/*-0003.flac"), key=os.path.getsize)[:3]
    speech = [soundfile.read(path, dtype="float32")[0] for path in paths]
    reached = {}
    for name, method, start in (("ipalm", "ipalm", "random"), ("admm", "admm", "random"), ("pghi", "admm", "pghi")):
        reached[name] = np.mean(
            [
                scm_db(
                    melmill.invert(
                        mel_spectrogram(y, PAPER), PAPER, method=method, n_iter=100, start=start, length=y.size
                    ),
                    y,
                )
                for y in speech
            ]
        )
    assert reached["pghi"] < -33 < reached["admm"] < -29 < reached["ipalm"] < -25


def test_a_mel_that_was_made_otherwise_is_refused() -> None:
    spec = replace(PAPER, log="ln", floor=1e-5)
    M = np.random.default_rng(0).uniform(-11.5, 1.0, (80, 20))
    assert melmill.invert(M, spec, n_iter=1).size
    message = r"no mel of its spec: .*; its values are -99\.\d+ to 8\.\d+, .* they look like log: db"
    with pytest.raises(Unusable, match=f"^{message}"):
        melmill.invert(8.686 * M, spec, n_iter=1)
    with pytest.raises(Unusable, match=rf"^mels\[1\]: {message}"):
        invert_batch([M, 8.686 * M], spec, n_iter=1)
