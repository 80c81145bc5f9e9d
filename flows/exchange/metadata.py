"""The table `metadata.csv` beside exported files: what each file says, who says it, and how long."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from melmill.storage.catalogue import Catalogue
from melmill.storage.errors import StoreError
from melmill.storage.files.ledger import Exported, ExportFolder, Page
from melmill.storage.records import StoredFile

METADATA = "metadata.csv"
COLUMNS = ("file_name", "text", "speaker", "duration_s")

# Page of the ledger that says that the table is ours.
_PAGE = "metadata"


def metadata_csv(files: Mapping[str, str], catalogue: Catalogue) -> bytes:
    """Return a row per file, sorted by its path, as CSV with a header.

    Parameters
    ----------
    files : mapping of str to str
        Path below the folder by id of the utterance.
    catalogue : Catalogue
    """
    columns = [catalogue.table[name].to_pylist() for name in ("utterance_id", "text", "speaker_id", "duration_s")]
    rows = [
        (files[name], text, speaker, f"{duration_s:.6f}".rstrip("0").rstrip("."))
        for name, text, speaker, duration_s in zip(*columns, strict=True)
        if name in files
    ]
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(sorted(rows))
    return table.getvalue().encode()


class MetadataFile:
    """Keep the table of an export: it is there only while all files that it lists are.

    Parameters
    ----------
    folder : ExportFolder
    """

    def __init__(self, folder: ExportFolder) -> None:
        self._folder = folder
        self._is_withdrawn = False

    def check(self) -> None:
        """Raise StoreError if there is a table that another program wrote."""
        if METADATA not in self._folder.page(_PAGE).files and self._folder.location.size(METADATA) is not None:
            raise StoreError(
                f"{self._folder.location.url}/{METADATA} exists and is not of this export, so it is left alone. "
                "Export to another folder, or move it."
            )

    def withdraw(self) -> None:
        """Remove the table before files change; once is enough."""
        if not self._is_withdrawn:
            self._folder.location.remove(METADATA)
            self._is_withdrawn = True

    def write(self, data: bytes) -> None:
        """Store the table, once all files that it lists are stored."""
        stored = StoredFile.of(data)
        exported = Exported(n_bytes=stored.n_bytes, sha256=stored.sha256)
        known = self._folder.page(_PAGE).files.get(METADATA)
        if known == exported and self._folder.is_whole(METADATA, exported):
            return
        # The ledger first, so that a table is never there that nobody knows.
        self._folder.write_page(_PAGE, Page(source="", files={METADATA: exported}))
        self._folder.location.replace(METADATA, data)
