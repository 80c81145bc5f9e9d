"""Clients of object stores, one a bucket and process, made from what the environment says.

- What object stores answer, as errors of the store; what fails in passing is tried again.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from melmill.storage.errors import StoreError, StoreFull, StoreUnwritable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az")

# A request may take this long; a shard of some megabytes passes in it over a slow line.
TIMEOUT = timedelta(seconds=120)
# What fails in passing is tried again for some twenty seconds: a server that restarts is waited for.
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
    """Say whether a URL is of an object store.

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
        Where the package is missing, the URL or the environment is wrong, or the process was forked from one that
        has a client.
    """
    if _process() != os.getpid():
        raise StoreError(
            f"{bucket}: this process was forked from one that uses the store, which its client does not survive. "
            "Start it anew: for a DataLoader, multiprocessing_context='spawn'."
        )
    return _client(bucket)


@cache
def _process() -> int:
    """Return the process that asked for a client first: all clients of a process share threads, which a fork loses."""
    return os.getpid()


def forget() -> None:
    """Make clients anew when they are next asked for, of what the environment says then."""
    _client.cache_clear()


@cache
def _client(bucket: str) -> ObjectStore:
    address = urlsplit(bucket)
    if "@" in address.netloc or not address.netloc:
        # Without the URL: what stands before the @ may be a secret.
        raise StoreError(
            f"a URL of {address.scheme}:// must be {address.scheme}://bucket/path, and holds no credentials: those are "
            "taken from the environment (docs/stores.md)"
        )
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise StoreError(
            f"{bucket}: object stores need the package obstore, which is not installed: pip install 'melmill[s3]'"
        ) from error
    return from_url(bucket, **_options(address.scheme, bucket))


def _options(scheme: str, bucket: str) -> dict[str, Any]:
    retries: RetryConfig = {
        "max_retries": RETRIES,
        "retry_timeout": PATIENCE,
        "backoff": {"init_backoff": BACKOFF[0], "max_backoff": BACKOFF[1], "base": 4},
    }
    options: dict[str, Any] = {"client_options": _client_options(scheme), "retry_config": retries}
    return {**options, **_credentials(bucket)} if scheme == "s3" else options


def _client_options(scheme: str) -> ClientConfig:
    options: ClientConfig = {"timeout": TIMEOUT}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if scheme == "s3" and endpoint.startswith("http://"):
        # Asked for by its name.
        options["allow_http"] = True
    return options


def _credentials(bucket: str) -> Mapping[str, Any]:
    """Return what AWS's own package finds (profiles, single sign-on) unless the environment holds credentials."""
    if any(os.environ.get(name) for name in _OWN_CREDENTIALS):
        return {}
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        if os.environ.get("AWS_PROFILE"):
            raise StoreError(
                f"{bucket}: AWS_PROFILE is set, and reading profiles needs the package boto3: pip install boto3, or "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        # An instance's own role is asked for by the client itself.
        return {}
    try:
        return {"credential_provider": Boto3CredentialProvider()}
    except Exception as error:
        raise StoreError(
            f"{bucket}: there are no credentials ({error}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE."
        ) from error


# The client repeats by itself what may safely be sent twice. These are for the rest: writes and removals that were cut
# off, answers cut short. Sending them again is safe here, as a write that had succeeded is then found and compared.
ATTEMPTS = 8
PATIENCE_S = 180.0
PAUSE_S = 0.1
_JITTER = random.SystemRandom()

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_ENDPOINT = re.compile(r"https?://[^/\s]+")
_RETRIES = re.compile(r"after (\d+) retries, max_retries: (\d+)")
_FULL = {"QuotaExceeded", "XMinioStorageFull"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}

R = TypeVar("R")


def attempted(operation: Callable[[], R], url: str, verb: str) -> R:
    """Return what an operation on an object store returns, tried again where it failed in passing.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    StoreError
        Where and why it failed, and what to do.
    """
    started = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return operation()
        except StoreError:
            raise
        except ValueError as error:
            # A name that no object can have.
            raise StoreError(f"can't {verb} {url}: {_first_line(str(error))}") from error
        except Exception as error:
            in_time = attempt < ATTEMPTS and time.monotonic() - started < PATIENCE_S
            if not (in_time and _in_passing(error)):
                told = explained(error, url, verb)
                if told is None:
                    raise
                raise told from error
        time.sleep(_JITTER.uniform(0.5, 1.0) * PAUSE_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def is_conflict(error: Exception) -> bool:
    """Say whether a write met another one under way, rather than an object that exists."""
    return status(error) == "409"


def status(error: Exception) -> str:
    """Return the HTTP status that an error of a client tells of, '' where it tells of none."""
    return _status(str(error))


def _in_passing(error: Exception) -> bool:
    if not _is_the_clients(error):
        return False
    text = str(error)
    return is_conflict(error) or ("HTTP error" in text and not _gave_up(text))


def _gave_up(text: str) -> bool:
    # Fewer attempts than allowed: the last one met what the client does not repeat by itself.
    found = _RETRIES.search(text)
    return found is not None and found[1] == found[2]


def explained(error: Exception, url: str, verb: str) -> Exception | None:
    """Return what an error of an object store's client means for the store; None where it is none of them."""
    text = str(error)
    found = _CODE.search(text)
    code = found[1] if found else ""
    if code in _NO_BUCKET:
        return StoreUnwritable(
            f"can't {verb} {url}: there is no such bucket{_at(text)}. Create it, or check the URL and AWS_ENDPOINT_URL."
        )
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(url)
    return _explained(text, code, f"can't {verb} {url}") if _is_the_clients(error) else None


def _explained(text: str, code: str, what: str) -> StoreError:
    status, tried = _status(text), _RETRIES.search(text)
    answer = " ".join(filter(None, (status, code)))
    again = f", {int(tried[1]) + 1} times" if tried else ""
    if status == "507" or code in _FULL:
        return StoreFull(
            f"{what}: the store is full ({answer}). Free some room, then run again: what is stored is kept."
        )
    if status in ("401", "403"):
        return StoreUnwritable(
            f"{what}: access was refused{_at(text)} ({answer}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN, and that they may list, read, write and delete in this bucket."
        )
    if status and int(status) >= 500:
        return StoreUnwritable(
            f"{what}: the store answered {answer}{again}. Run again when it is well: what is stored is kept."
        )
    if "HTTP error" in text:
        return StoreUnwritable(
            f"{what}: no answer{_at(text)}{again}. Check AWS_ENDPOINT_URL and the network, then run again: what is "
            "stored is kept."
        )
    return StoreUnwritable(f"{what}: {answer or _first_line(text)}. Check the URL, AWS_ENDPOINT_URL and AWS_REGION.")


def _is_the_clients(error: Exception) -> bool:
    # Told by its module, as the package may not be installed.
    return type(error).__module__.startswith("obstore.")


def _status(text: str) -> str:
    found = _STATUS.search(text)
    return found[1] if found else ""


def _at(text: str) -> str:
    found = _ENDPOINT.search(text)
    return f" at {found[0]}" if found else ""


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(". ")
