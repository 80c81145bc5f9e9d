"""Mels that projects' own code made of a recording are identified as that project's preset."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import melmill

QUICK = ("whisper-80", "styletts2", "nemo-asr", "audioldm-48k", "riffusion")


def identified(folder: Path, suffix: str) -> None:
    """Assert that the mel of a case fits the preset of its name."""
    name = folder.name.removeprefix("mel-").replace("-", "_")
    (sr, *_) = map(int, re.findall(r"audio_(\d+)", json.dumps(json.loads((folder / "case.json").read_text()))))
    M, y = (np.load(path) for path in (folder / f"official_mel{suffix}.npy", folder.parent / f"audio_{sr}{suffix}.npy"))
    found = melmill.identify(M, y, sr)
    assert found.fits, (name, found.lines())
    assert found.best is not None
    assert name in {*found.equals, *found.best.presets}
    assert found.best.error is not None
    assert found.best.error <= 1e-5


def cases(real_data: Path) -> list[Path]:
    folders = sorted((real_data / "golden" / "mels").glob("mel-*"))
    if not folders:
        pytest.skip(f"no mels of other projects at {real_data / 'golden' / 'mels'}")
    return folders


@pytest.mark.parametrize("name", QUICK)
def test_a_mel_of_a_project_is_identified(name: str, real_data: Path) -> None:
    (folder,) = [folder for folder in cases(real_data) if folder.name == f"mel-{name}"]
    identified(folder, "")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "_gaps"])
def test_every_mel_of_a_project_is_identified(suffix: str, real_data: Path) -> None:
    folders = cases(real_data)
    assert len(folders) > 60
    for folder in folders:
        identified(folder, suffix)
