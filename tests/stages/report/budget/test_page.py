"""The page of the error budget, with a clip to show and without one."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from melmill.stages.report.budget.stage import ErrorBudget
from melmill.stages.report.contract import Example
from tests.stages.report.budget.test_losses import scores_of
from tests.stages.score.trust.test_damages import voice


@pytest.mark.parametrize("has_recordings", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_page_has_the_losses_and_loads_nothing(has_recordings: bool) -> None:
    def example(utterance_id: str) -> Example | None:
        if not has_recordings:
            return None
        y = voice(0.6)
        return Example(utterance_id=utterance_id, text="", sr=16000, reference=y, reconstructions={}, rates={})

    data = SimpleNamespace(scores=scores_of({"base": 4.0, "bank": 3.5, "floor": 3.25}), example=example)
    made = ErrorBudget(title="A <page>").report(data)
    page = made.files["index.html"].decode()
    assert "A &lt;page&gt;" in page
    assert ("The mel does not hold the phase" in page) == has_recordings
    # The recording, its scrambled phase, and damages that are as wrong as one another.
    assert page.count("<audio") == page.count("<figcaption><b>")
    assert page.count("<audio") >= (4 if has_recordings else 0)
    assert not any(start in page for start in ('src="http', 'href="http', "url("))
    table = pd.read_csv(io.BytesIO(made.files["budget.csv"]))
    pesq = table[table["metric"] == "pesq_wb"].set_index("part")
    np.testing.assert_allclose(pesq["loss"][["bank", "floor"]], [0.5, 0.25], atol=1e-9)
    assert made.headline.startswith("part,")
