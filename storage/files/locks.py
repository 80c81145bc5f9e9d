"""Locks that keep two processes apart: on a disk by the kernel, on an object store by a lease."""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from melmill.storage.errors import StoreUnwritable
from melmill.storage.files.local import store_error
from melmill.storage.files.location import Location
from melmill.storage.files.turns import Beating, Turns

# A holder shows that it lives every `BEAT_S`. One that has not for `SILENCE_S`, by the clock of who waits, is gone.
BEAT_S, SILENCE_S = 15.0, 60.0
LOCK = "lock"
# Of the file by which the holder of a turn shows that it lives.
_BEAT = ".beat"


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
    place = folder / LOCK
    turns, beats = Turns(place), Turns(place, suffix=_BEAT)
    number = _take(place, turns, silence_s, beat_s)
    if number is None:
        yield None
        return
    held, counted = Held(), count(1)

    def said(*, released: bool = False) -> bytes:
        return json.dumps({"beats": next(counted), "released": released}).encode()

    def is_mine() -> bool:
        # A store that does not answer for a while is no loss. What counts is whether another one took over.
        held.is_lost = turns.last > number
        return not held.is_lost

    beating = Beating(place, beats.file(number), said, beat_s, is_mine)
    beating.write()
    beating.start()
    try:
        yield held
    finally:
        beating.stop()
        if not held.is_lost:
            place.replace(beats.file(number), said(released=True))
            turns.remove_before(number)
            beats.remove_before(number)


def _take(place: Location, turns: Turns, silence_s: float, beat_s: float) -> int | None:
    """Return the number of the turn that this process has, None if another one is alive."""
    number = turns.last
    if number and not _is_free(place, turns, number, silence_s, beat_s):
        return None
    holder = {"holder": uuid.uuid4().hex, "pid": os.getpid(), "host": os.uname().nodename}
    return number + 1 if turns.take(number + 1, json.dumps(holder).encode()) else None


def _is_free(place: Location, turns: Turns, number: int, silence_s: float, beat_s: float) -> bool:
    """Wait until the holder of a turn gives a sign of life, or for so long that it must be gone."""
    file = Turns(place, suffix=_BEAT).file(number)
    seen, end = _read(place, file), time.monotonic() + silence_s
    now = seen
    while now is None or b'"released": true' not in now:
        if now != seen or turns.last > number:
            return False
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, beat_s / 3))
        now = _read(place, file)
    return True


def _read(place: Location, name: str) -> bytes | None:
    try:
        return place.read(name)
    except FileNotFoundError:
        return None
