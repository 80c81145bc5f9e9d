from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset
from melmill.stages.vocode.families.diffwave.network import DiffWave, Sizes
from melmill.stages.vocode.layers.diffusion import Correction
from tests.stages.vocode.tiny import assert_padding_is_not_heard, randomised

HOP = 256
SIZES = Sizes(channels=4, n_features=8, embedding=6, n_layers=2, cycle=2, kernels=((3, 32), (3, 32)))
BETAS = [0.01, 0.05, 0.2]


def chirp(n_samples: int) -> np.ndarray:
    t = np.arange(n_samples) / 22050
    return (0.5 * np.sin(2 * np.pi * (300 * t + 800 * t**2))).astype(np.float32)


def made(correction: Correction | None) -> DiffWave:
    model = DiffWave(SIZES, BETAS, preset("diffwave"))
    model.load_state_dict(randomised(model))
    model.requires_grad_(False)
    model.betas, model.correction = BETAS, correction
    return model


def misfit(y: Tensor, M: np.ndarray, spec: MelSpec) -> float:
    return float(np.abs(mel_spectrogram(y.numpy()[:-1], spec) - M).mean())


def test_the_signal_takes_on_the_mel_and_keeps_its_length() -> None:
    spec = preset("diffwave")
    M = mel_spectrogram(chirp(20 * HOP - 1), spec)
    noise = np.random.default_rng(0).standard_normal(20 * HOP).astype(np.float32)
    y = Correction(n_iter=16).apply(noise, M, spec)
    assert y.shape == noise.shape
    assert y[-1] == noise[-1]  # its frame is not M's
    assert misfit(torch.from_numpy(y), M, spec) < 0.3 * misfit(torch.from_numpy(noise), M, spec)


def test_a_signal_that_has_the_mel_already_keeps_its_phase() -> None:
    spec = preset("wavegrad")
    y = chirp(20 * 300)
    corrected = Correction(n_iter=4).apply(y, mel_spectrogram(y[:-1], spec), spec)
    assert np.corrcoef(y[1200:-1200], corrected[1200:-1200])[0, 1] > 0.95


def test_steps_are_corrected_before_fresh_noise_is_added() -> None:
    M = torch.from_numpy(mel_spectrogram(chirp(20 * HOP - 1), preset("diffwave")))
    plain, corrected = made(None), made(Correction(n_steps=len(BETAS), n_iter=8))
    noise = [draw[None] for draw in plain.noise(20, torch.Generator().manual_seed(0))]
    ours, without = corrected(M[None], noise=noise)[0], plain(M[None], noise=noise)[0]
    assert misfit(ours, M.numpy(), plain.spec) < 0.5 * misfit(without, M.numpy(), plain.spec)


def test_only_the_first_steps_are_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    apply = Correction.apply

    def counted(self: Correction, y: np.ndarray, M: np.ndarray, spec: MelSpec) -> np.ndarray:
        calls.append(y.size)
        return apply(self, y, M, spec)

    monkeypatch.setattr(Correction, "apply", counted)
    model = made(Correction(n_steps=2, n_iter=1))
    noise = [draw[None] for draw in model.noise(12, torch.Generator().manual_seed(0))]
    model(torch.full((1, 80, 12), 0.5), noise=noise)
    assert calls == [12 * HOP] * 2


def test_a_corrected_batch_equals_its_utterances() -> None:
    assert_padding_is_not_heard(made(Correction(n_steps=1, n_iter=2)), [14, 9])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"n_iter": 0}, "n_iter must be at least 1, got 0"),
        ({"momentum": 1.0}, "momentum must be in"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Correction(**parameters)  # type: ignore[arg-type]
