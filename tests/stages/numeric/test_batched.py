"""The batch engine against the compiled one, utterance by utterance, on torch's CPU device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import melmill
from melmill.stages.invert.inversion import invert_batch, pose
from melmill.stages.numeric.batched import inverter
from melmill.stages.numeric.batched.bands import as_bands
from melmill.stages.numeric.batched.device import batches, in_halves, placement
from melmill.stages.numeric.batched.inverter import invert_linears
from melmill.stages.numeric.batched.iteration import Start, iteration
from melmill.stages.numeric.batched.magnitude import estimate_magnitude
from melmill.stages.numeric.batched.projection import Projection
from melmill.stages.numeric.compiled.inverter import invert_linear
from melmill.stages.numeric.compiled.projection import Projection as CompiledProjection
from melmill.stages.numeric.errors import DeviceMissing, ParameterError
from melmill.stages.numeric.filterbank import bank_of
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec, StftParams
from melmill.stages.numeric.solver import Answer, Problem, Recipe, Solver
from melmill.stages.numeric.solvers.admm import Admm
from melmill.stages.numeric.solvers.admm_gla import AdmmGla
from melmill.stages.numeric.solvers.griffin_lim import GriffinLim
from melmill.stages.numeric.solvers.ipalm import Ipalm
from melmill.stages.numeric.solvers.raar import Raar

Array = NDArray[Any]
SMALL = MelSpec(n_fft=64, win_length=64, hop_length=16, n_mels=10)
METHODS: list[Solver] = [
    Admm(),
    Admm(lam=85.8, schedule="swing"),
    AdmmGla(),
    GriffinLim(),
    GriffinLim(momentum=0.99),
    Ipalm(),
    Raar(),
]
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(autouse=True)
def _needs_its_device(request: pytest.FixtureRequest) -> None:
    on_cuda = "device" in request.fixturenames and request.getfixturevalue("device") == "cuda"
    if on_cuda and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")


def signals(lengths: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return noise whose level changes, of the given lengths; the second signal is silent."""
    rng = np.random.default_rng(0)
    made = [(0.1 * rng.standard_normal(n) * np.sin(np.arange(n) / 90)).astype(np.float32) for n in lengths]
    made[1][:] = 0
    return made


def posed(ys: Sequence[NDArray[np.float32]], spec: MelSpec, recipe: Recipe) -> list[Problem]:
    """Return problems with a seed each."""
    mels = [mel_spectrogram(y, spec) for y in ys]
    return [pose(M, spec, replace(recipe, seed=i), y.size) for i, (M, y) in enumerate(zip(mels, ys, strict=True))]


def one_by_one(problems: Sequence[Problem], spec: MelSpec) -> list[Answer]:
    return [invert_linear(p.linear, spec, p.recipe, p.length) for p in problems]


