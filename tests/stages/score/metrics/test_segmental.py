"""Segmental SNR: its formula frame by frame, its limits, silence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from melmill.stages.score.metrics.segmental import segmental_snr_db
from melmill.stages.score.status import Status


def test_equals_its_formula_frame_by_frame() -> None:
    rng = np.random.default_rng(0)
    s = (rng.standard_normal(4000) * np.linspace(0, 1, 4000) ** 2).astype(np.float32)
    s_hat = (s + 0.1 * rng.standard_normal(4000)).astype(np.float32)
    length, step, found = 480, 120, []
    window = np.array([0.5 * (1 - math.cos(2 * math.pi * i / (length + 1))) for i in range(1, length + 1)])
    for start in range(0, 4000 - length + 1, step):
        a, b = (z[start : start + length].astype(float) for z in (s, s_hat))
        ratio = np.sum((window * a) ** 2) / np.sum((window * (a - b)) ** 2)
        found.append(min(max(10 * math.log10(ratio), -10.0), 35.0))
    assert min(found) == -10 < max(found) < 35  # both sides of the lower limit
    assert segmental_snr_db(s, s_hat, 16000).value == pytest.approx(np.mean(found), abs=1e-9)


def test_the_limits() -> None:
    s = np.random.default_rng(1).standard_normal(16000).astype(np.float32)
    assert segmental_snr_db(s, s, 16000).value == 35.0
    assert segmental_snr_db(s, -9 * s, 16000).value == -10.0


def test_silent_frames_are_at_a_limit() -> None:
    # half of the recording is digital silence: -10 dB where the estimate has noise there, 35 dB where it has none
    s = np.zeros(32000, dtype=np.float32)
    s[:16000] = np.random.default_rng(2).standard_normal(16000)
    noisy = s.copy()
    noisy[16000:] = 1e-3
    assert segmental_snr_db(s, s, 16000).value == 35.0
    assert segmental_snr_db(s, noisy, 16000).value == pytest.approx(0.5 * (35 - 10), abs=0.4)  # 3 frames have both


@pytest.mark.parametrize(("n", "status"), [(480, Status.OK), (479, Status.TOO_SHORT)])
def test_a_frame_is_needed(n: int, status: Status) -> None:
    y = np.ones(n, dtype=np.float32)
    assert segmental_snr_db(y, 0.5 * y, 16000).status is status
