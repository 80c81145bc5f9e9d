"""Every family gives the waveforms of the official code, loaded by its files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import melmill
from tests.stages.vocode.tiny import TOLERANCE, Golden, relative

Noise = Callable[[Golden], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A checkpoint, and what is known of it: a preset that is its mel, or some fields of that."""

    folder: str
    file: str
    family: str
    mel: str | Mapping[str, object]
    config: Mapping[str, Any] | None = None
    noise: Noise | None = None
    answer: str = "wav"

    @property
    def id(self) -> str:
        return f"{self.folder}, {self.file}, {self.answer}, {self.config}"


def numbered(name: str, n: int, scale: float = 1.0) -> Noise:
    """Return what reads the draws ``name_0``, ``name_1``, ..."""
    return lambda golden: [np.float32(scale) * golden.array(f"{name}_{i}") for i in range(n)]


def joined(golden: Golden) -> list[NDArray[np.float32]]:
    """Return the draws of WaveGlow that the official code found by running forwards."""
    z = golden.array("forward_z")
    return [z[:, 4:], z[:, 2:4], z[:, :2]]


BIGVGAN_2 = "bigvgan_v2_24khz_100band_256x"
UNIVNET = {"sr": 24000, "n_mels": 40, "hop_length": 120, "fmax": 12000.0}
WAVEGLOW = {"n_mels": 8, "hop_length": 256, "center": True, "fmax": 8000.0}
GLOW = "waveglow_state_dict.pt"
CASES = [
    Case(folder="hifigan-v1", file="g_00000001", family="hifigan", mel="hifigan"),
    Case(folder="hifigan-v1", file="g_00000001.legacy", family="hifigan", mel="hifigan"),
    Case(folder="hifigan-v3", file="g_00000001", family="hifigan", mel="hifigan"),
    Case(folder="hifigan-v3", file="g_00000001.no_weight_norm", family="hifigan", mel="hifigan"),
    Case(folder="bigvgan-v1", file="g_05000000", family="bigvgan", mel="bigvgan_24khz_100band"),
    Case(folder="bigvgan-v2", file="bigvgan_generator.pt", family="bigvgan", mel=BIGVGAN_2),
    Case(folder="bigvgan-v2", file="bigvgan_generator.no_weight_norm", family="bigvgan", mel=BIGVGAN_2),
    Case(folder="vocos-mel24k", file="pytorch_model.bin", family="vocos", mel="vocos_24khz"),
    Case(folder="melgan-descript", file="best_netG.pt", family="melgan", mel="melgan"),
    Case(folder="melgan-descript", file="best_netG.pt.legacy", family="melgan", mel="melgan"),
    Case(folder="melgan-seungwonpark", file="melgan_aca5990_0001.pt", family="melgan", mel="melgan_seungwonpark"),
    Case(
        folder="melgan-seungwonpark", file="melgan_aca5990_0001.pt.legacy", family="melgan", mel="melgan_seungwonpark"
    ),
    # Noise for the mel alone is the official forward pass; noise for ten frames more is official inference.
    Case(
        folder="univnet-c32-b",
        file="univ_c4_0001.pt",
        family="univnet",
        mel=UNIVNET,
        noise=lambda golden: [golden.array("z")[..., : golden.array("mel").shape[1]]],
    ),
    Case(
        folder="univnet-c32-b",
        file="univ_c4_0001.pt",
        family="univnet",
        mel=UNIVNET,
        noise=lambda golden: [golden.array("z")],
        answer="wav_inference",
    ),
    # Sizes of the weights, then those of the configuration beside them.
    Case(folder="waveglow", file=GLOW, family="waveglow", mel=WAVEGLOW, config={"sigma": 0.3}, noise=numbered("z", 3)),
    Case(folder="waveglow", file=GLOW, family="waveglow", mel=WAVEGLOW, noise=numbered("z", 3, scale=0.3)),
    Case(folder="waveglow", file=GLOW, family="waveglow", mel=WAVEGLOW, config={"sigma": 0}, answer="wav_sigma0"),
    Case(folder="waveglow", file=GLOW, family="waveglow", mel=WAVEGLOW, config={}, noise=joined),
    # Its schedule lies beside the weights.
    Case(folder="wavegrad", file="weights.pt", family="wavegrad", mel="wavegrad", noise=numbered("noise", 6)),
]


@pytest.mark.real
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_equals_the_official_code(golden: Callable[[str], Golden], case: Case) -> None:
    found = golden(case.folder)
    voc = melmill.load_vocoder(found.folder / case.file, config=case.config)
    assert voc.family == case.family
    if isinstance(case.mel, str):
        assert voc.spec == melmill.preset(case.mel)
    else:
        assert {name: getattr(voc.spec, name) for name in case.mel} == case.mel
    y = voc(found.array("mel"), noise=None if case.noise is None else case.noise(found))
    assert relative(y, found.array(case.answer)) < TOLERANCE
