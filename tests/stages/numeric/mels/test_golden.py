"""Presets against what each project's own code answered for the same speech."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names, preset_of

DEFAULT = Path(__file__).parents[5] / "shared"

# Numbers of bands that a case was computed with, as its project keeps them in a file.
NUMBERS = {
    "coqui_stats": ("mel_mean.npy", "mel_std.npy"),
    "parallel_wavegan_stats": ("mean.npy", "scale.npy"),
}


def spec_of(name: str, folder: Path) -> MelSpec:
    """Return the spec of a preset, with the numbers of its case."""
    if name not in NUMBERS:
        return preset(name)
    mean, std = (np.load(folder / file) for file in NUMBERS[name])
    return preset(name).normalised(mean, std)


@pytest.mark.real
def test_presets_equal_the_answers_of_the_projects(real_data: Path) -> None:
    """To 1e-5 of the mel's norm, on speech and on speech with a gap of zeros and a quiet end.

    What remains is the official code's float32 FFT.
    """
    golden = real_data / "golden" / "mels"
    wrong, n_equal = {}, 0
    for folder in sorted(golden.glob("mel-*")):
        name = folder.name.removeprefix("mel-").replace("-", "_")
        audio = Path(json.loads((folder / "case.json").read_text())["audio"]).stem
        for suffix in ("", "_gaps"):
            official = np.load(folder / f"official_mel{suffix}.npy")
            M = mel_spectrogram(np.load(golden / f"{audio}{suffix}.npy"), spec_of(name, folder))
            same_shape = M.shape == official.shape
            error = float(np.linalg.norm(M - official) / np.linalg.norm(official)) if same_shape else np.inf
            if error <= 1e-5:
                n_equal += 1
            else:
                wrong[name + suffix] = (error, M.shape, official.shape)
    assert wrong == {}
    assert n_equal >= 138


@pytest.mark.real
def test_every_answer_has_a_preset_of_its_name(real_data: Path) -> None:
    names = {folder.name[4:].replace("-", "_") for folder in (real_data / "golden" / "mels").glob("mel-*")}
    assert names <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_says_where_it_is_from(name: str) -> None:
    known = preset_of(name)
    assert known.name == name
    assert known.project
    assert known.source
    assert known.note.endswith((".", "]", ")")) or ":" in known.note or len(known.note) > 10
