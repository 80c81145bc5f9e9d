"""Mels that were made otherwise than by their spec are told by the range of their values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from melmill.stages.numeric.errors import EmptyBandWarning, Unusable
from melmill.stages.numeric.mel import (
    check_range,
    loudest_frame_db,
    mel_range,
    mel_spectrogram,
    range_problem,
)
from melmill.stages.numeric.melspec import MelSpec, Pcen
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.numeric.resample import resample

SR = 16000
# Fields that shape values: of the presets that have these in common, one is tried.
SHAPING = (
    "log",
    "floor",
    "norm",
    "power",
    "shift",
    "scale",
    "clip",
    "floor_kind",
    "below_max",
    "normalized",
    "bank_sr",
)
PRESETS = sorted({tuple(getattr(preset(name), field) for field in SHAPING): name for name in preset_names()}.values())
pytestmark = pytest.mark.filterwarnings(f"ignore::{EmptyBandWarning.__module__}.EmptyBandWarning")


def sounds() -> dict[str, NDArray[np.float32]]:
    """Return sounds as loud as can be, as quiet, as dense and as sparse."""
    rng, t = np.random.default_rng(0), np.arange(SR) / SR
    burst = rng.uniform(-1, 1, SR) * np.exp(-30 * t)
    made = {
        "noise": rng.uniform(-1, 1, SR),
        "binary noise": np.sign(rng.standard_normal(SR)),
        "tone": np.sin(2 * np.pi * 440 * t),
        "square wave": np.sign(np.sin(2 * np.pi * 110 * t)),
        "sweep": np.sin(2 * np.pi * (50 * t + 3900 * t**2)),
        "clicks": np.eye(1, SR, 77)[0],
        "burst": burst,
        "quiet noise": 1e-4 * rng.standard_normal(SR),
        "silence": np.zeros(SR),
        "one frame": rng.uniform(-1, 1, 4000),
    }
    return {name: y.astype(np.float32) for name, y in made.items()}


def variants(M: NDArray[np.float32], spec: MelSpec) -> list[NDArray[np.float32]]:
    """Return a mel, the same as float16, and with errors of 2 dB as of an acoustic model."""
    kept = [M]
    if np.abs(M).max() < 6e4:
        kept.append(M.astype(np.float16).astype(np.float32))
    if spec.log is not None:
        decibel = {"ln": spec.power * np.log(10) / 20, "log10": spec.power / 20, "db": 1.0}[spec.log] * spec.scale
        error = 2.0 * decibel * np.random.default_rng(0).standard_normal(M.shape)
        kept.append((M + error).astype(np.float32))
    return kept


@pytest.mark.parametrize("name", PRESETS)
def test_no_mel_of_the_spec_is_refused(name: str) -> None:
    spec = preset(name)
    for what, y in sounds().items():
        for M in variants(mel_spectrogram(resample(y, SR, spec.sr), spec), spec):
            assert not range_problem(M, spec), what


@pytest.mark.parametrize("name", PRESETS)
def test_no_short_segment_of_noise_is_refused(name: str) -> None:
    # Few frames of noise may lie within 14 dB, and loud ones above what is loud throughout.
    spec, rng = preset(name), np.random.default_rng(0)
    n = 2 * spec.sr
    for y in (rng.uniform(-1, 1, n), np.sign(rng.standard_normal(n)), 1e-3 * rng.standard_normal(n)):
        M = mel_spectrogram(y.astype(np.float32), spec)
        for n_frames in (1, 2, 4, 8, 15):
            for first in range(0, M.shape[1] - n_frames, 5):
                assert not range_problem(M[:, first : first + n_frames], spec), (n_frames, first)


def test_a_short_mel_is_judged_by_its_bounds() -> None:
    spec = preset("hifigan")
    values = speech(spec)
    frame = values[:, [values.sum(axis=0).argmax()]]
    assert not range_problem(np.log(np.maximum(frame, 1e-5)).astype(np.float32), spec)
    assert "dB over full scale" in range_problem(db(frame + 1.0).astype(np.float32), spec)
    assert "far below its lowest" in range_problem(np.full((80, 1), -40.0, dtype=np.float32), spec)


def test_enough_frames_are_judged_by_their_spread() -> None:
    spec = preset("hifigan")
    M = np.random.default_rng(0).uniform(0.2, 0.9, (80, 16)).astype(np.float32)
    assert range_problem(M, spec)
    assert not range_problem(M[:, :15], spec)


@pytest.mark.parametrize("name", PRESETS)
def test_no_mel_of_real_recordings_is_refused(name: str, real_data: Path) -> None:
    spec = preset(name)
    files = sorted((real_data / "corpora").glob("*/**/*.*"))
    files = [file for file in files if file.suffix in (".wav", ".flac", ".ogg")][::30]
    assert len(files) > 5
    for file in files:
        y, sr = soundfile.read(file, dtype="float32", always_2d=True, frames=100_000)
        mono = resample(y.mean(axis=1), sr, spec.sr)
        for gain in (1.0, 1.0 / np.abs(mono).max()):
            for M in variants(mel_spectrogram(mono * np.float32(gain), spec), spec):
                assert not range_problem(M, spec), file


@pytest.mark.parametrize(
    "spec",
    [
        MelSpec(),
        MelSpec(norm=None, htk=True),
        MelSpec(power=2.0),
        MelSpec(normalized=True, log="db", floor=1e-8),
        MelSpec(compression=0.3),
        MelSpec(log="ln", floor=1e-5, shift=4.0, scale=0.25),
    ],
)
def test_the_level_of_the_loudest_frame_is_known_from_below(spec: MelSpec) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, SR).astype(np.float32)
    for gain_db in (0.0, -30.0):
        level_db = loudest_frame_db(mel_spectrogram(noise * np.float32(10 ** (gain_db / 20)), spec), spec)
        # Bands average magnitudes, so that noise seems up to 1 dB quieter. Frames vary by as much.
        assert gain_db - 4.77 - 1.5 < level_db < gain_db - 4.77 + 1.0  # 10 log10(1 / 3)


def test_bounds_are_those_of_sounds() -> None:
    spec = MelSpec(log="ln", floor=1e-5)
    known = mel_range(spec)
    assert known.lowest == pytest.approx(np.log(1e-5))
    for what, y in sounds().items():
        M = mel_spectrogram(y, spec)
        assert known.lowest - 1e-5 <= M.min(), what
        assert M.max() <= known.highest, what
        assert what == "silence" or M.min() < known.always or M.size == 0, what


def speech(spec: MelSpec) -> NDArray[np.float64]:
    """Return the bands, before any log, of harmonics between pauses of faint noise."""
    t = np.arange(2 * spec.sr) / spec.sr
    harmonics = sum(np.sin(2 * np.pi * 120 * k * t + k) / k for k in range(1, 30))
    y = 0.1 * np.clip(2 * np.sin(2 * np.pi * 2 * t), 0, 1) * harmonics
    y += 1e-6 * np.random.default_rng(0).standard_normal(t.size)
    plain = replace(spec, log=None, floor=None, compression=None, shift=0.0, scale=1.0, clip=None)
    return mel_spectrogram(y.astype(np.float32), plain).astype(np.float64)


def db(bands: NDArray[np.float64]) -> NDArray[np.float64]:
    return 20.0 * np.log10(np.maximum(bands, 1e-5))


def standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred / (values.std(axis=1, keepdims=True) + 1e-5))


IN_DB = "look like log: db"
UNIT = "look normalised to 0 to 1, or like magnitudes without a log"
MADE: dict[str, tuple[Any, str]] = {
    "ln": (lambda bands: np.log(np.maximum(bands, 1e-5)), "look like log: ln"),
    "log10": (lambda bands: np.log10(np.maximum(bands, 1e-5)), "look like log: log10"),
    "db": (db, IN_DB),
    "db below the loudest": (lambda bands: np.maximum(db(bands) - db(bands).max(), -80.0), IN_DB),
    "magnitudes": (lambda bands: 3.0 * bands / bands.max(), "look like log: null"),
    "16-bit": (lambda bands: np.log(np.maximum(32768.0 * bands, 1e-5)), "look like a mel of 16-bit integers: divide"),
    "0 to 1": (lambda bands: np.clip(db(bands) / 100 + 0.8, 0, 1), UNIT),
    "-1 to 1": (lambda bands: np.clip(db(bands) / 50 + 0.6, -1, 1), "look normalised to -1 to 1"),
    "-4 to 4": (lambda bands: np.clip(db(bands) / 12.5 + 2.4, -4, 4), "look normalised to -4 to 4"),
    "mean and variance": (lambda bands: standard(db(bands)), "look normalised to mean 0 and variance 1"),
}


@pytest.mark.parametrize(
    ("spec", "made"),
    [("hifigan", made) for made in MADE if made != "ln"]
    + [("bigvgan_v2_44khz_128band_512x", made) for made in ("log10", "db", "0 to 1", "-1 to 1", "-4 to 4", "16-bit")]
    + [("melgan", made) for made in ("ln", "db", "db below the loudest", "0 to 1", "-4 to 4")]
    + [("parallel_wavegan", made) for made in ("ln", "db", "0 to 1", "-4 to 4")]
    + [("vocos_24khz", made) for made in ("log10", "db", "0 to 1", "-1 to 1")]
    + [("paper", made) for made in ("ln", "log10", "db", "-4 to 4", "mean and variance")]
    + [("diffwave", made) for made in ("ln", "-4 to 4")],
)
def test_a_mel_that_was_made_otherwise_is_told(spec: str, made: str) -> None:
    values, looks = MADE[made]
    M = values(speech(preset(spec))).astype(np.float32)
    with pytest.raises(Unusable, match=r"^no mel of its spec: ") as told:
        check_range(M, preset(spec))
    known = mel_range(preset(spec))
    assert looks in str(told.value)
    assert f"sound within full scale gives {known.lowest:.4g} to {known.highest:.4g}" in str(told.value)
    assert f"its values are {M.min():g} to {M.max():g}" in str(told.value)


def test_a_preset_of_the_log_is_named() -> None:
    M = np.log10(np.maximum(speech(preset("hifigan")), 1e-5)).astype(np.float32)
    assert "look like log: log10 (preset coqui_stats, espnet2, melgan)" in range_problem(M, preset("hifigan"))


@pytest.mark.parametrize(
    ("M", "spec"),
    [
        (np.full((80, 9), -5.0), MelSpec(log="ln", floor=1e-5)),  # of one value
        (np.full((80, 9), 0.0), MelSpec(log="ln", floor=1e-5)),
        (np.full((80, 9), 300.0), MelSpec(pcen=Pcen())),  # PCEN has no full scale
        (np.full((80, 9), 1e9), MelSpec(power=3.0)),
    ],
)
def test_what_tells_nothing_is_not_judged(M: NDArray[Any], spec: MelSpec) -> None:
    assert not range_problem(M.astype(np.float32), spec)


@pytest.mark.filterwarnings("ignore::melmill.stages.numeric.errors.EmptyBandWarning")
def test_bands_without_a_bin_are_not_judged() -> None:
    spec = MelSpec(
        sr=16000, n_fft=32, win_length=32, hop_length=8, n_mels=2, fmin=7600.0, fmax=7900.0, log="ln", floor=1e-5
    )
    assert range_problem(np.full((2, 4), 7.0, dtype=np.float32), spec) == ""
