"""Files as objects: S3 and servers that speak like it, Google Cloud Storage, Azure Blob Storage.

Each process has one client a bucket, configured by the environment. What fails in passing is tried
again, and what the server answers becomes an error of the store.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from melmill.storage.errors import ImpossibleKey, StoreError, StoreFull, StoreUnwritable

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az")

# Limit of one request. A shard of some megabytes passes in it over a slow line.
TIMEOUT = timedelta(seconds=120)
# Requests are repeated for some twenty seconds, so that a server can restart meanwhile.
RETRIES = 12
BACKOFF = (timedelta(seconds=0.1), timedelta(seconds=3))
PATIENCE = timedelta(minutes=3)

# Where credentials come from without a profile.
_OWN_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def is_object_store(url: str) -> bool:
    """Return whether a URL is of an object store.

    >>> is_object_store("s3://bucket/store"), is_object_store("runs/x")
    (True, False)
    """
    return url.partition("://")[0] in SCHEMES and "://" in url


def bucket_and_key(url: str) -> tuple[str, str]:
    """Return the bucket of a URL with its scheme, and the key below it.

    >>> bucket_and_key("s3://bucket/runs/x/melmill.json")
    ('s3://bucket', 'runs/x/melmill.json')
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


def client(bucket: str) -> ObjectStore:
    """Return this process's client of a bucket (``s3://bucket``).

    Raises
    ------
    StoreError
        The package is missing, the URL or the environment is wrong, or the process was forked from
        one that has a client.
    """
    if _process() != os.getpid():
        raise StoreError(
            f"{bucket}: this process was forked from one that uses the store, and a client does not survive that. "
            "Spawn it instead: for a DataLoader, multiprocessing_context='spawn'."
        )
    return _client(bucket)


@cache
def _process() -> int:
    """Return the process that made the first client.

    All its clients share threads, which a fork loses.
    """
    return os.getpid()


def forget_clients() -> None:
    """Forget all clients, so that the next ones follow the environment of that time."""
    _client.cache_clear()


@cache
def _client(bucket: str) -> ObjectStore:
    address = urlsplit(bucket)
    if "@" in address.netloc or not address.netloc:
        # The message leaves out the URL, as a secret may stand before the @.
        raise StoreError(
            f"a URL of {address.scheme}:// must be {address.scheme}://bucket/path without credentials: those are "
            "taken from the environment (docs/stores.md)"
        )
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise StoreError(
            f"{bucket}: object stores need the package obstore, which is not installed: pip install 'melmill[s3]'"
        ) from error
    retries: RetryConfig = {
        "max_retries": RETRIES,
        "retry_timeout": PATIENCE,
        "backoff": {"init_backoff": BACKOFF[0], "max_backoff": BACKOFF[1], "base": 4},
    }
    options: ClientConfig = {"timeout": TIMEOUT}
    if address.scheme != "s3":
        return from_url(bucket, client_options=options, retry_config=retries)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if endpoint.startswith("http://"):
        # The user names an endpoint without encryption.
        options["allow_http"] = True
    return from_url(
        bucket, client_options=options, retry_config=retries, credential_provider=_credential_provider(bucket)
    )


