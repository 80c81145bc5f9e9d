"""Folders of real recordings and reconstructions get the values that the field's own code gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import melmill


@pytest.mark.real
def test_folders_get_the_values_of_the_fields_own_code(real_data: Path, tmp_path: Path) -> None:
    golden = real_data / "golden" / "metrics"
    if not golden.is_dir():
        pytest.skip(f"no golden values of metrics in {golden}")
    pairs = json.loads((golden / "values.json").read_text())["pairs"]
    chosen = [pair for pair in pairs if pair["sr"] == 16000 and pair["kind"] not in ("silent", "half_length")]
    for pair in chosen:
        for folder, role in (("recordings", "recording"), (pair["kind"], "estimate")):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(golden / "audio" / pair[role], tmp_path / folder / pair["recording"])
    kinds = sorted({pair["kind"] for pair in chosen})
    assert len(kinds) > 4
    table = melmill.score(
        tmp_path / "recordings", {kind: tmp_path / kind for kind in kinds}, metrics=["estoi", "si_sdr"],
        output=tmp_path / "report",
    )  # fmt: skip
    found = table.set_index(["node", "utterance_id"])
    for pair in chosen:
        row = found.loc[(pair["kind"], Path(pair["recording"]).stem)]
        assert row["status_estoi"] == "ok"
        assert row["estoi"] == pytest.approx(pair["values"]["estoi"], abs=1e-5)
    assert (found["status_estoi"] == "missing_estimate").sum() == len(found) - len(chosen)
    means = pd.read_csv(tmp_path / "report" / "summary.csv")
    whole = means[(means["level"] == "all") & (means["metric"] == "estoi")].set_index("node")
    for kind in kinds:
        n = sum(pair["kind"] == kind for pair in chosen)
        assert (whole.loc[kind, "n"], whole.loc[kind, "n"] + whole.loc[kind, "n_failed"]) == (
            n,
            len(found) / len(kinds),
        )
