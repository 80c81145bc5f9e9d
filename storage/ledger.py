"""A folder of files for other programs, and a ledger of which of them are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from melmill.storage.errors import StoreError
from melmill.storage.files.local import TEMPORARY
from melmill.storage.files.location import Location
from melmill.storage.records import StoredFile

LEDGER = ".melmill-export"
HEAD = f"{LEDGER}/export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One file as it was written, and how many of its samples were clipped at full scale."""

    n_bytes: int
    sha256: str
    n_clipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the ledger says of one shard.

    Parameters
    ----------
    source : str
        Fingerprint of the stored data that its files were made from; empty where there is no page.
    files : mapping of str to Exported
        By name below the folder.
    """

    source: str = ""
    files: Mapping[str, Exported] = field(default_factory=dict)


class ExportFolder:
    """Write files that appear whole or not at all, and never over what somebody else put there.

    Parameters
    ----------
    location : Location
        The ledger lies in ``.melmill-export/`` below it: what is exported, and a page a shard, written after its files.
    """

    def __init__(self, location: Location) -> None:
        self.location = location

    def claim(self, about: Mapping[str, Any]) -> None:
        """Say what is exported here, and clear away what a killed export left behind.

        Raises
        ------
        StoreError
            The folder holds another export.
        """
        held = self._held()
        if held is None:
            # Not `put`: the folder may be on a file system without hard links, as cards and sticks have.
            self.location.replace(HEAD, (json.dumps(dict(about), indent=1, sort_keys=True) + "\n").encode())
        elif held != about:
            differing = [
                f"{name} {held.get(name)!r}, not {about[name]!r}" for name in about if held.get(name) != about[name]
            ]
            raise StoreError(
                f"{self.location.url} holds another export ({', '.join(differing)}). "
                "Export to another folder, or remove this one."
            )
        for name in filter(TEMPORARY.fullmatch, self.location.leftovers()):
            self.location.remove(name)

    def _held(self) -> Mapping[str, Any] | None:
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
        """Return what the ledger says of a shard; an empty page where it says nothing that can be read."""
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
        """Store what the ledger says of a shard."""
        self.location.replace(_page_file(shard), (json.dumps(asdict(page), sort_keys=True) + "\n").encode())

    def is_whole(self, name: str, exported: Exported) -> bool:
        """Tell whether a file is there as it was written, by its checksum."""
        if self.location.size(name) != exported.n_bytes:
            return False
        return StoredFile.of(self.location.read(name)).sha256 == exported.sha256

    def write(self, name: str, data: bytes, *, ours: bool) -> bool:
        """Write a file unless it is there already, and say whether it was written.

        Parameters
        ----------
        name : str
        data : bytes
        ours : bool
            The ledger knows the file, so that one that is there may be replaced.

        Raises
        ------
        StoreError
            A file of that name is there that the ledger does not know, with other bytes.
        """
        if ours or self.location.size(name) is None:
            self.location.replace(name, data)
            return True
        if self.location.read(name) != data:
            raise StoreError(
                f"{self.location.url}/{name} exists and is not of this export: it is left alone. "
                "Export to another folder, or move it."
            )
        return False


def _page_file(shard: str) -> str:
    return f"{LEDGER}/{shard}.json"