# Frames of very different number; silence; one frame; a recording shorter than its padding.
LENGTHS = [1000, 950, 333, 1001, 20, 2]


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_iterations_are_the_compiled_engines(method: Solver, power: float, device: str) -> None:
    spec = replace(SMALL, power=power)
    recipe = Recipe(method=method, n_iter=4, start="random", dtype="float64", trace=True)
    problems = posed(signals(LENGTHS), spec, recipe)
    for (y, misfits, _), (expected, energies, _) in zip(
        invert_linears(problems, spec, device), one_by_one(problems, spec), strict=True
    ):
        assert y.dtype == np.float64
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
        np.testing.assert_allclose(misfits, energies, rtol=1e-9)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(replace(SMALL, pad_mode="reflect"), id="reflected"),
        pytest.param(replace(SMALL, center="same"), id="same"),
        pytest.param(replace(SMALL, center="same", pad_mode="reflect"), id="HiFi-GAN"),
        pytest.param(replace(SMALL, hop_length=15), id="hop does not divide n_fft"),
        pytest.param(replace(SMALL, hop_length=15, pad_mode="reflect"), id="nor with reflection"),
        pytest.param(replace(SMALL, n_fft=63, win_length=50, hop_length=13), id="odd n_fft, short window"),
        pytest.param(replace(SMALL, hop_length=1), id="a frame a sample"),
    ],
)
def test_every_framing_is_the_compiled_engines(spec: MelSpec, device: str) -> None:
    recipe = Recipe(method=Admm(), n_iter=3, start="random", dtype="float64")
    problems = posed(signals([n for n in LENGTHS if spec.n_frames(n)]), spec, recipe)
    assert len(problems) >= 5
    for (y, *_), (expected, *_) in zip(invert_linears(problems, spec, device), one_by_one(problems, spec), strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_without_centring_faint_samples_are_silent(device: str) -> None:
    spec = replace(SMALL, center=False)
    recipe = Recipe(method=AdmmGla(), n_iter=3, start="random", dtype="float64")
    problems = posed(signals([1000, 950, 64, 65]), spec, recipe)
    for (y, *_), (expected, *_) in zip(invert_linears(problems, spec, device), one_by_one(problems, spec), strict=True):
        assert y[0] == 0
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(
    "params",
    [
        StftParams(n_fft=16, win_length=16, hop_length=4),
        StftParams(n_fft=15, win_length=11, hop_length=4, pad_mode="reflect"),
        StftParams(n_fft=16, win_length=16, hop_length=4, center=False),
    ],
    ids=["centred", "odd and reflected", "not centred"],
)
def test_projection_is_each_utterances_own(params: StftParams) -> None:
    rng = np.random.default_rng(0)
    lengths = [301, 100, 17]
    batch = Projection(params, lengths, placement("cpu", "float64"))
    shape = (len(lengths), params.n_frames(max(lengths)), params.n_bins)
    X = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    own = np.arange(shape[1]) < np.array([[params.n_frames(n)] for n in lengths])
    batch.synthesise(torch.from_numpy(X * own[..., None]))
    for Z, one, mask, n in zip(batch.analyse().numpy(), X, own, lengths, strict=True):
        expected = CompiledProjection(params, n, "float64")(one[mask].T)
        np.testing.assert_allclose(Z[mask].T, expected, atol=1e-12)
        assert not Z[~mask].any()


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_single_precision_agrees_for_an_iteration(method: Solver, device: str, voice: NDArray[np.float32]) -> None:
    spec = MelSpec()
    problems = posed([voice, voice[:5000], voice[3000:9000]], spec, Recipe(method=method, n_iter=1, start="pghi"))
    for (y, *_), (expected, *_) in zip(invert_linears(problems, spec, device), one_by_one(problems, spec), strict=True):
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize(
    ("start", "dtype", "tolerance_db"),
    [
        ("random", "float32", 0.1),
        ("zero", "float32", 0.1),
        # A hundred iterations make much of roundings. The compiled engine's own score moves by
        # tenths of a dB where its mel moves by 1e-7.
        ("pghi", "float32", 1.0),
        ("pghi", "float64", 1e-3),
    ],
)
def test_scores_agree_after_many_iterations(
    start: str, dtype: Any, tolerance_db: float, device: str, voice: NDArray[np.float32]
) -> None:
    recipe = Recipe(method=Admm(), n_iter=100, start=start, trace=True, dtype=dtype)
    problems = posed([voice, 0 * voice, voice[3000:13000]], MelSpec(), recipe)
    del problems[1]
    for (_, misfits, _), (_, expected, _) in zip(
        invert_linears(problems, MelSpec(), device), one_by_one(problems, MelSpec()), strict=True
    ):
        assert len(misfits) == 101
        assert 10 * np.log10(misfits[-1] / expected[-1]) == pytest.approx(0, abs=tolerance_db)


@pytest.mark.parametrize("how", ["nnls", "pinv"])
def test_magnitudes_are_the_compiled_engines(how: Any) -> None:
    spec = replace(SMALL, power=2.0)
    recipe = Recipe(method=None, n_iter=0, start="zero", magnitude=how, dtype="float64")
    problems = posed(signals(LENGTHS), spec, recipe)
    for (y, *_), (expected, *_) in zip(invert_linears(problems, spec, "cpu"), one_by_one(problems, spec), strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_a_dense_bank_is_as_good_as_a_sparse_one() -> None:
    rng = np.random.default_rng(0)
    E = rng.random((6, 17)) * (rng.random((6, 17)) < 0.4)
    E[:, 3], E[:, 4] = 0, 1
    bands, Y, r = as_bands(E, placement("cpu", "float64")), rng.random((2, 3, 17)), rng.random((2, 3, 6))
    np.testing.assert_allclose(bands.mel(torch.from_numpy(Y)), Y @ E.T, atol=1e-14)
    np.testing.assert_allclose(bands.spread(torch.from_numpy(r)), r @ E, atol=1e-14)


def test_a_waveform_gives_the_start() -> None:
    ys = signals(LENGTHS[:4])
    problems = [
        replace(p, recipe=replace(p.recipe, start=y[::-1].copy()))
        for p, y in zip(posed(ys, SMALL, Recipe(method=Raar(), n_iter=2, dtype="float64")), ys, strict=True)
    ]
    answers = zip(invert_linears(problems, SMALL, "cpu"), one_by_one(problems, SMALL), strict=True)
    for (y, *_), (expected, *_) in answers:
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_results_do_not_depend_on_the_batches() -> None:
    problems = posed(signals(LENGTHS), SMALL, Recipe(method=Admm(), n_iter=5, dtype="float64"))
    together, apart = (invert_linears(problems, SMALL, "cpu", memory_bytes=room) for room in (2**30, 1))
    for (y, *_), (alone, *_) in zip(together, apart, strict=True):
        np.testing.assert_allclose(y, alone, rtol=0, atol=1e-12)


def test_same_problems_give_the_same_bytes() -> None:
    problems = posed(signals(LENGTHS), SMALL, Recipe(method=Ipalm(), n_iter=5))
    first, again = (
        [y.tobytes() for y, *_ in invert_linears(problems, SMALL, "cpu", memory_bytes=300_000)] for _ in range(2)
    )
    assert first == again


def test_nothing_gives_nothing() -> None:
    assert invert_linears([], SMALL, "cpu") == []


def test_recipes_of_one_call_are_one() -> None:
    one, other = posed(signals([500, 500]), SMALL, Recipe(method=Admm()))
    with pytest.raises(ValueError, match="may differ in start and seed alone"):
        invert_linears([one, replace(other, recipe=Recipe(method=Raar()))], SMALL, "cpu")


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_what_is_kept_for_a_bin_is_little(method: Solver) -> None:
    spec, place = MelSpec(), placement("cpu", "float32")
    projection = Projection(spec.stft, [40000] * 3, place)
    n_frames, bank = spec.n_frames(40000), bank_of(spec)
    M = torch.rand(3, n_frames, spec.n_mels)
    Y = estimate_magnitude(M, bank, "nnls", place)
    X = torch.polar(Y, torch.zeros_like(Y))
    projection.synthesise(X.clone())
    made = iteration(method, 3, Start(X, projection.analyse(), Y, M), bank, place)
    kept = [*made.state, *(part for part in made.rest if isinstance(part, torch.Tensor)), projection.signal]
    size = sum(part.nbytes for part in [*kept, *(f for f in projection.framing if isinstance(f, torch.Tensor))])
    spectrum_and_frames = 8 + 4 * spec.n_fft / spec.stft.n_bins
    bins = 3 * n_frames * spec.stft.n_bins
    assert size / bins + spectrum_and_frames <= 48


def test_batches_are_alike_and_fit() -> None:
    rng = np.random.default_rng(0)
    n_frames = [int(n) for n in rng.integers(1, 2000, size=300)]
    made = batches(n_frames, 8000)
    assert sorted(index for batch in made for index in batch) == list(range(300))
    for batch in made:
        frames = [n_frames[index] for index in batch]
        assert frames == sorted(frames, reverse=True)
        assert frames[-1] >= 0.75 * frames[0]
        assert len(batch) * frames[0] <= 8000
    assert len(made) < 120
    assert batches([50], 10) == [[0]]


def test_a_batch_that_memory_does_not_hold_is_halved() -> None:
    tried = []

    def work(batch: Sequence[int]) -> list[int]:
        tried.append(list(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("too much")
        return [10 * index for index in batch]

    assert in_halves(work, range(5)) == [0, 10, 20, 30, 40]
    assert tried == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2], [3, 4]]


def test_an_utterance_that_memory_does_not_hold_is_an_error() -> None:
    def work(batch: Sequence[int]) -> list[int]:
        raise torch.cuda.OutOfMemoryError("too much")

    with pytest.raises(torch.cuda.OutOfMemoryError, match="too much"):
        in_halves(work, [0, 1])


def test_halves_give_what_the_whole_gives() -> None:
    """Iterations on a half of what was started are those on the half's utterances."""
    problems = posed(signals(LENGTHS), SMALL, Recipe(method=Admm(), n_iter=3, dtype="float64"))
    problems.sort(key=lambda p: -p.length)
    place = placement("cpu", "float64")
    with ThreadPoolExecutor(1) as pool:
        work = inverter._Work(problems, SMALL, problems[0].recipe, place, pool)
        (started,) = work._started(range(len(problems)))
        halves = [*work._finished(started, range(2)), *work._finished(started, range(2, 6))]
        whole = work._finished(started, range(6))
    for (y, *_), (expected, *_) in zip(halves, whole, strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


def test_padded_input_is_cut_to_its_own_frames(voice: NDArray[np.float32]) -> None:
    spec, lengths = MelSpec(), [4000, 2500]
    mels = np.full((2, 80, 16), np.nan, dtype=np.float32)
    for M, n in zip(mels, lengths, strict=True):
        M[:, : spec.n_frames(n)] = mel_spectrogram(voice[:n], spec)
    together = invert_batch(mels, spec, n_iter=3, lengths=lengths)
    for y, n in zip(together, lengths, strict=True):
        alone = melmill.invert(mel_spectrogram(voice[:n], spec), spec, n_iter=3, length=n)
        assert y.tobytes() == alone.tobytes()


@pytest.mark.gpu
def test_batches_on_cuda_are_inverted_alike(voice: NDArray[np.float32]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    mels = [mel_spectrogram(voice[:n], MelSpec()) for n in (16000, 9000)]
    for y, expected in zip(
        invert_batch(mels, MelSpec(), n_iter=1, device="cuda"), invert_batch(mels, MelSpec(), n_iter=1), strict=True
    ):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"device": "gpu"}, "device must be 'cpu' or 'cuda', got 'gpu'"),
        ({"lengths": [512]}, "lengths must have one entry for each of 2 mels, got 1"),
        ({"start": [np.zeros(512)]}, "start must have one entry for each of 2 mels, got 1"),
    ],
)
def test_wrong_parameters_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        invert_batch([np.ones((80, 3))] * 2, MelSpec(), **keywords)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named() -> None:
    with pytest.raises(
        DeviceMissing, match=r"device 'cuda' needs a CUDA device, and torch .* finds none .*: use 'cpu'"
    ):
        invert_batch([np.ones((80, 3))], MelSpec(), device="cuda")
