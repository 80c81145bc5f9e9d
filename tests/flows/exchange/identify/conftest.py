"""A recording of speech at 22.05 kHz, real where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.flows.exchange.identify.matching import Recording
from melmill.stages.formats.audio import decode

SR = 22050


@pytest.fixture(scope="session")
def speech(real_data: Path) -> NDArray[np.float32]:
    """Return 2 s of LJSpeech, shape (n_samples,), at 22.05 kHz."""
    y, header = decode((real_data / "corpora" / "LJSpeech" / "LJ" / "LJ001-0005.wav").read_bytes())
    assert header.sr == SR
    return np.asarray(y[: 2 * SR, 0] / 32768.0, dtype=np.float32)


@pytest.fixture(scope="session")
def heard(speech: NDArray[np.float32]) -> Recording:
    """Return the speech with what was made of it: each preset's mel is made once for all tests."""
    return Recording(y=speech, sr=SR)
