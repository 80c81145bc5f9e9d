"""What object stores answer, as errors of the store; what fails in passing is tried again."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from melmill.storage.errors import StoreError, StoreFull, StoreUnwritable

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
