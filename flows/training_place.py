"""Where a training keeps what it resumes from, beside its product."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from melmill.flows.word import check_wanted, say
from melmill.storage.location import Location

STATE = "state"
UTTERANCES = "utterances.txt"
LOG = "log.txt"


class TrainingFolder:
    """Keep the state of a training, the utterances that it began with, and a log, in the folder ``training``.

    Nothing in it counts as a result: it goes when there is one, but for the log.

    Parameters
    ----------
    product : Location
        Folder of the training's product.
    name : str
        Of its node, for people.
    """

    def __init__(self, product: Location, name: str) -> None:
        self._location = product / "training"
        self._name = name

    def load(self) -> bytes | None:
        """Return the state that was saved last; None for a fresh start."""
        try:
            return self._location.read(STATE)
        except FileNotFoundError:
            return None

    def save(self, state: bytes) -> None:
        """Keep a state in place of the last one, atomically and durably; raise Unwanted where nobody waits for it."""
        self._location.replace(STATE, state)
        check_wanted()

    def note(self, line: str) -> None:
        """Tell people how it goes, and keep the line in the log; raise Unwanted where nobody waits for it."""
        check_wanted()
        self._location.replace(LOG, self.log + f"{datetime.now(UTC).isoformat(timespec='seconds')} {line}\n".encode())
        say(f"{self._name}: {line}")

    @property
    def log(self) -> bytes:
        """All that was noted, a line each with its time."""
        try:
            return self._location.read(LOG)
        except FileNotFoundError:
            return b""

    @property
    def stamp(self) -> str | None:
        """What changes when a state is saved; None where there is none."""
        return self._location.stamp(STATE)

    def begin(self, found: Sequence[str]) -> Collection[str]:
        """Return the ids to learn from: those found, or where a state was saved those that it began with.

        A corpus may grow while a training rests, and must not change under it. Where utterances that it began with are
        lost, it begins anew.
        """
        if self.stamp is not None:
            begun = self._begun()
            lost = len(set(begun).difference(found))
            if begun and not lost:
                return begun
            self.note(f"begins anew: {lost or 'all'} of the utterances that it began with are not in its inputs now")
            self._location.remove(STATE)
        self._location.replace(UTTERANCES, "".join(f"{name}\n" for name in found).encode())
        return found

    def _begun(self) -> list[str]:
        try:
            return self._location.read(UTTERANCES).decode().splitlines()
        except FileNotFoundError:
            return []

    def end(self) -> None:
        """Remove what nobody will resume from."""
        self._location.remove(STATE)
        self._location.remove(UTTERANCES)
