"""Signals that tests of several stages use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

SR = 16000


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Compute as workers do, on one thread.

    Small tensors on two threads of a busy machine wait for each other most of the time.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def voice() -> NDArray[np.float32]:
    """Return 1 s of a voice-like signal at 16 kHz: gliding harmonics in bursts over faint noise."""
    t = np.arange(SR) / SR
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * t)) / SR
    harmonics = sum(np.sin(k * pitch + k) / k for k in range(1, 30))
    bursts = np.clip(2 * np.sin(2 * np.pi * 3 * t), 0, 1)
    noise = np.random.default_rng(0).standard_normal(SR)
    y: NDArray[np.float32] = (0.1 * bursts * harmonics + 0.003 * noise).astype(np.float32)
    return y
