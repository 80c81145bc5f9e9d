"""A hostile store: nothing outside its folder is written or removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from melmill.storage.corpus.parts import SCHEMA
from melmill.storage.records import sealed, unsealed
from melmill.storage.tables import from_parquet, to_parquet, with_seal, without_seal
from tests.flows.conftest import Project

OUTSIDE = "../../../../outside"


@pytest.fixture
def hostile(finished: Project, tmp_path: Path) -> Iterator[Project]:
    """Yield a project of its own, and check that what lies beside it was left alone."""
    made = Project(tmp_path / "a" / "b" / "c")
    made.folder.mkdir(parents=True)
    shutil.copytree(finished.store, made.store)
    victims = [folder / "outside" for folder in (tmp_path, *made.store.parents) if folder.is_relative_to(tmp_path)]
    for victim in victims:
        victim.write_text("precious")
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(made.folder)}
    yield made
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(made.folder)} == before
    assert {victim.read_text() for victim in victims} == {"precious"}


@pytest.mark.parametrize("path", [f"{OUTSIDE}.flac", "/etc/melmill-outside.flac", "a/../../../outside.flac"])
def test_export_writes_below_its_folder_alone(hostile: Project, path: str) -> None:
    (part,) = hostile.store.glob("speech/*/catalogue/part-*.parquet")
    table = without_seal(from_parquet(part.read_bytes(), part.name), SCHEMA, part.name)
    column = table.column_names.index("path")
    paths = [path, *table["path"].to_pylist()[1:]]
    # With the seal that says that it was not tampered with: whoever means harm can make one.
    field = table.schema.field(column)
    part.write_bytes(to_parquet(with_seal(table.set_column(column, field, pa.array(paths, field.type)))))
    done = hostile.called("export", str(hostile.store), "gla", str(hostile.folder / "out"))
    assert done.returncode != 0
    assert "must be relative, without '..'" in done.stderr


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_care_looks_below_the_store_alone(hostile: Project, command: str) -> None:
    record = next(hostile.store.glob("gla/*/records/000000.json"))
    fields = unsealed(record.read_bytes())
    fields["files"][OUTSIDE] = {"n_bytes": len("precious"), "sha256": "0" * 64}
    record.write_bytes(sealed(fields))
    done = hostile.called(command, str(hostile.store))
    assert "must be relative, without '..'" in done.stdout + done.stderr


@pytest.mark.parametrize("field", ["folder", "key"])
def test_a_manifest_names_products_of_its_store_alone(hostile: Project, field: str) -> None:
    manifest = max(hostile.store.glob("runs/*/manifest.json"))
    fields = unsealed(manifest.read_bytes())
    fields["nodes"]["gla"][field] = OUTSIDE
    manifest.write_bytes(sealed(fields))
    done = hostile.called("export", str(hostile.store), "gla", str(hostile.folder / "out"))
    assert done.returncode != 0
    assert "no product can be called" in done.stderr
