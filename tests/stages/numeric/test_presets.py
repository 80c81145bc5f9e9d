"""Presets against the mels that each project's own code made of the same excerpt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melmill.stages.numeric.errors import ParameterError
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import equal_presets, find_presets, preset, preset_names, preset_note

OFFICIAL = [
    # folder of the official mel, preset, largest difference in the mel's own unit. Ours agrees with
    # float64 to 1e-6. What remains is the official code's float32 FFT, whose rounding a log
    # magnifies in quiet bands of loud frames.
    ("mel-hifigan-22k-fmax8k", "hifigan", 3e-4),
    ("mel-tacotron2-waveglow-22k-fmax8k", "tacotron2", 1e-4),
    ("mel-melgan-descript-22k", "melgan", 1e-4),
    ("mel-bigvgan-v2-24khz-100band-256x", "bigvgan_v2_24khz_100band_256x", 2e-4),
    ("mel-univnet-24k", "univnet", 2e-4),
    ("mel-vocos-24k", "vocos_24khz", 2e-4),
    ("mel-wavegrad-22k", "wavegrad", 6e-5),
    ("mel-wavenet-r9y9-22k", "wavenet_r9y9", 1e-6),  # librosa, whose FFT is float64
]


@pytest.mark.real
@pytest.mark.parametrize(("folder", "name", "tolerance"), OFFICIAL)
def test_preset_gives_the_official_mel(real_data: Path, folder: str, name: str, tolerance: float) -> None:
    spec = preset(name)
    y = np.load(real_data / "golden" / f"audio_{spec.sr}.npy")
    official = np.load(real_data / "golden" / folder / "official_mel.npy")
    difference = np.abs(mel_spectrogram(y, spec) - official)
    assert difference.max() < tolerance
    assert difference.mean() < 5e-6


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_note_and_survives_storage(name: str) -> None:
    assert preset_note(name)
    assert MelSpec.from_dict(preset(name).as_dict()) == preset(name)


def test_paper_is_the_default_spec() -> None:
    assert preset("paper") == MelSpec()


def test_presets_of_one_shape_have_different_values() -> None:
    """The traps: 24 kHz, 100 bands, hop 256 in each, and none reads another's mels."""
    specs = [preset(name) for name in ("bigvgan_24khz_100band", "vocos_24khz")]
    assert specs[0].n_mels == specs[1].n_mels
    assert specs[0].hop_length == specs[1].hop_length
    assert specs[0] != specs[1]


def test_projects_own_names_and_short_ones_are_taken() -> None:
    assert preset("nemo-hifigan") == preset("nemo_hifigan")
    assert preset("whisper") == preset("whisper_80")


FOUND = [
    # words, project, rate, bands: a preset that is found, one that is not
    ("", "nvidia", None, None, "bigvgan_v2_24khz_100band_256x", "vits"),
    ("", "NeMo", 44100, None, "nemo_hifigan_44k", "nemo_hifigan"),
    ("", None, 24000, 100, "vocos_24khz", "hifigan"),
    ("eps 1e-9", None, None, None, "cosyvoice2", "vits"),
]


@pytest.mark.parametrize(("text", "project", "sr", "n_mels", "found", "other"), FOUND)
def test_presets_are_found(
    text: str, project: str | None, sr: int | None, n_mels: int | None, found: str, other: str
) -> None:
    names = [known.name for known in find_presets(text, project=project, sr=sr, n_mels=n_mels)]
    assert found in names
    assert other not in names


def test_equal_presets_are_known() -> None:
    assert {"hifigan", "grad_tts", "dle_hifigan"} <= set(equal_presets(preset("hifigan")))
    assert equal_presets(MelSpec(n_mels=77)) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hifi_gan", "did you mean 'hifigan'"),  # a near miss
        ("zzz", r"does not exist \(`melmill mel show` lists all"),  # nothing near
        ("wavtok", "did you mean 'wavtokenizer'"),  # a part of it
        ("qwen2.5-omni", "does not exist"),
        ("qwen2_5_omni", "are not in its repository"),  # known, but no spec can say it
    ],
)
def test_unknown_preset_is_refused(name: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        preset(name)
    assert caught.value.field == "preset"
