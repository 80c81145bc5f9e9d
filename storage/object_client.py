"""Clients of object stores, one a bucket and process, made from what the environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from melmill.storage.errors import StoreError

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
