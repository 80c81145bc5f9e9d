"""A store of a small corpus of several speakers, with recordings and mels."""

from __future__ import annotations

from pathlib import Path

import pytest

import melmill
from melmill.storage.store import Store
from tests.flows.conftest import add_chapter, flac, voice

SPEAKERS = ("84", "61", "908", "1089")

PIPELINE = """\
name: sets
store: {store}
shard_duration_s: 4
stages:
  speech: {{uses: librispeech, root: {root}}}
  mel:    {{uses: extract, from: speech, preset: hifigan, sr: 16000, fmax: 8000}}
  other:  {{uses: extract, from: speech, preset: paper, center: false}}
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a store; no test changes it."""
    folder = tmp_path_factory.mktemp("sets")
    for number, speaker in enumerate(SPEAKERS):
        subset = "dev-clean" if number < 3 else "test-clean"
        some = [flac(voice(0.5 + 0.1 * i, 100.0 + 20 * number, seed=10 * number + i)) for i in range(4)]
        add_chapter(folder / "corpus", subset, speaker, some)
        ids = [f"{speaker}-1-{i:04d}" for i in range(4)]
        text = "".join(f"{name} HELLO {name[-1]} É\n" for name in ids[:3])  # the last has no text
        (folder / "corpus" / subset / speaker / "1" / f"{speaker}-1.trans.txt").write_text(text)
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(PIPELINE.format(store=folder / "store", root=folder / "corpus"))
    melmill.run(str(pipeline), executor="serial")
    return folder / "store"


@pytest.fixture
def store(made: Path) -> Store:
    return melmill.open(str(made))