def _credential_provider(bucket: str) -> Boto3CredentialProvider | None:
    """Return the credentials of AWS's own package, None if the environment has keys."""
    if any(os.environ.get(name) for name in _OWN_CREDENTIALS):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        if os.environ.get("AWS_PROFILE"):
            raise StoreError(
                f"{bucket}: AWS_PROFILE is set, and reading profiles needs the package boto3: pip install boto3, or "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        # The client itself asks for the role of an instance.
        return None
    try:
        return Boto3CredentialProvider()
    except Exception as error:
        raise StoreError(
            f"{bucket}: there are no credentials ({error}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE."
        ) from error


# The client repeats by itself what may safely be sent twice. These are for the rest: writes and
# removals that were cut off, and answers cut short. Repeating them is safe here: a write that had
# succeeded is found and compared.
ATTEMPTS = 8
PATIENCE_S = 180.0
PAUSE_S = 0.1
_JITTER = random.SystemRandom()

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_ENDPOINT = re.compile(r"https?://[^/\s]+")
_RETRIES = re.compile(r"after (\d+) retries, max_retries: (\d+)")
_BAD_KEY = re.compile(r'invalid path: .*?Path "(?P<key>.*?)"(?: contained|:)', flags=re.DOTALL)
NO_PATH = "an empty part, '.', '..' or a control character"
"""What a key has that can't be a path."""
_NO_PATH = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")
_FULL = {"QuotaExceeded", "XMinioStorageFull"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}

R = TypeVar("R")


def with_retries(operation: Callable[[], R], url: str, verb: str) -> R:
    """Return the result of an operation on an object store, repeating it after transient failures.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    StoreError
        It failed. The message says where, why, and what to do.
    """
    started = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return operation()
        except StoreError:
            raise
        except ValueError as error:
            # No object can have this name.
            raise StoreError(f"can't {verb} {url}: {_first_line(str(error))}") from error
        except Exception as error:
            in_time = attempt < ATTEMPTS and time.monotonic() - started < PATIENCE_S
            if not (in_time and _is_transient(error)):
                translated = store_error(error, url, verb)
                if translated is None:
                    raise
                raise translated from error
        time.sleep(_JITTER.uniform(0.5, 1.0) * PAUSE_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def is_conflict(error: Exception) -> bool:
    """Return whether a write met another write in progress, rather than an object that exists."""
    return status(error) == "409"


def status(error: Exception) -> str:
    """Return the HTTP status in a client's error, '' where it has none."""
    found = _STATUS.search(str(error))
    return found[1] if found else ""


def _is_transient(error: Exception) -> bool:
    if not _is_client_error(error):
        return False
    text = str(error)
    tried = _RETRIES.search(text)
    # With fewer attempts than allowed, the last one met a failure that the client does not repeat.
    gave_up = tried is not None and tried[1] == tried[2]
    return is_conflict(error) or ("HTTP error" in text and not gave_up)


def store_error(error: Exception, url: str, verb: str) -> Exception | None:
    """Return the store's error for an error of a client, None for any other error."""
    text = str(error)
    found = _CODE.search(text)
    code = found[1] if found else ""
    if code in _NO_BUCKET:
        return StoreUnwritable(
            f"can't {verb} {url}: there is no such bucket{_at(text)}. Create it, or check the URL and AWS_ENDPOINT_URL."
        )
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(url)
    if not _is_client_error(error):
        return None
    if bad := _BAD_KEY.search(text):
        return ImpossibleKey(
            f"can't {verb} {url}: the key {bad['key']!r} of an object there can't be a path: it has {NO_PATH}. "
            "Rename or remove that object."
        )
    what, http_status, tried = f"can't {verb} {url}", status(error), _RETRIES.search(text)
    answer = " ".join(filter(None, (http_status, code)))
    again = f", {int(tried[1]) + 1} times" if tried else ""
    if http_status == "507" or code in _FULL:
        return StoreFull(
            f"{what}: the store is full ({answer}). Free some room, then run again: what is stored is kept."
        )
    if http_status in ("401", "403"):
        return StoreUnwritable(
            f"{what}: access was refused{_at(text)} ({answer}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN, and that they may list, read, write and delete in this bucket."
        )
    if http_status and int(http_status) >= 500:
        return StoreUnwritable(
            f"{what}: the store answered {answer}{again}. Run again when it has recovered: what is stored is kept."
        )
    if "HTTP error" in text:
        return StoreUnwritable(
            f"{what}: no answer{_at(text)}{again}. Check AWS_ENDPOINT_URL and the network, then run again: what is "
            "stored is kept."
        )
    return StoreUnwritable(f"{what}: {answer or _first_line(text)}. Check the URL, AWS_ENDPOINT_URL and AWS_REGION.")


def _is_client_error(error: Exception) -> bool:
    # Its module tells, as the package may not be installed.
    return type(error).__module__.startswith("obstore.")


def _at(text: str) -> str:
    found = _ENDPOINT.search(text)
    return f" at {found[0]}" if found else ""


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(". ")


# Objects in one page of a listing.
_PAGE = 1000


class ObjectFiles:
    """Implement `Files` with objects of a bucket.

    An object appears whole or not at all. `create` is one conditional write: of two writers, the
    store lets one win. Nothing is uploaded in parts, so a writer that dies leaves nothing behind.

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

    def read_range(self, path: str, start: int, stop: int | None) -> bytes:
        """Return some of an object's bytes, fewer where it ends before; raise FileNotFoundError."""
        import obstore

        def get(store: ObjectStore, key: str) -> bytes:
            if stop is not None:
                return bytes(obstore.get_range(store, key, start=start, end=stop))
            return bytes(obstore.get(store, key, options={"range": {"suffix": -start}}).bytes())

        return self._do(get, path, "read")

    def read_head(self, path: str, n: int) -> bytes:
        """Return an object's first `n` bytes, or all if it is shorter; raise FileNotFoundError."""
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
        """Write an object unless it exists; return whether it was written."""
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

    def create_all(self, files: Mapping[str, bytes]) -> dict[str, bool]:
        """Write files, each unless it exists; return by path whether it was written."""
        return {path: self.create(path, data) for path, data in files.items()}

    def replace(self, path: str, data: bytes) -> None:
        """Write an object in place of any that exists."""
        import obstore

        self._do(lambda store, key: obstore.put(store, key, data, use_multipart=False), path, "write")

    def remove(self, path: str) -> None:
        """Remove an object if it exists."""
        import obstore

        with suppress(FileNotFoundError):
            self._do(obstore.delete, path, "remove")

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove those objects that exist, a page of them in a request where the server can do so."""
        import obstore

        for first in range(0, len(paths), _PAGE):
            keys = [bucket_and_key(path)[1] for path in paths[first : first + _PAGE]]
            with suppress(FileNotFoundError):
                self._do(lambda store, _, keys=keys: obstore.delete(store, keys), paths[first], "remove")  # type: ignore[misc]

    def remove_empty(self, path: str) -> None:
        """Do nothing: object stores have no folders."""

    def modified_s(self, path: str) -> float | None:
        """Return when an object was written, s, by the server's clock; None where there is no such object."""
        found = self._head(path)
        return None if found is None else found["last_modified"].timestamp()

    def exists(self, path: str) -> bool:
        """Return whether there is an object of that name, or any below it."""
        return self._head(path) is not None or any(True for _ in self._listed(path))

    def size(self, path: str) -> int | None:
        """Return the size of an object, None where there is no such object."""
        found = self._head(path)
        return None if found is None else found["size"]

    def stamp(self, path: str) -> str | None:
        """Return an object's tag; None where there is no such object."""
        found = self._head(path)
        return None if found is None else f"{found['size']}-{found['e_tag']}"

    def _head(self, path: str) -> ObjectMeta | None:
        import obstore

        with suppress(FileNotFoundError):
            return self._do(obstore.head, path, "check")
        return None

    def sizes(self, path: str, *, below: bool) -> dict[str, int]:
        """Return the sizes of a folder's objects by relative name, with subfolders if `below`."""
        found = self.walk(path) if below else self._flat(path)[1]
        return {name: one["size"] for name, one in found.items()}

    def tags(self, path: str) -> dict[str, str]:
        """Return the tags of the objects of a folder and below by relative name.

        Equal tags mean equal contents.
        """
        return {name: one["e_tag"] for name, one in self.walk(path).items() if one["e_tag"]}

    def walk(self, path: str) -> dict[str, ObjectMeta]:
        """Return the metadata of all objects of a folder and below, by relative name."""
        found: dict[str, ObjectMeta] = {}
        for one in self._listed(path):
            # A key with a slash at its end comes without it, after the object that has that name.
            found.setdefault(_relative(one["path"], path), one)
        return found

    def walk_tolerant(self, path: str) -> tuple[dict[str, ObjectMeta], list[str]]:
        """Return what `walk` does, and the relative keys of objects that can't be paths.

        The client gives up a whole page for one such key. Only then all are listed anew by AWS's own
        package, which leaves out what stands for folders.

        Raises
        ------
        ImpossibleKey
            There is one, and the package is not installed, or the store is not of its kind.
        """
        try:
            return self.walk(path), []
        except ImpossibleKey as error:
            found: dict[str, ObjectMeta] = {}
            impossible: list[str] = []
            for one in self._listed_by_aws(path, error):
                key = _relative(one["Key"], path)
                if key and _NO_PATH.search(key.removesuffix("/")):
                    impossible.append(key)
                elif key and not key.endswith("/"):
                    found[key] = {
                        "path": one["Key"],
                        "size": one["Size"],
                        "last_modified": one["LastModified"],
                        "e_tag": one["ETag"],
                        "version": None,
                    }
            return found, impossible

    def _listed_by_aws(self, path: str, error: ImpossibleKey) -> list[Mapping[str, Any]]:
        """Return what AWS's own package lists of a folder and below; raise `error` if it can't."""
        bucket, key = bucket_and_key(path)
        if not bucket.startswith("s3://"):
            raise error
        try:
            import boto3
            from botocore.exceptions import BotoCoreError, ClientError
        except ImportError:
            raise ImpossibleKey(f"{error} Or pip install boto3: then it is passed over.") from error
        try:
            pages = boto3.client("s3").get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=urlsplit(bucket).netloc, Prefix=f"{key}/" if key else "")
            return [one for page in found for one in page.get("Contents", ())]
        except (BotoCoreError, ClientError) as failure:
            raise ImpossibleKey(f"{error} boto3, which would pass it over, fails: {failure}") from failure

    def folders(self, path: str) -> list[str]:
        """Return the names of the subfolders of a folder."""
        return self._flat(path)[0]

    def make(self, path: str) -> None:
        """Do nothing: object stores have no folders."""

    def _listed(self, path: str) -> Iterator[ObjectMeta]:
        """Yield all objects of a folder and below.

        If a page fails, the listing goes on after the last object.
        """
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
        """Return the names of the subfolders, and the metadata of the folder's own objects."""
        import obstore

        found = self._do(lambda store, key: obstore.list_with_delimiter(store, key or None), path, "list")
        folders = [_relative(prefix, path) for prefix in found["common_prefixes"]]
        return folders, {_relative(one["path"], path): one for one in found["objects"]}

    def _do(self, operation: Callable[[ObjectStore, str], R], path: str, verb: str) -> R:
        store = client(self._bucket)
        _, key = bucket_and_key(path)
        return with_retries(lambda: operation(store, key), path, verb)


def _relative(key: str, path: str) -> str:
    folder = bucket_and_key(path)[1]
    return key.removeprefix(f"{folder}/") if folder else key
