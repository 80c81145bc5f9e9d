from __future__ import annotations

import math

import pytest
import torch

from melmill.stages.vocode.families.wavenet.outputs import Categorical, Gaussian, Logistic, Output, expanded

N = 20000


def draws_of(output: Output) -> tuple[torch.Tensor, ...]:
    return output.noise(N, torch.Generator().manual_seed(0))


def test_components_are_drawn_by_their_weights() -> None:
    parameters = torch.tensor([[math.log(0.2), math.log(0.8), -0.5, 0.5, -9.0, -9.0]]).expand(N, -1)
    for output in (Logistic(n_mixtures=2), Gaussian(n_mixtures=2)):
        x = output.sample(parameters, draws_of(output))
        assert (x > 0).float().mean().item() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("output", "parameters", "std"),
    [
        (Logistic(n_mixtures=1), [0.0, 0.1, math.log(0.05)], 0.05 * math.pi / math.sqrt(3)),
        # raised to -2, as the oldest models have it
        (Logistic(n_mixtures=1, log_scale_min=-2.0), [0.0, 0.1, -30.0], math.exp(-2) * math.pi / math.sqrt(3)),
        (Gaussian(n_mixtures=1), [0.1, math.log(0.05)], 0.05),
        # the logit of the only component means nothing
        (Gaussian(n_mixtures=1), [7.0, 0.1, math.log(0.05)], 0.05),
    ],
)
def test_samples_have_the_mean_and_the_scale(output: Output, parameters: list[float], std: float) -> None:
    x = output.sample(torch.tensor([parameters]).expand(N, -1), draws_of(output))
    assert x.mean().item() == pytest.approx(0.1, abs=0.01)
    assert x.std().item() == pytest.approx(std, rel=0.03)
    assert x.abs().max() <= 1.0


def test_a_logistic_draw_inverts_its_distribution() -> None:
    u = torch.tensor([0.25, 0.5, 0.75])
    x = Logistic(n_mixtures=1).sample(torch.tensor([[0.0, 0.2, math.log(0.1)]] * 3), (torch.full((3, 1), 0.5), u))
    assert torch.allclose(torch.sigmoid((x - 0.2) / 0.1), u)


def test_classes_are_drawn_by_their_probability() -> None:
    output = Categorical(n_classes=128)
    logits = torch.full((128,), -30.0)
    logits[[5, 100]] = torch.tensor([0.25, 0.75]).log()
    x = output.sample(logits.expand(N, -1), draws_of(output))
    assert set(x.tolist()) == {5, 100}
    assert (x == 5).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_a_draw_falls_into_the_class_whose_share_holds_it() -> None:
    output, logits = Categorical(n_classes=128), torch.zeros(5, 128)
    u = torch.tensor([1e-5, 1 / 128 - 1e-4, 1 / 128 + 1e-4, 0.5 + 1e-4, 1 - 1e-5])
    assert output.sample(logits, (u,)).tolist() == [0, 0, 1, 64, 127]


def test_mu_law_is_undone() -> None:
    y = torch.linspace(-1, 1, 41)
    compressed = y.sign() * torch.log1p(255 * y.abs()) / math.log(256)
    assert torch.allclose(expanded(compressed, 255), y, atol=1e-6)
    assert torch.allclose(Logistic(n_mixtures=1, mu=255).heard(compressed), y, atol=1e-6)


def test_classes_spread_over_the_full_scale() -> None:
    y = Categorical(n_classes=256).heard(torch.tensor([0, 127, 128, 255]))
    least = (256 ** (1 / 255) - 1) / 255
    assert y.tolist() == pytest.approx([-1.0, -least, least, 1.0], rel=1e-4)


def test_uniform_draws_keep_off_their_ends() -> None:
    for draws in draws_of(Logistic(n_mixtures=2)):
        assert 1e-5 <= draws.min() < 1e-3
        assert 1 - 1e-3 < draws.max() <= 1 - 1e-5 + 1e-7
