"""Mels that projects' own code made of a recording are identified as that project's preset."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from melmill.flows.exchange.identify.identify import identify
from melmill.flows.exchange.identify.matching import Recording


def identified(folder: Path, suffix: str, heard: dict[str, Recording]) -> None:
    """Assert that the mel of a case fits the preset of its name.

    Each recording is kept in `heard`: the presets' mels are made of it once for all cases.
    """
    name = folder.name.removeprefix("mel-").replace("-", "_")
    (sr, *_) = map(int, re.findall(r"audio_(\d+)", json.dumps(json.loads((folder / "case.json").read_text()))))
    file = f"audio_{sr}{suffix}.npy"
    if file not in heard:
        heard[file] = Recording(y=np.load(folder.parent / file), sr=sr)
    found = identify(np.load(folder / f"official_mel{suffix}.npy"), heard[file])
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


@pytest.mark.parametrize("suffix", ["", "_gaps"])
def test_every_mel_of_a_project_is_identified(suffix: str, real_data: Path) -> None:
    folders = cases(real_data)
    assert len(folders) > 60
    heard: dict[str, Recording] = {}
    for folder in folders:
        identified(folder, suffix, heard)
