"""Metrics against what the code that papers use answers for the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from melmill.stages.score.metric import metric
from melmill.stages.score.status import Status
from tests.stages.score.metrics.golden import golden_pairs


@dataclass(frozen=True, kw_only=True)
class Case:
    """A metric, the key of its golden values, and how close it is: at 16 kHz, and where its code resampled."""

    metric: str
    key: str
    rel: float = 0.0
    abs: float = 0.0
    resampled_rel: float | None = None
    resampled_abs: float | None = None
    at_most: float = float("inf")  # values above it are limits of the other code
    without: tuple[str, ...] = ("silent",)  # kinds of estimate that have a status here, or are not compared
    n: int = 20  # values that there are at least
    every: int = 1  # one value of how many is compared, where all would take minutes


CASES = (
    Case(metric="pesq_wb", key="pesq_wb", abs=1e-3, resampled_abs=0.05),
    Case(metric="pesq_nb", key="pesq_nb", abs=0.05),  # at 8 kHz, where each resampler has its own values
    Case(metric="stoi", key="stoi", abs=1e-6),
    Case(metric="estoi", key="estoi", abs=1e-5),
    Case(metric="mstft", key="mrstft", rel=1e-5),
    Case(metric="si_sdr", key="si_sdr_zero_mean_db", abs=1e-3, at_most=60.0),
    Case(metric="log_f0_rmse", key="dio_log_rmse", abs=1e-6),
    Case(metric="f0_cents", key="dio_rmse_cents", rel=1e-6, abs=1e-6),
    Case(metric="f0_corr", key="dio_corr", abs=1e-6),
    Case(metric="f0_vuv_f1", key="dio_vuv_f1", abs=1e-6),
    Case(metric="world_mcd", key="world_mcd", rel=1e-5, n=6, every=5),
    # Golden paths are FastDTW's, which are no shorter than the exact one.
    Case(metric="mcd_dtw", key="world_mcd_dtw", rel=0.02, n=8),
    Case(metric="periodicity", key="vocos_periodicity_rmse", abs=1e-4),
    Case(metric="vuv_f1", key="vocos_vuv_f1", abs=2e-3),
    Case(metric="pitch_cents", key="vocos_pitch_rmse_cents_nodither", abs=0.1),
    # A silent estimate has a status here, and values in the other code.
    Case(metric="dnsmos_ovrl", key="dnsmos_ovrl_estimate", abs=2e-3, resampled_abs=0.05),
    Case(metric="dnsmos_sig", key="dnsmos_sig_estimate", abs=2e-3, resampled_abs=0.05),
    Case(metric="dnsmos_bak", key="dnsmos_bak_estimate", abs=2e-3, resampled_abs=0.05),
    Case(metric="dnsmos_p808", key="dnsmos_p808_estimate", abs=2e-3, resampled_abs=0.05),
    Case(metric="plcmos", key="plcmos_seed0_estimate", abs=2e-3),
    Case(metric="distillmos", key="distillmos_estimate", abs=2e-3),
    Case(metric="speaker_similarity", key="resemblyzer_novad", abs=1e-4),
    Case(metric="visqol", key="visqol_speech", abs=1e-3),
    Case(metric="visqol_audio", key="visqol_audio", abs=1e-3),
    Case(metric="zimtohrli", key="zimtohrli_distance", abs=1e-5),
    Case(metric="zimtohrli_mos", key="zimtohrli_mos", abs=1e-4),
    Case(metric="wer", key="wer_estimate", abs=1e-6, n=5),
)


@pytest.mark.real
@pytest.mark.timeout(3600)  # CREPE over all pairs
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.metric)
def test_equals_the_fields_own_code(real_data: Path, case: Case) -> None:
    tried = metric(case.metric)
    if not tried.is_installed:
        pytest.skip(f"{tried.package} is not installed")
    compared = 0
    pairs = [(one, one.values.get(case.key)) for one in golden_pairs(real_data) if one.kind not in case.without]
    known = [(one, value) for one, value in pairs if value is not None and value <= case.at_most]
    for one, expected in known[:: case.every]:
        measured = tried.measure(one.pair)
        assert measured.status is Status.OK, one.name
        tolerance = case.rel * abs(expected) + case.abs
        if one.sr != 16000 and case.resampled_abs is not None:
            tolerance = (case.resampled_rel or 0.0) * abs(expected) + case.resampled_abs
        assert measured.value == pytest.approx(expected, rel=0.0, abs=tolerance), one.name
        compared += 1
    assert compared >= case.n
