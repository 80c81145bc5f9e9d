"""PESQ: the values of the reference code, real pairs, long recordings and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from melmill.stages.score.metrics.pesq import RATES, pesq
from melmill.stages.score.p862.tables import Mode
from melmill.stages.score.status import Status


def voice(duration_s: float, sr: int = 16000) -> NDArray[np.float32]:
    t = np.arange(round(duration_s * sr)) / sr
    tone = sum(np.sin(2 * np.pi * 140 * k * t + k * k) / k for k in range(1, 25))
    return np.asarray(0.1 * tone * (np.sin(2 * np.pi * 1.5 * t) > -0.5), dtype=np.float32)


def noise(n: int, level: float, seed: int = 1) -> NDArray[np.float32]:
    return (level * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def bursts(n: int, sr: int = 16000) -> NDArray[np.float32]:
    """Half a second each: half noise, half nothing."""
    quarter = sr // 4
    return np.concatenate([np.concatenate([noise(quarter, 0.1, seed), 0 * noise(quarter, 0)]) for seed in range(n)])


@pytest.mark.parametrize(("mode", "best"), [("wb", 4.6439), ("nb", 4.5486)])
def test_identical_signals_score_the_best(mode: Mode, best: float) -> None:
    x = voice(2.0, RATES[mode])
    assert pesq(x, x, mode).value == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("mode", ["wb", "nb"])
@pytest.mark.parametrize("level", [1e-4, 3e-3, 0.1])
def test_equal_to_the_reference_code(mode: Mode, level: float) -> None:
    library = pytest.importorskip("pesq")
    x = voice(2.0, RATES[mode]) + noise(2 * RATES[mode], 1e-4, 2)  # in digital silence, rounding errors are heard
    y = x + noise(x.size, level)
    assert pesq(x, y, mode).value == pytest.approx(library.pesq(RATES[mode], x, y, mode), abs=1e-3)


@pytest.mark.parametrize("mode", ["wb", "nb"])
@pytest.mark.parametrize("jumps", [[900], [-1400], [2500, -700, 333]])
def test_a_delay_that_changes_is_followed_as_by_the_reference_code(mode: Mode, jumps: list[int]) -> None:
    library = pytest.importorskip("pesq")
    sr = RATES[mode]
    x = bursts(12, sr) + noise(6 * sr, 1e-4)
    parts = np.split(x, np.linspace(0, x.size, len(jumps) + 2).astype(int)[1:-1])
    moved = [
        np.concatenate([part, noise(max(jump, 0), 1e-4)])[: part.size + jump]
        for part, jump in zip(parts, jumps, strict=False)
    ]
    y = np.concatenate([*moved, parts[-1]])
    assert pesq(x, y, mode).value == pytest.approx(library.pesq(sr, x, y, mode), abs=2e-3)


@pytest.mark.parametrize("mode", ["wb", "nb"])
def test_a_long_burst_in_which_the_delay_changes(mode: Mode) -> None:
    # The reference code overwrites a window of its own here; see Aligner.
    library = pytest.importorskip("pesq")
    sr = RATES[mode]
    x = noise(9 * sr, 0.1) * (1 + np.sin(np.arange(9 * sr) / sr * 11)).astype(np.float32)
    y = np.concatenate([x[: 4 * sr], x[4 * sr + 1234 :]]) + noise(x.size - 1234, 1e-3, 2)
    assert pesq(x, y, mode).value == pytest.approx(library.pesq(sr, x, y, mode), abs=2e-3)


@pytest.mark.real
def test_the_values_of_the_reference_code_on_golden_pairs(real_data: Path) -> None:
    import soundfile

    from melmill.stages.numeric.resample import resample

    golden = real_data / "golden" / "metrics"
    pairs = json.loads((golden / "values.json").read_text())["pairs"]
    found = 0
    for pair in pairs:
        sr = pair["sr"]
        x, y = (soundfile.read(golden / "audio" / pair[side], dtype="float32")[0] for side in ("recording", "estimate"))
        n = min(x.size, y.size)
        for mode, rate in RATES.items():
            name = f"pesq_{mode}"
            expected = pair["values"].get(name)
            if expected is None:
                continue
            # The golden values were resampled in another way.
            tolerance = 1e-4 if sr == rate else 0.05
            reference, estimate = (resample(z[:n], sr, rate) for z in (x, y))
            assert pesq(reference, estimate, mode).value == pytest.approx(expected, abs=tolerance), (pair["id"], name)
            found += 1
    assert found > 30


@pytest.mark.parametrize("n", [50, 51, 130])
def test_any_number_of_bursts_has_a_score(n: int) -> None:
    # The reference code has room for 50.
    x = bursts(n, 8000)
    clean, noisy = pesq(x, x, "nb"), pesq(x, x + noise(x.size, 0.02), "nb")
    assert clean.value == pytest.approx(4.5486, abs=1e-4)
    fewer = bursts(30, 8000)
    assert noisy.value == pytest.approx(pesq(fewer, fewer + noise(fewer.size, 0.02), "nb").value, abs=0.1)


def test_more_bursts_than_the_reference_code_holds_are_aligned_one_by_one() -> None:
    x = bursts(60, 8000)
    half = x.size // 2
    late = np.concatenate([x[:half], np.zeros(160, np.float32), x[half:-160]])
    assert pesq(x, late, "nb").value > 4.3


@pytest.mark.parametrize("duration_s", [30, 150])
def test_a_long_burst_scores_as_by_the_reference_code(duration_s: int) -> None:
    library = pytest.importorskip("pesq")
    n = duration_s * 8000
    x = noise(n, 0.1) * (1 + 0.5 * np.sin(np.arange(n) / 8000 * 25)).astype(np.float32)
    y = x + noise(n, 0.01, 2)
    assert pesq(x, y, "nb").value == pytest.approx(library.pesq(8000, x, y, "nb"), abs=1e-3)


@pytest.mark.parametrize(("gain", "gain_hat"), [(1.0, 1e-4), (1e-4, 1.0), (30.0, 0.01)])
def test_levels_do_not_matter(gain: float, gain_hat: float) -> None:
    x = voice(1.5) + noise(24000, 1e-4, 2)
    y = x + noise(x.size, 3e-3)
    scaled = pesq((gain * x).astype(np.float32), (gain_hat * y).astype(np.float32), "wb")
    assert scaled.value == pytest.approx(pesq(x, y, "wb").value, abs=1e-3)


@pytest.mark.parametrize(
    ("reference", "estimate", "status"),
    [
        (voice(0.2), voice(0.2), Status.TOO_SHORT),
        (voice(1.0), voice(1.0)[:3999], Status.TOO_SHORT),
        (voice(1.0)[:0], voice(1.0), Status.TOO_SHORT),
        (np.zeros(16000, np.float32), voice(1.0), Status.NO_UTTERANCES),
    ],
)
def test_a_pair_that_it_cant_judge_has_a_status(
    reference: NDArray[np.float32], estimate: NDArray[np.float32], status: Status
) -> None:
    assert pesq(reference, estimate, "wb").status is status


def test_a_quarter_of_a_second_is_enough() -> None:
    x = noise(4000, 0.1)
    assert pesq(x, x, "wb").status is Status.OK


def test_same_value_each_time() -> None:
    x = voice(1.5)
    y = x + noise(x.size, 3e-3)
    assert pesq(x, y, "wb") == pesq(x, y, "wb")
