"""What the metrics are called, and what a pair that can't be measured gives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.score.metric import METRICS, metric
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status

SPEC = MelSpec()
SECOND = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)


def pair(
    reference: NDArray[np.float32], estimate: NDArray[np.float32], reference_sr: int = 16000, estimate_sr: int = 16000
) -> Pair:
    return Pair(reference=reference, reference_sr=reference_sr, estimate=estimate, estimate_sr=estimate_sr, spec=SPEC)


def test_columns_are_the_contract() -> None:
    assert [metric.column for metric in METRICS.values()] == [
        *(
            "pesq_wb",
            "pesq_nb",
            "stoi",
            "estoi",
            "visqol",
            "visqol_audio",
            "zimtohrli",
            "zimtohrli_mos",
            "scm_db",
            "sc_db",
            "lsd_db",
            "mstft",
            "mel_mae",
            "mcd_db",
        ),
        *("world_mcd_db", "mcd_dtw_db", "si_sdr_db", "snr_seg_db", "loudness_diff_lu"),
        *("periodicity", "vuv_f1", "pitch_cents"),
        *("log_f0_rmse", "f0_cents", "f0_corr", "f0_vuv_f1"),
        *("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808", "plcmos", "distillmos", "speaker_similarity"),
        *("wer", "cer"),
        *("fad", "fad_inf", "kad"),
    ]


def test_every_metric_says_what_it_is() -> None:
    for described in METRICS.values():
        assert described.better in ("higher", "lower")
        assert all(text.endswith(".") for text in (described.says, described.limits, described.formula)), described.name
        assert described.reference


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("pesq", "pesq_wb"), ("sisdr", "si_sdr"), ("SCM", None), ("mel_mea", "mel_mae")],
)
def test_an_unknown_metric_names_the_nearest(name: str, nearest: str | None) -> None:
    expected = rf"metrics has no metric '{name}'" + (f"; did you mean '{nearest}'" if nearest else "")
    with pytest.raises(ParameterError, match=expected) as caught:
        metric(name)
    assert caught.value.field == "metrics"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_none(value: float) -> None:
    measured = Measured.of(value)
    assert measured.status is Status.NON_FINITE
    assert math.isnan(measured.value)


@pytest.mark.parametrize("name", [one.name for one in METRICS.values() if one.compares])
@pytest.mark.parametrize(
    ("reference", "estimate", "status"),
    [
        (0 * SECOND, SECOND, Status.SILENT_REFERENCE),
        (SECOND, 0 * SECOND, Status.SILENT_ESTIMATE),
        (0 * SECOND, 0 * SECOND, Status.SILENT_REFERENCE),
        (0 * SECOND + 0.5, SECOND, Status.SILENT_REFERENCE),  # a constant is not heard
        (1e-5 * SECOND, SECOND, Status.SILENT_REFERENCE),  # below one step of 16-bit PCM
        (SECOND, np.where(np.arange(16000) == 7, np.nan, SECOND), Status.NON_FINITE),
        (np.where(np.arange(16000) == 7, np.inf, SECOND), SECOND, Status.NON_FINITE),
        (SECOND, 1e9 * SECOND, Status.NON_FINITE),  # diverged
        (SECOND[:0], SECOND, Status.TOO_SHORT),
        (SECOND, SECOND[:0], Status.TOO_SHORT),
        (SECOND, SECOND[: -SPEC.hop_length - 1], Status.ERROR),  # more than framing rounds off
    ],
)
def test_a_pair_without_a_value_says_why(
    name: str, reference: NDArray[np.float32], estimate: NDArray[np.float32], status: Status
) -> None:
    measured = metric(name).measure(pair(reference.astype(np.float32), estimate.astype(np.float32)))
    assert measured.status is status
    assert math.isnan(measured.value)


@pytest.mark.parametrize("name", [one.name for one in METRICS.values() if not one.compares])
@pytest.mark.parametrize(
    ("estimate", "status"),
    [
        (0 * SECOND, Status.SILENT_ESTIMATE),
        (np.where(np.arange(16000) == 7, np.nan, SECOND), Status.NON_FINITE),
        (1e9 * SECOND, Status.NON_FINITE),
        (SECOND[:0], Status.TOO_SHORT),
    ],
)
@pytest.mark.parametrize("reference", [None, 0 * SECOND, SECOND[:-4000]], ids=["none", "silent", "short"])
def test_an_estimate_alone_without_a_value_says_why(
    name: str, reference: NDArray[np.float32] | None, estimate: NDArray[np.float32], status: Status
) -> None:
    alone = Pair(
        reference=reference,
        reference_sr=16000,
        estimate=estimate.astype(np.float32),
        estimate_sr=16000,
        spec=SPEC,
    )
    assert metric(name).measure(alone).status is status


def test_without_a_recording_nothing_is_compared() -> None:
    alone = Pair(reference=None, reference_sr=16000, estimate=SECOND, estimate_sr=16000, spec=SPEC)
    for one in METRICS.values():
        if one.compares:
            assert one.measure(alone).status is Status.MISSING_REFERENCE, one.name
    assert melmill.score(None, SECOND, 16000, ["sc"])["sc"].status is Status.MISSING_REFERENCE


def test_one_hop_less_is_compared_over_what_both_have() -> None:
    measured = metric("sc").measure(pair(SECOND, SECOND[: -SPEC.hop_length]))
    assert measured == Measured(-200.0, Status.OK)


@pytest.mark.parametrize(
    ("name", "reference_sr", "estimate_sr"),
    [
        ("pesq_wb", 16000, 8000),  # nothing above 4 kHz to judge
        ("pesq_wb", 11025, 16000),
        ("pesq_nb", 4000, 16000),
        ("estoi", 16000, 4000),
        ("stoi", 4000, 16000),
    ],
)
def test_a_band_that_is_missing_is_not_scored(name: str, reference_sr: int, estimate_sr: int) -> None:
    rng = np.random.default_rng(0)
    signals = [0.1 * rng.standard_normal(sr).astype(np.float32) for sr in (reference_sr, estimate_sr)]
    measured = metric(name).measure(pair(signals[0], signals[1], reference_sr, estimate_sr))
    assert measured.status is Status.UNSUPPORTED_RATE


def test_two_signals_are_scored_without_a_pipeline() -> None:
    estimate = SECOND + 0.1 * np.roll(SECOND, 1)
    measured = melmill.score(SECOND, estimate, 16000, ["sc", "si_sdr"])
    expected = {name: metric(name).measure(pair(SECOND, estimate)) for name in ("sc", "si_sdr")}
    assert measured == expected
    assert melmill.score(SECOND, estimate, 16000, ["scm"], preset="speecht5") != melmill.score(
        SECOND, estimate, 16000, ["scm"]
    )


def test_a_metric_whose_package_is_missing_says_so() -> None:
    missing = replace(METRICS["sc"], name="other", package="no_such_package")
    assert missing.measure(pair(SECOND, SECOND)).status is Status.NOT_INSTALLED
    assert METRICS["sc"].measure(pair(SECOND, SECOND)).status is Status.OK


def test_every_status_is_explained() -> None:
    for status in Status:
        assert Status[status.name] is status
        assert status.says.endswith(".")
