"""Locks that keep two processes apart: on a disk by the kernel, on an object store by a lease."""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from melmill.storage.errors import AlreadyThere, StoreError, StoreUnwritable
from melmill.storage.files.local import store_error
from melmill.storage.files.location import Location

# A holder shows that it lives every `BEAT_S`. One that has not for `SILENCE_S`, by the clock of who waits, is gone.
BEAT_S, SILENCE_S = 15.0, 60.0
LOCK = "lock"


class Held:
    """A lock that this process holds.

    Parameters
    ----------
    descriptor : int or None
        Of a file that a child process may inherit. The lock holds until it has ended too.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = descriptor
        self.is_lost = False


@contextmanager
def locked(folder: Location, *, beat_s: float = BEAT_S, silence_s: float = SILENCE_S) -> Iterator[Held | None]:
    """Hold the lock of a folder; None if another process holds it.

    On a disk the lock is the kernel's. It ends with the processes that hold it, however they end,
    and no clock matters. On an object store it is a lease. Its holder renews it, and who finds it
    waits to see that. Only time that one process measures counts, so clocks may differ and jump.

    Parameters
    ----------
    folder : Location
    beat_s, silence_s : float
        How often a lease is renewed, and how long it must stand still to be taken over, s.

    Raises
    ------
    StoreUnwritable
        The folder can't be written.
    """
    if folder.is_remote:
        with _lease(folder, beat_s, silence_s) as held:
            yield held
    else:
        with _file_lock(folder) as held:
            yield held


@contextmanager
def _file_lock(folder: Location) -> Iterator[Held | None]:
    path = Path(folder.url) / LOCK
    try:
        folder.make()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise store_error(error, str(path), "write") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            raise StoreUnwritable(f"{path} can't be locked here: {error.strerror or error}") from error
        yield Held(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lease(folder: Location, beat_s: float, silence_s: float) -> Iterator[Held | None]:
    taken = _take(folder / LOCK, silence_s, beat_s)
    if taken is None:
        yield None
        return
    lease, held, ended = _Lease(folder / LOCK, taken), Held(), Event()

    def renew() -> None:
        while not ended.wait(beat_s):
            # A store that does not answer for a while is no loss; what counts is whether another one took over.
            with suppress(StoreError):
                if lease.is_superseded():
                    held.is_lost = True
                    return
                lease.beat()

    lease.beat()
    thread = Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        if not held.is_lost:
            lease.release()


class _Lease:
    """One holder's turn: ``000007.json`` says who holds it, and ``000007.beat`` that it lives."""

    def __init__(self, folder: Location, number: int) -> None:
        self._folder, self.number, self._beats = folder, number, 0

    def beat(self, *, released: bool = False) -> None:
        self._beats += 1
        said = {"beats": self._beats, "released": released}
        self._folder.replace(f"{self.number:06d}.beat", json.dumps(said).encode())

    def is_superseded(self) -> bool:
        return _latest(self._folder) > self.number

    def release(self) -> None:
        self.beat(released=True)
        for name in self._folder.sizes():
            if name.partition(".")[0].isdecimal() and int(name.partition(".")[0]) < self.number:
                self._folder.remove(name)


def _latest(folder: Location) -> int:
    numbers = [name.removesuffix(".json") for name in folder.sizes() if name.endswith(".json")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _take(folder: Location, silence_s: float, beat_s: float) -> int | None:
    """Return the number of the turn that this process has, None if another one is alive."""
    number = _latest(folder)
    if number and not _is_free(folder, number, silence_s, beat_s):
        return None
    holder = {"holder": uuid.uuid4().hex, "pid": os.getpid(), "host": os.uname().nodename}
    try:
        folder.put(f"{number + 1:06d}.json", json.dumps(holder).encode())
    except AlreadyThere:
        return None
    # Someone may have had several turns since the look, and removed the file that stood in the way.
    return number + 1 if _latest(folder) == number + 1 else None


def _is_free(folder: Location, number: int, silence_s: float, beat_s: float) -> bool:
    """Wait until the holder of a turn gives a sign of life, or for so long that it must be gone."""
    seen, end = _beat(folder, number), time.monotonic() + silence_s
    while True:
        if seen is not None and b'"released": true' in seen:
            return True
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, beat_s / 3))
        now = _beat(folder, number)
        if now is not None and b'"released": true' in now:
            return True
        if now != seen or _latest(folder) > number:
            return False


def _beat(folder: Location, number: int) -> bytes | None:
    try:
        return folder.read(f"{number:06d}.beat")
    except FileNotFoundError:
        return None
