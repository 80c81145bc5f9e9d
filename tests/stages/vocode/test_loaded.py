"""What a loaded vocoder takes and gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from melmill.stages.numeric.errors import MelRangeWarning, ParameterError, Unusable
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.basic import Ends, inside, silenced
from melmill.stages.vocode.loaded import LoadedVocoder, load
from melmill.stages.vocode.network import Noise, Vocoder
from melmill.stages.vocode.registry import family, family_names
from tests.stages.vocode.families.test_hifigan import CONFIG, STATE
from tests.stages.vocode.tiny import checkpoint, mel

HIFIGAN = checkpoint({"generator": STATE}, config=CONFIG)


class Noisy(Vocoder):
    """Gives the first band of the mel plus the noise, a sample a frame."""

    family: ClassVar[str] = "noisy"
    spec = MelSpec(n_mels=2, hop_length=1, win_length=4, n_fft=4)

    def n_samples(self, n_frames: int) -> int:
        return n_frames

    def noise(self, n_frames: int, generator: torch.Generator) -> Noise:
        return (torch.randn(1, n_frames, generator=generator), torch.randn(n_frames, generator=generator))

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        first, second = noise
        return mel[:, 0] + first[:, 0] + 10 * second


ANYTHING: list[Any] = [1.5, "a"]
NOISY = LoadedVocoder(model=Noisy(), name="noisy", device="cpu")


def test_gives_one_row_of_float32() -> None:
    y = load(HIFIGAN)(mel(6, 5).astype(np.float64))
    assert y.dtype == np.float32
    assert y.shape == (40,)


def test_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    load(HIFIGAN)(mel(6, 5))
    NOISY(mel(2, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_bytes() -> None:
    M = mel(2, 6)
    np.testing.assert_array_equal(NOISY(M, seed=3), NOISY(M, seed=3))
    assert not np.array_equal(NOISY(M, seed=3), NOISY(M, seed=4))


def test_a_batch_draws_for_each_what_it_draws_alone() -> None:
    mels = [mel(2, n, seed=n) for n in (5, 2, 3)]
    for M, y in zip(mels, NOISY.batch(mels, seed=7), strict=True):
        np.testing.assert_array_equal(y, NOISY(M, seed=7))
    for both in (NOISY.batch(mels, seed=[1, 2, 3]), NOISY.together(mels, [1, 2, 3])):
        for seed, y in zip((1, 2, 3), both, strict=True):
            np.testing.assert_array_equal(y, NOISY(mels[seed - 1], seed=seed))
    assert NOISY.batch([]) == []


@pytest.mark.parametrize("with_batch_axis", [False, True])
def test_given_noise_is_what_is_used(with_batch_axis: bool) -> None:
    M = mel(2, 3)
    noise = [np.array([[1.0, 2.0, 3.0]]), np.array([4.0, 5.0, 6.0])]
    given = [draw[None] for draw in noise] if with_batch_axis else noise
    np.testing.assert_allclose(NOISY(M, noise=given), M[0] + [41.0, 52.0, 63.0], rtol=1e-6)


@pytest.mark.parametrize(
    "noise", [[], [np.zeros((1, 3))], [np.zeros((1, 4)), np.zeros(4)], [np.zeros((2, 3)), np.zeros(3)]]
)
def test_noise_of_other_shapes_is_refused(noise: list[np.ndarray]) -> None:
    with pytest.raises(VocoderError, match=r"noisy: noise must have the shapes \[\(1, 3\), \(3,\)\], got \["):
        NOISY(mel(2, 3), noise=noise)


@pytest.mark.parametrize(
    ("M", "message"),
    [
        (np.zeros((7, 4)), r"g_0: M must have shape \(6, n_frames\), got \(7, 4\)"),
        (np.zeros((6, 0)), r"M must have shape \(6, n_frames\), got \(6, 0\)"),
        (np.zeros(6), r"M must have shape \(6, n_frames\), got \(6,\)"),
        (np.full((6, 2), np.nan), r"M holds values that are not finite"),
    ],
)
def test_other_mels_are_refused(M: np.ndarray, message: str) -> None:
    voc = load(HIFIGAN)
    with pytest.raises(VocoderError, match=message):
        voc(M)
    with pytest.raises(VocoderError, match=message.replace("M ", r"mels\[1\] ")):
        voc.batch([mel(6, 3), M])


@pytest.mark.parametrize("as_given", [np.ndarray.tolist, torch.from_numpy], ids=["lists", "tensor"])
def test_mels_seeds_and_noise_may_be_lists_and_tensors(as_given: Callable[[np.ndarray], Any]) -> None:
    M, noise = mel(2, 3), [np.array([[1.0, 2.0, 3.0]]), np.array([4.0, 5.0, 6.0])]
    expected = NOISY(M, noise=noise)
    assert NOISY(as_given(M), noise=list(map(as_given, noise))).tobytes() == expected.tobytes()
    first, second = NOISY.batch([M, M], seed=[1, 2])
    given = NOISY.batch(as_given(np.stack([M, M])), seed=np.array([1, 2]))
    assert [y.tobytes() for y in given] == [first.tobytes(), second.tobytes()]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NOISY(["a"]), r"^M must hold real numbers, got <U1 in list$"),
        (lambda: NOISY([[1.0], [1.0, 2.0]]), r"^M can't be read as an array"),
        (lambda: NOISY(mel(2, 3), seed=ANYTHING[0]), r"^seed must be a whole number, got 1\.5$"),
        (lambda: NOISY(mel(2, 3), seed=-1), r"^seed must not be negative, got -1$"),
        (lambda: NOISY(mel(2, 3), noise=["a", "b"]), r"^noise\[0\] must hold real numbers"),
        (lambda: NOISY.batch([mel(2, 3), ["a"]]), r"^mels\[1\] must hold real numbers, got <U1 in list$"),
        (lambda: NOISY.batch([mel(2, 3)] * 2, seed=[1, ANYTHING[1]]), r"^seed\[1\] must be a whole number, got 'a'$"),
        (lambda: NOISY.batch([mel(2, 3)] * 2, seed=ANYTHING[1] + "b"), r"^seed\[0\] must be a whole number, got 'a'$"),
    ],
)
def test_other_arguments_are_refused_in_a_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        call()


def test_seeds_must_be_one_for_each() -> None:
    with pytest.raises(VocoderError, match=r"seed must be one or one for each of 2 mels, got 3"):
        NOISY.batch([mel(2, 3), mel(2, 3)], seed=[1, 2, 3])


def test_another_family_than_named_is_refused() -> None:
    with pytest.raises(VocoderError, match=r"g_0: is no bigvgan checkpoint: its tensors are called 'conv_pre.weight'"):
        load(HIFIGAN, "bigvgan")


def test_unknown_families_are_refused() -> None:
    with pytest.raises(VocoderError, match=r"no vocoder family is called 'hifi-gan'; did you mean 'hifigan'\?"):
        load(HIFIGAN, "hifi-gan")
    with pytest.raises(VocoderError, match=r"g_0: its 1 tensors \(encoder.weight, ...\) are of no family known here"):
        load(checkpoint({"encoder.weight": torch.ones(2)}))


@pytest.mark.parametrize("name", family_names())
def test_every_family_goes_by_its_name(name: str) -> None:
    assert family(name).name == name


@pytest.mark.parametrize("name", [name for name in family_names() if name != "hifigan"])
def test_no_family_takes_another_ones_checkpoint(name: str) -> None:
    assert not family(name).recognises(HIFIGAN)


def test_ends_cut_and_hold() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])
    ends = Ends(torch.tensor([2, 3]), 3)
    assert ends.cut(x).tolist() == [[[1.0, 2.0, 0.0]], [[4.0, 5.0, 6.0]]]
    assert ends.held(x).tolist() == [[[1.0, 2.0, 2.0]], [[4.0, 5.0, 6.0]]]
    assert ends.stretched(2).lengths is not None
    np.testing.assert_array_equal(ends.stretched(2).cut(torch.ones(2, 1, 6))[:, 0].sum(dim=1), [4.0, 6.0])
    whole = Ends(None, 3)
    assert whole.cut(x) is x
    assert whole.held(x) is x
    assert inside(None, 3) is None
    assert silenced(x, None) is x


class Exponential(Noisy):
    """Gives the exponential of the first band of the mel."""

    def forward(self, mel: Tensor, lengths: Tensor | None = None, noise: Sequence[Tensor] = ()) -> Tensor:
        return mel[:, 0].exp()


@pytest.mark.parametrize("give", [lambda voc, M: voc(M), lambda voc, M: voc.batch([mel(2, 4), M])])
def test_a_result_that_overflows_is_refused_with_the_range_of_the_mel(
    give: Callable[[LoadedVocoder, NDArray[Any]], object],
) -> None:
    vocoder = LoadedVocoder(model=Exponential(), name="loud", device="cpu")
    assert vocoder(mel(2, 4)).shape == (4,)
    with pytest.raises(
        Unusable, match=r"^(mels\[1\]: )?loud gave 1 of 2 samples that are not finite; its values are -5 to 90, and"
    ):
        give(vocoder, np.array([[0.0, 90.0], [-5.0, 0.0]]))


def test_a_mel_that_was_made_otherwise_is_warned_of() -> None:
    voc = load(HIFIGAN)
    M = np.random.default_rng(0).uniform(-100.0, 10.0, (6, 5)).astype(np.float32)
    message = r"no mel of its spec: .*; they look like log: db"
    with pytest.warns(MelRangeWarning, match=message):
        voc(M)
    with pytest.warns(MelRangeWarning, match=message):
        voc.batch([mel(6, 5), M])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        voc(mel(6, 5) / 2 - 6)
