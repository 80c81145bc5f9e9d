"""The table beside exported files: their texts, speakers and durations."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import melmill
from melmill.flows.exchange.export import export
from melmill.flows.exchange.metadata import METADATA
from melmill.storage.errors import StoreError
from melmill.storage.store import Store
from tests.flows.conftest import Project

TEXTS = {
    "11-1-0000": 'HE SAID, "NO," AND LEFT',
    "11-1-0001": "A|B\tC",
    "11-1-0002": "naïve \u2028 façade",
}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / METADATA).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def store(project: Project) -> Store:
    """Return a store of which one utterance is in quarantine, and some have texts that CSV must quote."""
    chapter = project.root / "dev-clean" / "11" / "1"
    (chapter / "11-1.trans.txt").write_text("".join(f"{name} {text}\n" for name, text in TEXTS.items()))
    (chapter / "11-1-0099.flac").write_bytes(b"no audio")
    project.run("--executor", "serial", "--until", "gla", "--set", "max_quarantined=1.0")
    return melmill.open(str(project.store))


@pytest.mark.parametrize(("node", "suffix"), [("gla", "flac"), ("speech", "flac"), ("mel", "npy")])
def test_it_has_a_row_for_each_file(store: Store, tmp_path: Path, node: str, suffix: str) -> None:
    out = tmp_path / "out"
    export(store, node, str(out))
    rows = rows_of(out)
    assert list(rows[0]) == ["file_name", "text", "speaker", "duration_s"]
    assert [row["file_name"] for row in rows] == sorted(str(path.relative_to(out)) for path in out.rglob(f"*.{suffix}"))
    assert len(rows) == 16
    table = store.utterances().set_index("utterance_id")
    for row in rows:
        said = table.loc[Path(row["file_name"]).stem]
        assert (row["text"], row["speaker"]) == (said["text"], said["speaker_id"])
        assert float(row["duration_s"]) == pytest.approx(said["duration_s"], abs=1e-6)
    texts = {Path(row["file_name"]).stem: row["text"] for row in rows if row["text"]}
    assert texts["11-1-0000"] == TEXTS["11-1-0000"]


def test_it_grows_with_the_export_and_lists_nothing_that_is_gone(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(store, "gla", str(out), utterances=["11-*-0000", "22-1-000[12]"])
    assert [Path(row["file_name"]).stem for row in rows_of(out)] == ["11-1-0000", "22-1-0001", "22-1-0002"]
    export(store, "gla", str(out), utterances=["22-1-0003"])
    assert len(rows_of(out)) == 4
    (out / "dev-clean/11/1/11-1-0000.flac").unlink()
    export(store, "gla", str(out), utterances=["22-1-0003"])
    assert [Path(row["file_name"]).stem for row in rows_of(out)] == ["22-1-0001", "22-1-0002", "22-1-0003"]
    export(store, "gla", str(out))
    assert len(rows_of(out)) == 16
    before = (out / METADATA).stat()
    export(store, "gla", str(out))
    assert (out / METADATA).stat().st_mtime_ns == before.st_mtime_ns, "what is whole is not written again"
    (out / METADATA).write_text("damaged")
    export(store, "gla", str(out))
    assert len(rows_of(out)) == 16


def test_it_is_gone_while_files_are_written(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export(store, "gla", str(out))
    next(out.rglob("*.flac")).unlink()
    monkeypatch.setattr("melmill.storage.files.ledger.ExportFolder.write", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(store, "gla", str(out))
    assert not (out / METADATA).exists()
    monkeypatch.undo()
    export(store, "gla", str(out))
    assert len(rows_of(out)) == 16


def test_the_table_of_another_program_is_left_alone(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / METADATA).write_text("u0|its own text")
    with pytest.raises(StoreError, match=r"metadata\.csv exists and is not of this export, so it is left alone"):
        export(store, "gla", str(out))
    assert [(path.name, path.read_text()) for path in out.rglob("*")] == [(METADATA, "u0|its own text")]
