"""The vocoder that comes with melmill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melmill
from melmill.stages.contract import StageFile
from melmill.stages.score.metric import metric
from melmill.stages.score.pair import Pair
from melmill.stages.vocode.errors import VocoderError
from melmill.stages.vocode.shipped import SHIPPED, located
from melmill.stages.vocode.stage import Vocode, stage_of

ROOT = Path(__file__).parents[3]
MOST_BYTES = 8_000_000


def test_each_has_weights_that_fit_a_package_and_a_card() -> None:
    for name in SHIPPED:
        weights = Path(located(name))
        assert weights.stat().st_size <= MOST_BYTES
        assert name in (weights.parent / "README.md").read_text(encoding="utf-8")
        assert melmill.load_vocoder(name).spec.sr == 16000


def test_a_stage_finds_it_by_name() -> None:
    files = Vocode(checkpoint="melmill-16k").files()
    assert files["weights"] == (located("melmill-16k"),)
    assert located("melmill-16k").replace("weights.pt", "config.json") in files["beside"]


@pytest.mark.parametrize("uses", [Vocode, stage_of("unfolded")])
def test_a_plan_knows_of_it_what_loading_it_tells(uses: type[Vocode]) -> None:
    for name in SHIPPED:
        weights = Path(located(name))
        files = {
            role: StageFile(url=str(file), data=file.read_bytes())
            for role, file in {"weights": weights, "beside": weights.with_name("config.json")}.items()
        }
        known = uses(checkpoint=name).prepared(files, "digest").known
        loaded = melmill.load_vocoder(name)
        assert (known.name, known.family, known.spec) == (weights.name, loaded.family, loaded.spec)
        with pytest.raises(VocoderError, match="is no hifigan checkpoint"):
            stage_of("hifigan")(checkpoint=name).prepared(files, "digest")


def test_planning_the_default_pipeline_takes_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from melmill.flows.pipeline.graph import build_graph\n"
        "from melmill.flows.pipeline.spec import load\n"
        f"graph = build_graph(load(Path({str(ROOT / 'pipeline.yaml')!r})))\n"
        "assert graph['voc'].stage.known.family == 'unfolded'\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0


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
        found.append([metric("estoi").measure(pair).value for pair in pairs])
    mine, griffin_lims = np.mean(found, axis=0)
    assert mine > griffin_lims + 0.01


def test_its_first_and_last_frames_are_as_loud_as_the_mel_says(real_data: Path) -> None:
    voc = melmill.load_vocoder("melmill-16k")
    files = sorted((real_data / "corpora" / "LibriSpeech" / "test-other").glob("*/*/*-0003.flac"))[:5]
    differences = []
    for file in files:
        y, _ = soundfile.read(file, dtype="float32")
        M = melmill.mel(y, voc.spec)
        made = voc(M)
        again = melmill.mel(np.pad(made, (0, y.size - made.size)), voc.spec)
        differences.append((20 / np.log(10) * (again - M)).mean(axis=0)[[0, 1, 2, -4, -3, -2, -1]])
    # A hop at most is missing at the end: the mel does not say how much of it there was.
    np.testing.assert_allclose(np.mean(differences, axis=0), 0.0, atol=3.0)
