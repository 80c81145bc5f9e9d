"""The vocoder benchmarks' measuring, on the CPU."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from benchmarks import precision, vocoders
from tests.stages.vocode.families import test_diffwave
from tests.stages.vocode.families.test_hifigan import CONFIG, shapes
from tests.stages.vocode.tiny import saved, tensors


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Give back the threads that a benchmark does without."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a folder of two recordings."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for seed, n_samples in enumerate((6000, 4000)):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(n_samples)
        soundfile.write(folder / f"{seed}.flac", noise * np.sin(np.arange(n_samples) / 900), 16000)
    return folder


def test_a_family_is_measured_alone_together_and_through_the_stage() -> None:
    arguments = ["--family", "melgan (descript)", "--seconds", "0.1", "--n-batch", "2"]
    done = CliRunner().invoke(vocoders.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert [line.split("  ")[0].strip() or line.split("  ")[1] for line in done.output.splitlines()[2:]] == [
        "melgan (descript): 16 MiB, to load",
        "speech a second",
        "a batch of 2 against one by one",
        "speech a second, through the stage",
        "of that time the device is at work",
    ]
    share = float(done.output.splitlines()[-1].split()[-2])
    assert 0 < share <= 100


def rows(tmp_path: Path, corpus: Path, checkpoint: bytes, config: object) -> dict[str, list[str]]:
    (tmp_path / "w.pt").write_bytes(checkpoint)
    (tmp_path / "config.json").write_text(json.dumps(config))
    arguments = [str(tmp_path / "w.pt"), "--corpus", str(corpus), "--no-compile"]
    done = CliRunner().invoke(precision.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    table = [line.strip("| \n").split(" | ") for line in io.StringIO(done.output) if line.startswith("| ")]
    return {first: rest for first, *rest in table[1:]}


def test_lower_precision_is_compared_with_single(tmp_path: Path, corpus: Path) -> None:
    found = rows(tmp_path, corpus, saved({"generator": tensors(shapes(CONFIG))}), CONFIG)
    assert list(found) == ["float32", "bfloat16", "float16"]
    *scores, apart, snr, _ = found["float32"]
    assert scores[:2] == ["none", "none"], "8 kHz is too low for PESQ and ESTOI"
    assert scores[2].endswith(" (+0.0000)")
    assert (float(apart), snr) == (0.0, "the same")
    rounding = {way: float(found[way][-3]) for way in ("bfloat16", "float16")}
    assert 1e-1 > rounding["bfloat16"] > rounding["float16"] > 0.0
    assert float(found["float16"][-2]) > float(found["bfloat16"][-2]) > 10.0


def test_what_can_not_be_done_is_said(tmp_path: Path, corpus: Path) -> None:
    tiny = test_diffwave.tiny()
    found = rows(tmp_path, corpus, saved({"model": tiny.state, "params": tiny.config}), {})
    (why,) = found["bfloat16"]
    assert why.startswith("can't be done here: precision of a diffwave must be 'float32', got 'bfloat16'")
