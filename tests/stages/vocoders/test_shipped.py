"""The vocoder that comes with melmill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

import melmill
from melmill.stages.metrics.measure import measure
from melmill.stages.metrics.pair import Pair
from melmill.stages.vocode import Vocoder
from melmill.stages.vocoders.shipped import SHIPPED, located

MOST_BYTES = 8_000_000


def test_each_has_weights_that_fit_a_package_and_a_card() -> None:
    for name in SHIPPED:
        weights = Path(located(name))
        assert weights.stat().st_size <= MOST_BYTES
        assert name in (weights.parent / "README.md").read_text(encoding="utf-8")
        assert melmill.load_vocoder(name).spec.sr == 16000


def test_a_stage_finds_it_by_name() -> None:
    files = Vocoder(checkpoint="melmill-16k").files()
    assert files["weights"] == (located("melmill-16k"),)
    assert located("melmill-16k").replace("weights.pt", "config.json") in files["beside"]


def test_it_beats_griffin_lim_on_speakers_it_never_heard(real_data: Path) -> None:
    voc = melmill.load_vocoder("melmill-16k")
    files = sorted((real_data / "corpora" / "LibriSpeech" / "test-other").glob("*/*/*-0003.flac"))[:5]
    found = []
    for file in files:
        y, sr = soundfile.read(file, dtype="float32")
        M = melmill.mel(y, voc.spec)
        made = voc(M)
        griffin_lim = melmill.invert(M, voc.spec, method="griffin_lim", n_iter=100, start="random", length=made.size)
        pairs = [
            Pair(reference=y[: made.size], reference_sr=sr, estimate=x, estimate_sr=sr, spec=voc.spec)
            for x in (made, griffin_lim)
        ]
        found.append([measure("estoi", pair, 60.0).value for pair in pairs])
    mine, griffin_lims = np.mean(found, axis=0)
    assert mine > griffin_lims + 0.01
