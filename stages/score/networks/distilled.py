"""Distill-MOS, a small student of a large predictor of opinions, by the weights in the package distillmos.

Stahl, Gamper, "Distillation and pruning for scalable self-supervised representation-based speech
quality assessment", ICASSP 2025. Nothing of the package is imported.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.networks.weights import packaged

if TYPE_CHECKING:
    import torch

PACKAGE, WEIGHTS = "distillmos", "weights/distill_mos_v7.pt"

SR = 16000
"""Rate that the network hears, Hz."""

_LENGTH, _LARGEST_HOP = 122880, 16000  # samples of a window, 7.68 s
_HOP, _WINDOW = 160, 320
_STRIDES = ((1, 1), (2, 1), (2, 1), (2, 1), (2, 1), (2, 2))  # of the convolutions over frequency and time
_N_LAYERS, _N_HEADS, _WIDTH = 7, 8, 200
_EPS = 1e-5  # of batch normalisation


def distillmos(y: NDArray[np.float32]) -> float:
    """Return the opinion of a signal ``(n_samples,)`` at 16 kHz from 1 to 5, the mean over its windows."""
    import torch

    over = max(0, y.size - _LENGTH)
    shares = np.linspace(0.0, 1.0, -(-over // _LARGEST_HOP) + 1)
    y = np.pad(y, (0, max(0, _LENGTH - y.size)))
    windows = np.stack([y[int(share * over) : int(share * over) + _LENGTH] for share in shares])
    windows = windows / (np.abs(windows).max(axis=1, keepdims=True) + np.float32(1e-8))
    with torch.inference_mode():
        # One at a time: the arrays of a window take 100 MB.
        scores = [float(_opinion(torch.from_numpy(window[np.newaxis]))) for window in windows]
    return float(np.mean(scores))


def _opinion(x: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn import functional

    state, encoder = _network()
    pad = (_WINDOW - _HOP) // 2
    x = functional.pad(x, (pad, pad), mode="reflect")
    window = torch.hann_window(_WINDOW)
    D = torch.stft(x, _WINDOW, _HOP, _WINDOW, window=window, center=False, return_complex=True)
    # The magnitude is raised to 0.3, the phase kept.
    magnitude = torch.clip(D.abs(), min=1e-12)
    x = torch.view_as_real(D * magnitude ** (0.3 - 1.0)).permute(0, 3, 1, 2)
    for i, stride in enumerate(_STRIDES):
        x = functional.conv2d(x, *_pair(state, f"cnn.cnn.{2 * i}"), stride=stride, padding=(0, 1))
        x = functional.leaky_relu(x, 0.1)
    x = x.flatten(1, 2)
    for name in ("norm_input", "transformer.norm"):
        x = _normalised(x, state, name)
    x = functional.linear(x.transpose(1, 2), *_pair(state, "transformer.linear_proj"))
    x = encoder(x + state["transformer.position_encoding.pe"])
    x = _normalised(x.transpose(1, 2), state, "norm_trans").transpose(1, 2)
    attention = functional.relu(functional.linear(x, *_pair(state, "pool.linear1")))
    attention = torch.softmax(functional.linear(attention, *_pair(state, "pool.linear2")), dim=1)
    pooled = torch.sum(attention * x, dim=1)
    return 1.0 + 4.0 * torch.sigmoid(functional.linear(pooled, *_pair(state, "pool.linear3")))


def _pair(state: dict[str, torch.Tensor], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _normalised(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    from torch.nn import functional

    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.batch_norm(x, mean, variance, *_pair(state, name), training=False, eps=_EPS)


@lru_cache(maxsize=1)
def _network() -> tuple[dict[str, torch.Tensor], torch.nn.TransformerEncoder]:
    import torch

    loaded = torch.load(packaged(PACKAGE, WEIGHTS), map_location="cpu", weights_only=True)["model"]
    state = {name.removeprefix("transformer_pool_attn."): value for name, value in loaded.items()}
    layer = torch.nn.TransformerEncoderLayer(_WIDTH, _N_HEADS, 2 * _WIDTH, batch_first=True, dropout=0.0)
    encoder = torch.nn.TransformerEncoder(layer, _N_LAYERS, enable_nested_tensor=False)
    prefix = "transformer.transformer_encoder."
    encoder.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    return state, encoder.eval()
