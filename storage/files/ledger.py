"""A folder of files for other programs, and a ledger of the files that are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from melmill.storage.errors import StoreError
from melmill.storage.files.local import TEMPORARY
from melmill.storage.files.location import Location
from melmill.storage.records import StoredFile

LEDGER = ".melmill-export"
HEAD = f"{LEDGER}/export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file as it was written, and how many of its samples were clipped at full scale."""

    n_bytes: int
    sha256: str
    n_clipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The ledger's page about one shard.

    Parameters
    ----------
    source : str
        Fingerprint of the stored data that its files were made from. Empty if there is no page.
    files : mapping of str to Exported
        By name below the folder.
    """

    source: str = ""
    files: Mapping[str, Exported] = field(default_factory=dict)


class ExportFolder:
    """A folder to export to. Files appear whole or not at all, and never replace files of others.

    Parameters
    ----------
    location : Location
        The ledger is in ``.melmill-export/`` below it. It says what is exported, and has a page per
        shard, which is written after the shard's files.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    def claim(self, about: Mapping[str, object]) -> None:
        """Write down what is exported here, and remove what a killed export left behind.

        Raises
        ------
        StoreError
            The folder holds another export.
        """
        claimed = self._claimed()
        if claimed is None:
            # Not `put`: memory cards have file systems without hard links.
            self.location.replace(HEAD, (json.dumps(dict(about), indent=1, sort_keys=True) + "\n").encode())
        elif claimed != about:
            differing = [
                f"{name} {claimed.get(name)!r}, not {about[name]!r}"
                for name in about
                if claimed.get(name) != about[name]
            ]
            raise StoreError(
                f"{self.location.url} holds another export ({', '.join(differing)}). "
                "Export to another folder, or remove this one."
            )
        for name in filter(TEMPORARY.fullmatch, self.location.leftovers()):
            self.location.remove(name)

    def _claimed(self) -> Mapping[str, object] | None:
        try:
            data = self.location.read(HEAD)
        except FileNotFoundError:
            return None
        try:
            return dict(json.loads(data))
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self.location.url}/{HEAD} can't be parsed ({error}): export to another folder"
            ) from error

    def page(self, shard: str) -> Page:
        """Return the page of a shard, an empty one where there is none or it can't be parsed."""
        try:
            data = self.location.read(_page_file(shard))
        except FileNotFoundError:
            return Page()
        try:
            fields = json.loads(data)
            return Page(source=fields["source"], files={name: Exported(**one) for name, one in fields["files"].items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return Page()

    def write_page(self, shard: str, page: Page) -> None:
        """Store the page of a shard."""
        self.location.replace(_page_file(shard), (json.dumps(asdict(page), sort_keys=True) + "\n").encode())

    def is_whole(self, name: str, exported: Exported) -> bool:
        """Return whether a file exists as it was written, by its checksum."""
        if self.location.size(name) != exported.n_bytes:
            return False
        return StoredFile.of(self.location.read(name)).sha256 == exported.sha256

    def write(self, name: str, data: bytes, *, ours: bool) -> bool:
        """Write a file unless it exists already; return whether it was written.

        Parameters
        ----------
        name : str
        data : bytes
        ours : bool
            Whether the ledger knows the file. Then it may be replaced.

        Raises
        ------
        StoreError
            A file of that name holds other bytes, and the ledger does not know it.
        """
        if ours or self.location.size(name) is None:
            self.location.replace(name, data)
            return True
        if self.location.read(name) != data:
            raise StoreError(
                f"{self.location.url}/{name} exists and is not of this export, so it is left alone. "
                "Export to another folder, or move it."
            )
        return False


def _page_file(shard: str) -> str:
    return f"{LEDGER}/{shard}.json"
