"""Files as objects: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from melmill.storage.files.object_client import attempted, bucket_and_key, client, is_conflict, status

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

R = TypeVar("R")

# What stores list at a time.
_PAGE = 1000


class ObjectFiles:
    """Implement `Files` with objects of a bucket.

    An object appears whole or not at all, and `create` is one conditional write: of two writers at once the store
    itself lets one win. Nothing is uploaded in parts, so that a writer that dies leaves nothing to clear away.

    Parameters
    ----------
    url : str
        Any URL in the bucket.
    """

    def __init__(self, url: str) -> None:
        self._bucket, _ = bucket_and_key(url)

    def read(self, path: str) -> bytes:
        """Return an object's bytes; raise FileNotFoundError."""
        return self.read_tagged(path)[0]

    def read_tagged(self, path: str) -> tuple[bytes, str | None]:
        """Return an object's bytes and its tag; raise FileNotFoundError."""
        import obstore

        def get(store: ObjectStore, key: str) -> tuple[bytes, str | None]:
            found = obstore.get(store, key)
            return bytes(found.bytes()), found.meta["e_tag"]

        return self._do(get, path, "read")

    def read_head(self, path: str, n: int) -> bytes:
        """Return an object's first `n` bytes, or all where it is shorter; raise FileNotFoundError."""
        import obstore

        def get(store: ObjectStore, key: str) -> bytes:
            try:
                return bytes(obstore.get_range(store, key, start=0, length=n))
            except obstore.exceptions.BaseError as error:
                if status(error) != "416":
                    raise
                # An empty object has no range at all.
                return bytes(obstore.get(store, key).bytes())

        return self._do(get, path, "read")

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless one of that name exists; say whether it was written."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        def put(store: ObjectStore, key: str) -> bool:
            try:
                obstore.put(store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError as error:
                if is_conflict(error):
                    raise
                return False
            return True

        return self._do(put, path, "write")

    def replace(self, path: str, data: bytes) -> None:
        """Write an object in place of any that exists."""
        import obstore

        self._do(lambda store, key: obstore.put(store, key, data, use_multipart=False), path, "write")

    def remove(self, path: str) -> None:
        """Remove an object; nothing happens where there is none."""
        import obstore

        with suppress(FileNotFoundError):
            self._do(obstore.delete, path, "remove")

    def exists(self, path: str) -> bool:
        """Say whether there is an object of that name, or any below it."""
        return self._head(path) is not None or any(True for _ in self._listed(path))

    def size(self, path: str) -> int | None:
        """Return the size of an object; None where there is none."""
        found = self._head(path)
        return None if found is None else found["size"]

    def stamp(self, path: str) -> str | None:
        """Return an object's tag; None where there is no such object."""
        found = self._head(path)
        return None if found is None else f"{found['size']}-{found['e_tag']}"

    def _head(self, path: str) -> ObjectMeta | None:
        import obstore

        with suppress(FileNotFoundError):
            return self._do(obstore.head, path, "look at")
        return None

    def sizes(self, path: str, *, below: bool) -> dict[str, int]:
        """Return the sizes of the objects of a folder by relative name, with those of its subfolders if `below`."""
        found = self.walk(path) if below else self._flat(path)[1]
        return {name: one["size"] for name, one in found.items()}

    def tags(self, path: str) -> dict[str, str]:
        """Return the tags of the objects of a folder and below by relative name: equal for equal contents only."""
        return {name: one["e_tag"] for name, one in self.walk(path).items() if one["e_tag"]}

    def walk(self, path: str) -> dict[str, ObjectMeta]:
        """Return what a listing says of all objects of a folder and below, by relative name."""
        return {_relative(one["path"], path): one for one in self._listed(path)}

    def folders(self, path: str) -> list[str]:
        """Return the names of the subfolders of a folder."""
        return self._flat(path)[0]

    def make(self, path: str) -> None:
        """Do nothing: object stores have no folders."""

    def _listed(self, path: str) -> Iterator[ObjectMeta]:
        """Yield all objects of a folder and below; where a page fails, the listing goes on from the last object."""
        import obstore

        stream: Iterator[Sequence[ObjectMeta]] | None = None
        last: str | None = None

        def page(store: ObjectStore, key: str) -> Sequence[ObjectMeta]:
            nonlocal stream
            if stream is None:
                stream = obstore.list(store, key or None, offset=last, chunk_size=_PAGE)
            try:
                return next(stream, ())
            except Exception:
                stream = None
                raise

        while found := self._do(page, path, "list"):
            yield from found
            last = found[-1]["path"]

    def _flat(self, path: str) -> tuple[list[str], dict[str, ObjectMeta]]:
        """Return the names of the subfolders, and what a listing says of the objects of the folder itself."""
        import obstore

        found = self._do(lambda store, key: obstore.list_with_delimiter(store, key or None), path, "list")
        folders = [_relative(prefix, path) for prefix in found["common_prefixes"]]
        return folders, {_relative(one["path"], path): one for one in found["objects"]}

    def _do(self, operation: Callable[[ObjectStore, str], R], path: str, verb: str) -> R:
        store = client(self._bucket)
        _, key = bucket_and_key(path)
        return attempted(lambda: operation(store, key), path, verb)


def _relative(key: str, path: str) -> str:
    folder = bucket_and_key(path)[1]
    return key.removeprefix(f"{folder}/") if folder else key
