from __future__ import annotations

import math

import numpy as np
import pytest

from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.layers.schedule import checked_betas, reverse_steps, signal_levels, training_times

TRAINING = np.linspace(1e-4, 0.05, 50).tolist()


def test_steps_of_a_schedule_worked_by_hand() -> None:
    # alphabar is 3/4, then 3/8
    last, first = reversed(reverse_steps([0.25, 0.5], times=[7.0, 8.0]))
    assert (first.time, last.time) == (8.0, 7.0)
    assert first.gain == pytest.approx(math.sqrt(2))
    assert first.share == pytest.approx(0.5 / math.sqrt(5 / 8))
    assert first.sigma == pytest.approx(math.sqrt((1 / 4) / (5 / 8) * 0.5))
    assert last.gain == pytest.approx(1 / math.sqrt(3 / 4))
    assert last.share == pytest.approx(math.sqrt(1 / 4))
    assert last.sigma == 0.0


def test_the_exact_noise_leads_back_to_the_signal() -> None:
    # the posterior mean of Ho et al. with the true noise, and no fresh one, stays on the way to y0
    betas = [0.1, 0.2, 0.3]
    levels = signal_levels(betas)
    signal, noise = 0.7, -1.3
    for n in (2, 1, 0):
        step = reverse_steps(betas, [0.0] * 3)[2 - n]
        y = levels[n] * signal + math.sqrt(1 - levels[n] ** 2) * noise
        y = step.gain * (y - step.share * noise)
        before = levels[n - 1] if n else 1.0
        mean_noise = (y - before * signal) / noise
        assert mean_noise**2 + step.sigma**2 == pytest.approx(1 - before**2)


def test_the_training_schedule_is_told_whole_steps() -> None:
    assert training_times(TRAINING, TRAINING) == pytest.approx(range(50), abs=1e-9)


def test_a_schedule_rounded_to_float32_is_still_the_training_schedule() -> None:
    rounded = np.array(TRAINING, dtype=np.float32).tolist()
    assert rounded != TRAINING
    assert training_times(rounded, TRAINING) == pytest.approx(range(50), abs=1e-4)


def test_places_between_two_training_steps_are_linear_in_the_level() -> None:
    low, high = signal_levels(TRAINING)[[20, 21]]
    middle = (low + high) / 2
    (place,) = training_times([1 - middle**2], TRAINING)
    assert place == pytest.approx(20.5)


@pytest.mark.parametrize(
    ("betas", "step"),
    [
        ([1e-5, 0.1], 0),  # less noise than training ever added
        ([1e-4, 0.1, 0.9], 2),  # more
    ],
)
def test_levels_that_training_never_saw_are_refused(betas: list[float], step: int) -> None:
    with pytest.raises(VocoderError, match=f"step {step} of the noise schedule keeps .* training saw"):
        training_times(betas, TRAINING)


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.0], [float("nan")]])
def test_a_schedule_holds_variances(betas: list[float]) -> None:
    with pytest.raises(VocoderError, match=r"a variance in \(0, 1\) for each step, got"):
        checked_betas(betas)
