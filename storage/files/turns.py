"""Turns of processes in a folder, and the signs of life of the one that has the last: for locks of any store.

Disks and object stores have few means in common. One of them is that of several processes, one alone
can create a file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from melmill.storage.errors import AlreadyThere, StoreError
from melmill.storage.files.location import Location


class Turns:
    """Numbered files of a folder. That of the highest number counts.

    A number is used once. So a process that was slow takes no turn of another away.

    Parameters
    ----------
    folder : Location
    prefix, suffix : str
        What stands around the number in the names.
    """

    def __init__(self, folder: Location, *, prefix: str = "", suffix: str = ".json") -> None:
        self._folder = folder
        self._prefix = prefix
        self._suffix = suffix

    def file(self, number: int) -> str:
        """Return the name of a turn's file."""
        return f"{self._prefix}{number:06d}{self._suffix}"

    @property
    def last(self) -> int:
        """Number of the last turn, 0 without any."""
        return max(self._numbers(), default=0)

    def _numbers(self) -> Iterator[int]:
        for name in self._folder.sizes():
            digits = name.removeprefix(self._prefix).removesuffix(self._suffix)
            # A name that somebody else wrote, as 7.json, is none.
            if digits.isdecimal() and name == self.file(int(digits)):
                yield int(digits)

    def take(self, number: int, data: bytes) -> bool:
        """Create a turn's file; tell whether this process has the turn.

        Parameters
        ----------
        number : int
            One more than that of a turn that is over.
        data : bytes
            Unlike those of all other processes.
        """
        try:
            self._folder.put(self.file(number), data)
        except AlreadyThere:
            return False
        # Others may have had several turns meanwhile, and removed the file that stood in the way.
        if self.last == number:
            return True
        self._folder.remove(self.file(number))
        return False

    def remove_before(self, number: int) -> None:
        """Remove the files of earlier turns."""
        for earlier in list(self._numbers()):
            if earlier < number:
                self._folder.remove(self.file(earlier))


class Beating:
    """A file that a thread writes again now and then, to show that this process goes on.

    Parameters
    ----------
    folder : Location
    name : str
        Of the file.
    data : callable
        Returns its bytes, others each time.
    every_s : float
        Time between two writes, s.
    goes_on : callable
        Tells before each write of the thread whether it may go on.
    """

    def __init__(
        self,
        folder: Location,
        name: str,
        data: Callable[[], bytes],
        every_s: float,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder, self._name, self._data = folder, name, data
        self._every_s = every_s
        self._goes_on = goes_on
        self._writing = threading.Lock()
        self._end = threading.Event()
        self._written_at = (time.monotonic(), time.time())
        self._longest_s = 0.0
        self._thread = threading.Thread(target=self._run, name="melmill-beating", daemon=True)

    def start(self) -> None:
        """Go on writing it in a thread."""
        self._thread.start()

    def write(self) -> None:
        """Write it now."""
        with self._writing:
            if not self._end.is_set():
                self._longest_s = max(self._longest_s, self._silent_s)
                self._folder.replace(self._name, self._data())
                self._written_at = (time.monotonic(), time.time())

    @property
    def _silent_s(self) -> float:
        """Time since it was written last, s, also while the process or the machine was stopped."""
        return max(now - then for now, then in zip((time.monotonic(), time.time()), self._written_at, strict=True))

    def longest_silence_s(self) -> float:
        """Return the longest time without a sign of life since the last call, s."""
        with self._writing:
            longest_s, self._longest_s = max(self._longest_s, self._silent_s), 0.0
        return longest_s

    def stop(self) -> None:
        """Write it no more."""
        with self._writing:
            self._end.set()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            # A store that fails now may answer at the next beat.
            with suppress(StoreError):
                if not self._goes_on():
                    return
                self.write()
