"""Where a prior is not followed: the rule, and what each engine makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.invert.inversion import pose, solve_all
from melmill.stages.numeric.batched.inverter import invert_linears
from melmill.stages.numeric.compiled.inverter import invert_linear
from melmill.stages.numeric.compiled.start import started
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.prior import MARGIN_DB, MOST_MISMATCH_DB, TRUSTED_DB, Prior, prior_loses
from melmill.stages.numeric.solver import Problem, Recipe
from melmill.stages.numeric.solvers.admm import Admm
from tests.priors import random_prior, smooth_prior

SPEC = MelSpec(n_fft=256, win_length=256, hop_length=64, n_mels=20)


def never() -> float:
    raise AssertionError("not needed")


@pytest.mark.parametrize(
    ("mismatch_db", "own_db", "plain_db", "loses"),
    [
        (MOST_MISMATCH_DB + 0.1, None, None, True),  # a network that does not know the sound
        (MOST_MISMATCH_DB, TRUSTED_DB, None, False),  # consistent enough by itself
        (-20.0, TRUSTED_DB + 1, TRUSTED_DB + 1 + MARGIN_DB - 0.1, True),
        (-20.0, TRUSTED_DB + 1, TRUSTED_DB + 1 + MARGIN_DB + 0.1, False),
        (-20.0, -float("inf"), None, False),  # silence
    ],
)
def test_the_rule(mismatch_db: float, own_db: float | None, plain_db: float | None, loses: bool) -> None:
    def told(value: float | None) -> float:
        return never() if value is None else value

    assert prior_loses(mismatch_db, lambda: told(own_db), lambda: told(plain_db)) is loses


def voice(n_samples: int, f0: float) -> NDArray[np.float32]:
    """Return harmonics: a smooth magnitude is as good as NNLS where each has bands of its own."""
    t = np.arange(n_samples) / SPEC.sr
    y = sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 20)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    return np.asarray(0.1 * y + 0.01 * np.random.default_rng(0).standard_normal(n_samples), dtype=np.float32)


def clicks(n_samples: int) -> NDArray[np.float32]:
    """Return what has a smooth magnitude."""
    y = np.zeros(n_samples, dtype=np.float32)
    y[100::700] = 0.8
    return y


def problem(y: NDArray[np.float32], prior: Prior, recipe: Recipe, seed: int = 0) -> Problem:
    return pose(mel_spectrogram(y, SPEC), SPEC, replace(recipe, prior=prior, seed=seed), y.size)


RECIPE = Recipe(method=Admm(), n_iter=3, fallback_n_iter=5, trace=True)


def test_a_random_network_is_not_followed_and_nothing_is_left_of_it() -> None:
    given = problem(voice(6000, 400.0), random_prior(SPEC), RECIPE)
    answer = invert_linear(given.linear, SPEC, given.recipe, given.length)
    plain = replace(given.recipe, prior=None, fallback_n_iter=None, n_iter=5)
    expected = invert_linear(given.linear, SPEC, plain, given.length)
    assert (answer.guided, len(answer.misfits)) == (False, 1 + 5)
    assert answer.y.tobytes() == expected.y.tobytes()
    # Without a fallback it is followed wherever it leads.
    led = replace(given.recipe, fallback_n_iter=None)
    assert invert_linear(given.linear, SPEC, led, given.length).guided


def test_a_sound_network_is_followed() -> None:
    given = problem(clicks(6000), smooth_prior(SPEC), RECIPE)
    answer = invert_linear(given.linear, SPEC, given.recipe, given.length)
    expected = invert_linear(given.linear, SPEC, replace(given.recipe, fallback_n_iter=None), given.length)
    assert (answer.guided, len(answer.misfits)) == (True, 1 + 3)
    assert answer.y.tobytes() == expected.y.tobytes()


@pytest.mark.parametrize("start", ["random", "zero", "pghi"])
def test_the_phase_rule_does_not_decide(start: str) -> None:
    y = clicks(6000)
    for prior, guided in ((random_prior(SPEC), False), (smooth_prior(SPEC), True)):
        given = problem(y, prior, replace(RECIPE, start=start))
        assert started(given.linear, SPEC, given.recipe, given.length).guided is guided
        from_wave = replace(given.recipe, start=y)
        assert started(given.linear, SPEC, from_wave, given.length).guided is guided


def test_silence_takes_any_prior() -> None:
    given = problem(np.zeros(3000, dtype=np.float32), random_prior(SPEC), RECIPE)
    answer = invert_linear(given.linear, SPEC, given.recipe, given.length)
    assert answer.guided
    assert not answer.y.any()


def test_a_batch_decides_as_one_by_one() -> None:
    """Utterances that fall back make other numbers of iterations than those beside them."""
    ys = [voice(6000, 97.0), clicks(5900), voice(5800, 400.0), voice(5700, 97.0), np.zeros(900, dtype=np.float32)]
    recipe = replace(RECIPE, dtype="float64")
    problems = [problem(y, smooth_prior(SPEC), recipe, seed) for seed, y in enumerate(ys)]
    expected = [invert_linear(p.linear, SPEC, p.recipe, p.length) for p in problems]
    assert {answer.guided for answer in expected} == {True, False}
    for answer, alone in zip(invert_linears(problems, SPEC, "cpu"), expected, strict=True):
        assert (answer.guided, len(answer.misfits)) == (alone.guided, len(alone.misfits))
        np.testing.assert_allclose(answer.y, alone.y, rtol=0, atol=1e-9 * (np.abs(alone.y).max() + 1e-9))
    starts = [result.start for result in solve_all(problems, SPEC)]
    assert starts == ["prior" if answer.guided else "nnls" for answer in expected]
