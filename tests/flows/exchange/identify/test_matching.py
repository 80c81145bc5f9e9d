"""With its recording, a mel's making is found exactly: spec, normalisation, axes, framing, rate and level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from melmill.flows.exchange.identify.candidates import bands_of, candidates
from melmill.flows.exchange.identify.explaining import Setup
from melmill.flows.exchange.identify.fits import lag_of
from melmill.flows.exchange.identify.identify import identify
from melmill.flows.exchange.identify.matching import Recording
from melmill.flows.pipeline.located import parse
from melmill.stages.extract.fields import MelFields
from melmill.stages.numeric.melspec import MelSpec
from tests.flows.exchange.identify.conftest import SR

Mel = NDArray[np.floating[Any]]


def standard(M: Mel) -> Mel:
    return np.asarray((M - M.mean(axis=1, keepdims=True)) / (M.std(axis=1, keepdims=True) + 1e-5))


def test_every_preset_is_found_by_name(heard: Recording) -> None:
    wrong, n_found = {}, 0
    for candidate in candidates():
        M = heard.mel(candidate.spec, Setup())
        if M is None:  # such as one that needs numbers of the utterance
            continue
        found = identify(M.astype(np.float32), heard)
        exact = found.fits and set(candidate.names) & set(found.equals)
        if not exact or found.best is None or found.best.error is None or found.best.error > 1e-6:
            wrong[candidate.names[0]] = found.lines()[:3]
        n_found += 1
    assert wrong == {}
    assert n_found >= 0.95 * len(candidates())


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda M: M, "as it is"),
        (lambda M: M.astype(np.float16), "as it is"),
        (lambda M: 0.25 * M + 3.0, "affine"),
        (lambda M: 2.0 * (M - M.min()) / (M.max() - M.min()) - 1.0, "affine"),
        (lambda M: (M / np.log(10.0)).astype(np.float32), "affine"),
        (standard, "per band"),
    ],
    ids=["as it is", "float16", "affine", "range", "log10", "per band"],
)
def test_a_normalisation_is_found(
    change: Callable[[Mel], Mel], how: str, speech: NDArray[np.float32], heard: Recording
) -> None:
    found = identify(change(melmill.mel(speech, preset="hifigan")), heard)
    assert found.fits
    assert found.best is not None
    assert found.best.how == how
    assert "hifigan" in found.equals


def test_the_fix_gives_back_the_mel(speech: NDArray[np.float32], heard: Recording) -> None:
    made = replace(melmill.preset("hifigan"), shift=4.0, scale=0.3)
    found = identify(melmill.mel(speech, made).T[np.newaxis], heard)
    assert found.transposed
    assert found.best is not None
    assert found.best.spec.shift == pytest.approx(4.0, abs=1e-3)
    assert found.best.spec.scale == pytest.approx(0.3, abs=1e-4)
    assert "layout: frames_first" in found.fix_yaml()
    assert "shift: 4" in found.fix_yaml()
    assert "dataclasses.replace(melmill.preset(" in found.fix_python()


def test_a_normalisation_per_band_is_undone(speech: NDArray[np.float32], heard: Recording) -> None:
    M = melmill.mel(speech, preset="melgan")
    best = identify(standard(M), heard).best
    assert best is not None
    assert best.band_scale is not None
    np.testing.assert_allclose(best.undone(standard(M)), M, atol=1e-3)


def test_the_fix_says_the_numbers_of_each_band(speech: NDArray[np.float32], heard: Recording) -> None:
    M = standard(melmill.mel(speech, preset="melgan"))
    said = parse(identify(M, heard).fix_yaml(), "fix").value["mels"].value
    read = {name: said[name].value for name in ("preset", "band_mean", "band_std")}
    numbers: dict[str, Any] = {name: tuple(each.value for each in read[name]) for name in ("band_mean", "band_std")}
    made = MelFields(preset=read["preset"], **numbers).spec
    np.testing.assert_allclose(melmill.mel(speech, made), M, atol=1e-3)


# NeMo adds its floor and overwrites a frame, Whisper's floor follows the utterance.
@pytest.mark.parametrize("name", ["nemo_fastpitch", "nemo_hifigan_44k", "starganv2_vc", "whisper_128"])
@pytest.mark.parametrize("floor", [None, 1e-3], ids=["no log", "other floor"])
def test_what_a_preset_does_after_its_bank_is_no_part_of_another_form(
    name: str, floor: float | None, speech: NDArray[np.float32], heard: Recording
) -> None:
    bands = melmill.mel(speech, bands_of(melmill.preset(name)), sr=SR)
    M = 3.0 * bands if floor is None else np.log(np.maximum(bands, floor))
    found = identify(M, heard)
    assert found.fits
    assert found.best is not None
    np.testing.assert_allclose(melmill.mel(speech, found.best.spec, sr=SR), M, rtol=1e-4, atol=1e-5)
    fixed = MelSpec.from_dict(melmill.preset(found.best.name).as_dict() | found.best.overrides())
    np.testing.assert_allclose(melmill.mel(speech, fixed, sr=SR), M, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("center", "pad_mode"), [("same", "constant"), (True, "constant")])
def test_another_framing_is_found(center: Any, pad_mode: Any, speech: NDArray[np.float32]) -> None:
    loud = speech + np.random.default_rng(0).normal(0, 0.01, speech.size).astype(np.float32)
    spec = replace(melmill.preset("melgan"), center=center, pad_mode=pad_mode, fmax=8000.0, log="ln")
    found = melmill.identify(melmill.mel(loud, spec), loud, SR)
    assert found.fits
    assert found.best is not None
    assert (found.best.spec.center, found.best.spec.pad_mode) == (center, pad_mode)


def test_samples_before_the_first_frame_are_found(speech: NDArray[np.float32], heard: Recording) -> None:
    found = identify(melmill.mel(speech[77:], preset="melgan"), heard)
    assert found.best is not None
    assert "melgan" in (found.best.name, *found.equals)
    assert any("begins 77 samples" in note for note in found.best.notes)


def test_trimmed_frames_are_found(speech: NDArray[np.float32], heard: Recording) -> None:
    found = identify(melmill.mel(speech, preset="melgan")[:, 30:-20], heard)
    assert found.fits
    assert found.best is not None
    assert "the first 30 frames of the recording are missing" in found.best.notes


def test_a_rate_that_was_ignored_is_found(speech: NDArray[np.float32], heard: Recording) -> None:
    M = melmill.mel(speech, preset="vocos_24khz")  # 22.05 kHz taken for 24 kHz
    found = identify(M, heard)
    assert found.fits
    assert found.best is not None
    assert any("taken for 24000 Hz" in note for note in found.best.notes)


def test_another_level_is_found(speech: NDArray[np.float32], heard: Recording) -> None:
    found = identify(melmill.mel(0.5 * speech, preset="melgan"), heard)
    assert found.fits
    assert found.best is not None
    assert any("6.02 dB quieter" in note for note in found.best.notes)
    assert found.best.spec == melmill.preset("melgan")


def test_a_missing_log_is_found(speech: NDArray[np.float32], heard: Recording) -> None:
    M = melmill.mel(speech, replace(melmill.preset("hifigan"), log=None, floor=None))
    found = identify(M, heard)
    assert found.fits
    assert found.best is not None
    assert found.best.spec.log is None


def test_a_predicted_mel_is_close_to_its_preset(speech: NDArray[np.float32], heard: Recording) -> None:
    M = melmill.mel(speech, preset="melgan")
    noisy = M + np.random.default_rng(0).normal(0, 0.1 * M.std(), M.shape)
    found = identify(noisy, heard)
    assert found.verdict == "close"
    assert found.best is not None
    assert found.best.name == "melgan"


def test_a_mel_of_another_recording_fits_nothing(speech: NDArray[np.float32]) -> None:
    M = melmill.mel(speech, preset="melgan")
    found = melmill.identify(M, np.ascontiguousarray(speech[::-1]), SR)
    assert found.verdict == "unknown"


@pytest.mark.parametrize(
    "changes",
    [{"fmax": 7500.0}, {"fmin": 60.0}, {"htk": True}, {"power": 2.0}, {"win_length": 800}, {"hop_length": 200}],
    ids=str,
)
def test_a_make_that_no_preset_has_does_not_fit(
    changes: dict[str, Any], speech: NDArray[np.float32], heard: Recording
) -> None:
    spec = replace(melmill.preset("tacotron2"), **changes)
    assert not identify(melmill.mel(speech, spec), heard).fits


def test_the_lag_of_a_shifted_mel() -> None:
    M = np.cumsum(np.random.default_rng(0).normal(size=(4, 200)), axis=1)
    assert lag_of(M, M) == 0
    assert lag_of(M[:, 17:], M) == 17
    assert lag_of(M, M[:, 17:]) == -17


def test_wrong_arguments_are_refused(speech: NDArray[np.float32]) -> None:
    M = melmill.mel(speech, preset="melgan")
    with pytest.raises(melmill.ParameterError, match="sr must be given with y"):
        melmill.identify(M, speech)
    with pytest.raises(melmill.StageError, match="mix its channels first"):
        melmill.identify(M, np.zeros((2, 100)), SR)
    with pytest.raises(melmill.ParameterError, match="top"):
        melmill.identify(M, top=0)
