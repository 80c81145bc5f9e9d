"""Which mels become which, and what a person is told where they don't."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from melmill.stages.numeric.contract import conversion, convert, differences, explain
from melmill.stages.numeric.errors import ContractError
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec, Pcen
from melmill.stages.numeric.presets import preset

LN = MelSpec(log="ln", floor=1e-5)
# clip((20 log10(max(M, 1e-5)) + 80) / 100, 0, 1): -80 dB to 20 dB are told apart
DECIBELS = MelSpec(log="db", floor=1e-5, shift=80.0, scale=0.01, clip=(0.0, 1.0))

PAIRS = [
    # made by, needed, conversion, the fields that differ, worst first
    (LN, LN, "same", []),
    (MelSpec(), MelSpec(fmax=8000.0), "same", []),  # half the rate either way
    (MelSpec(floor=1e-5), MelSpec(), "same", []),  # a floor without a log does nothing
    (MelSpec(center=False), MelSpec(center=False, pad_mode="reflect"), "same", []),  # nothing is padded
    # values only
    (LN, replace(LN, log="log10"), "lossless", ["log"]),
    (LN, replace(LN, shift=1.0, scale=0.5), "lossless", ["shift", "scale"]),
    (LN, replace(LN, floor=1e-3), "lossless", ["floor"]),
    (MelSpec(), LN, "lossless", ["log", "floor"]),
    (MelSpec(), MelSpec(compression=0.3), "lossless", ["compression"]),
    (MelSpec(), MelSpec(normalized=True), "lossless", ["normalized"]),
    (MelSpec(), MelSpec(norm=None), "lossless", ["norm"]),
    (MelSpec(), MelSpec(pcen=Pcen()), "lossless", ["pcen"]),
    (MelSpec(pcen=Pcen()), LN, "lossless", ["log", "pcen", "floor"]),
    (replace(LN, floor=1e-6), DECIBELS, "lossless", ["log", "shift", "scale", "floor", "clip"]),
    # something is hidden that is needed
    (LN, replace(LN, floor=1e-7), "lossy", ["floor"]),
    (LN, MelSpec(), "lossy", ["floor", "log"]),
    (DECIBELS, replace(DECIBELS, clip=None), "lossy", ["clip"]),
    (DECIBELS, replace(DECIBELS, clip=(0.0, 2.0)), "lossy", ["clip"]),
    (DECIBELS, replace(DECIBELS, shift=100.0), "lossy", ["clip", "shift"]),  # the same clip hides other values
    (LN, replace(LN, normalized=True), "lossless", ["normalized"]),  # the same floor, after a division: it hides less
    (replace(LN, normalized=True), LN, "lossy", ["floor", "normalized"]),
    (MelSpec(pcen=Pcen(), clip=(0.0, 1.0)), MelSpec(), "lossy", ["pcen", "clip"]),
    # frames of other samples
    (LN, replace(LN, center="same"), "lossy", ["center"]),
    (LN, replace(LN, pad_mode="reflect"), "lossy", ["pad_mode"]),
    (LN, replace(LN, eps=1e-9), "lossy", ["eps"]),
    # other sounds
    (MelSpec(), MelSpec(sr=24000), "impossible", ["sr"]),
    (MelSpec(), MelSpec(n_fft=2048, win_length=1024), "impossible", ["n_fft"]),
    (MelSpec(), MelSpec(win_length=800), "impossible", ["win_length"]),
    (MelSpec(), MelSpec(hop_length=200), "impossible", ["hop_length"]),
    (MelSpec(), MelSpec(n_mels=100), "impossible", ["n_mels"]),
    (MelSpec(), MelSpec(fmin=80.0), "impossible", ["fmin"]),
    (MelSpec(), MelSpec(fmax=7600.0), "impossible", ["fmax"]),
    (MelSpec(), MelSpec(htk=True), "impossible", ["htk"]),
    (MelSpec(), MelSpec(power=2.0), "impossible", ["power"]),
    (MelSpec(pcen=Pcen(gain=1.0)), MelSpec(), "impossible", ["pcen"]),
]


@pytest.mark.parametrize(("a", "b", "kind", "fields"), PAIRS)
def test_differences_are_judged(a: MelSpec, b: MelSpec, kind: str, fields: list[str]) -> None:
    assert conversion(a, b) == kind
    assert [difference.field for difference in differences(a, b)] == fields


@pytest.mark.parametrize(("a", "b"), [(a, b) for a, b, kind, _ in PAIRS if kind in ("same", "lossless")])
def test_lossless_conversion_gives_the_mel_itself(a: MelSpec, b: MelSpec) -> None:
    y = np.random.default_rng(5).standard_normal(8000).astype(np.float32) * np.linspace(0, 0.3, 8000, dtype=np.float32)
    converted = convert(mel_spectrogram(y, a), a, b)
    assert converted.dtype == np.float32
    np.testing.assert_allclose(converted, mel_spectrogram(y, b), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("a", "b"), [(a, b) for a, b, kind, _ in PAIRS if kind in ("lossy", "impossible")])
def test_conversion_that_would_lose_is_refused_with_the_table(a: MelSpec, b: MelSpec) -> None:
    worst = differences(a, b)[0]
    with pytest.raises(ContractError, match=rf"{worst.field} .*{worst.conversion}"):
        convert(np.zeros((a.n_mels, 4), dtype=np.float32), a, b)


@pytest.mark.parametrize(
    ("a", "b", "lines"),
    [
        # the trap: one shape, other values
        (
            preset("bigvgan_24khz_100band"),
            preset("vocos_24khz"),
            [
                "both mels are (100, n_frames) at 93.75 frames/s, but the same sound has other values in them: "
                "they can't be converted",
                "  htk     false      true    impossible  extract again with htk: true",
                "  floor   1e-05      1e-07   lossy       extract again with a lower floor",
                "  norm    slaney     null    lossless    convert",
            ],
        ),
        (
            preset("paper"),
            preset("hifigan"),
            [
                "the mels differ in shape or rate: they can't be converted",
                "  sr        16000      22050    impossible  extract again with sr: 22050",
            ],
        ),
        (
            LN,
            MelSpec(pcen=Pcen()),
            [
                "  pcen   null       gain: 0.98, bias: 2, power: 0.5, time_constant_s: 0.4, eps: 1e-06  "
                "lossless    convert"
            ],
        ),
        (LN, LN, ["the two mels are made alike"]),
    ],
)
def test_explanation_is_a_table_for_people(a: MelSpec, b: MelSpec, lines: list[str]) -> None:
    told = explain(a, b).splitlines()
    assert [line for line in lines if line not in told] == []


def test_frame_shift_alone_is_told_between_presets() -> None:
    """HiFi-GAN and Tacotron 2 mels look alike and sit half a hop apart."""
    found: list[Any] = [(d.field, d.a, d.b) for d in differences(preset("hifigan"), preset("hifigan_ft"))]
    assert found == [("center", "same", True), ("eps", 1e-9, 0.0)]
