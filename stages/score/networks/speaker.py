"""Speaker embeddings by the network in the package Resemblyzer.

Wan, Wang, Papir, Moreno, "Generalized end-to-end loss for speaker verification", ICASSP 2018. Only
its weights are read.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from melmill.stages.score.networks.weights import packaged

if TYPE_CHECKING:
    import torch

PACKAGE, WEIGHTS = "resemblyzer", "pretrained.pt"

SR = 16000
"""Rate that the network hears, Hz."""

_LOWEST_LEVEL_DB = -30.0  # quieter signals are raised to it
_WINDOW, _HOP, _N_MELS = 400, 160, 40
_N_FRAMES, _FRAME_STEP = 160, 77  # of a part: 1.6 s, 1.3 a second
_LEAST_COVERAGE = 0.75  # of the last part


def embedding(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the embedding ``(256,)`` of the voice of a signal at 16 kHz, of norm 1.

    Parameters
    ----------
    y : ndarray of float32, shape (n_samples,)
        Not silent.
    """
    import librosa
    import torch

    level_db = 10.0 * math.log10(float(np.mean(np.square(y, dtype=np.float64))))
    y = y * np.float32(10.0 ** (max(_LOWEST_LEVEL_DB - level_db, 0.0) / 20.0))
    starts = _starts(y.size)
    y = np.pad(y, (0, max(0, (starts[-1] + _N_FRAMES) * _HOP - y.size)))
    M = librosa.feature.melspectrogram(y=y, sr=SR, n_fft=_WINDOW, hop_length=_HOP, n_mels=_N_MELS)
    parts = np.stack([M.T[start : start + _N_FRAMES] for start in starts]).astype(np.float32)
    lstm, linear = _network()
    with torch.inference_mode():
        _, (hidden, _) = lstm(torch.from_numpy(parts))
        found = torch.relu(linear(hidden[-1])).numpy()
    mean = np.mean(found / np.linalg.norm(found, axis=1, keepdims=True), axis=0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def _starts(n_samples: int) -> list[int]:
    """Return the first frame of each part; the last is left out if the signal covers too little of it."""
    n_frames = -(-(n_samples + 1) // _HOP)
    starts = list(range(0, max(1, n_frames - _N_FRAMES + _FRAME_STEP + 1), _FRAME_STEP))
    covered = (n_samples - starts[-1] * _HOP) / (_N_FRAMES * _HOP)
    return starts[:-1] if covered < _LEAST_COVERAGE and len(starts) > 1 else starts


@lru_cache(maxsize=1)
def _network() -> tuple[torch.nn.LSTM, torch.nn.Linear]:
    import torch

    state = torch.load(packaged(PACKAGE, WEIGHTS), map_location="cpu", weights_only=True)["model_state"]
    lstm, linear = torch.nn.LSTM(_N_MELS, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    for name, module in (("lstm.", lstm), ("linear.", linear)):
        module.load_state_dict({key.removeprefix(name): value for key, value in state.items() if key.startswith(name)})
    return lstm.eval(), linear.eval()
