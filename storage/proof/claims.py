"""What is in use in a store, and what is being deleted: so that neither meets the other.

A run *claims* the products that it reads and makes. `Lock` belongs to the one process that deletes.
It *announces* what it will delete, then looks at the claims, and deletes what nobody claims. A run
claims first and then looks at what is announced. So one of the two always sees the other.
docs/lifecycle.md has the reasoning.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from types import TracebackType

from melmill.storage.description import Address
from melmill.storage.errors import StoreBusy, StoreError
from melmill.storage.files.location import Location
from melmill.storage.files.owner import Owner
from melmill.storage.files.turns import Beating, Turns
from melmill.storage.proof.record import sealed, unsealed

FOLDER = ".pruning"
"""Of the store. Listings of products pass hidden folders over."""
CLAIMS = "claims"
# A process of another machine that has written nothing for so long is taken to be gone, s.
LEASE_S = 600.0
# How often a process writes that it goes on, s.
BEAT_S = 30.0
# Pause between two looks at what another process deletes, s.
_LOOK_S = 0.2

_CLOCK = "clock-"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the file of a lock says.

    Parameters
    ----------
    number : int
        Locks are numbered. That of the highest number counts.
    token : str
        No other lock has it.
    owner : Owner
    released : bool
        Whether nobody holds it any more.
    deleting : frozenset of (str, str)
        Products that are announced, or that are being deleted.
    begun : bool
        Whether those that are claimed are left out, so that the rest may be half deleted.
    deletions : int
        How often products were deleted in this store, this time included.
    beat : int
        Grows while the owner goes on.
    """

    number: int
    token: str
    owner: Owner
    released: bool = False
    deleting: frozenset[Address] = frozenset()
    begun: bool = False
    deletions: int = 0
    beat: int = 0

    def to_json(self) -> bytes:
        """Return the bytes of its file."""
        return sealed(
            {
                "number": self.number,
                "token": self.token,
                "owner": self.owner.as_dict(),
                "released": self.released,
                "deleting": sorted(self.deleting),
                "begun": self.begun,
                "deletions": self.deletions,
                "beat": self.beat,
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Held:
        """Return what the bytes of a file say; raise ValueError, TypeError or KeyError for other bytes."""
        fields = unsealed(data)
        deleting = frozenset((node, key) for node, key in fields.pop("deleting"))
        return cls(**fields | {"owner": Owner.of(fields["owner"]), "deleting": deleting})


def latest(store: Location) -> Held | None:
    """Return the lock that counts, None where nothing was ever pruned.

    A damaged one counts as released: it was written whole, so that its process is long over.
    """
    turns = _turns(store)
    while number := turns.last:
        try:
            return Held.from_json((store / FOLDER).read(turns.file(number)))
        except FileNotFoundError:
            # A later one has just taken its place.
            continue
        except (ValueError, TypeError, KeyError):
            nobody = Owner(host="", machine="", pid=0, began="")
            return Held(number=number, token="", owner=nobody, released=True)
    return None


def _turns(store: Location) -> Turns:
    return Turns(store / FOLDER, prefix="lock-")


def store_now(store: Location) -> float:
    """Return the time by the clock of the store's file system or server, s.

    Ages of files are counted by one clock, whatever those of machines say.
    """
    folder, name = store / FOLDER, f"{_CLOCK}{uuid.uuid4().hex}"
    folder.replace(name, b"")
    try:
        return folder.modified_s(name) or time.time()
    finally:
        folder.remove(name)


def _is_gone(store: Location, name: str, owner: Owner) -> bool:
    """Tell whether the process that holds a file is over, by the kernel or else by its silence."""
    return _is_silent(store, name) if owner.runs is None else not owner.runs


def _is_silent(store: Location, name: str) -> bool:
    written_s = (store / FOLDER).modified_s(name)
    return written_s is not None and store_now(store) - written_s > LEASE_S


class Lock:
    """The right to delete products of a store, which one process has at a time. Use `taken`."""

    def __init__(self, store: Location, held: Held) -> None:
        self.store = store
        self.held = held
        self._folder = store / FOLDER
        self._turns = _turns(store)
        beats = count(1)
        self._beating = Beating(
            self._folder,
            self._turns.file(held.number),
            lambda: replace(self.held, beat=next(beats)).to_json(),
            BEAT_S,
        )

    @property
    def deleting(self) -> frozenset[Address]:
        """Products that are announced, or that are to be deleted."""
        return self.held.deleting

    def announce(self, products: Iterable[Address]) -> None:
        """Tell all that begin from now on what may be deleted. Look at the claims after that."""
        self._set(replace(self.held, deleting=frozenset(products), begun=False))

    def begin(self, products: Iterable[Address]) -> None:
        """Leave out what is claimed; after that the rest may be deleted."""
        left = frozenset(products)
        if left:
            self._set(replace(self.held, deleting=left, begun=True, deletions=self.held.deletions + 1))
        else:
            self.settle()

    def settle(self, product: Address | None = None) -> None:
        """Tell that a product is gone, or that none is being deleted any more."""
        left = self.held.deleting - {product} if product is not None else frozenset[Address]()
        self._set(replace(self.held, deleting=left, begun=self.held.begun and bool(left)))

    def check(self) -> None:
        """Raise StoreBusy unless this process still has the lock. To be called before each removal."""
        if self._beating.longest_silence_s() > LEASE_S / 4:
            self._check_number()
            self._beating.write()

    def _set(self, held: Held) -> None:
        self._check_number()
        self.held = held
        self._beating.write()

    def _check_number(self) -> None:
        if self._turns.last > self.held.number:
            raise StoreBusy(
                f"{self.store.url}: this process was stopped for so long that another one took its place. It deletes "
                "nothing more"
            )

    def open(self) -> None:
        """Go on holding it, and remove the locks before it."""
        self._beating.start()
        self._turns.remove_before(self.held.number)
        for name in self._folder.sizes():
            # Whoever asked for the time was killed.
            if name.startswith(_CLOCK) and _is_silent(self.store, name):
                self._folder.remove(name)

    def release(self) -> None:
        """Let another process have it. What is left to delete, that one goes on with."""
        with suppress(StoreBusy):
            left = self.held.deleting if self.held.begun else frozenset[Address]()
            self._set(replace(self.held, released=True, deleting=left))
        self._beating.stop()


@contextmanager
def taken(store: Location) -> Iterator[Lock]:
    """Hold the lock of a store in the block. What a killed process left half deleted is announced.

    Raises
    ------
    StoreBusy
        Another process has it.
    """
    lock = _take(store)
    lock.open()
    try:
        yield lock
    finally:
        lock.release()


def _take(store: Location) -> Lock:
    while True:
        before = latest(store)
        if before is not None and not before.released and not _is_abandoned(store, before):
            raise StoreBusy(
                f"{store.url}: another `melmill prune` is at work here ({before.owner}): wait until it is done"
            )
        held = Held(number=1, token=uuid.uuid4().hex, owner=Owner.me())
        if before is not None:
            # What may be half deleted stays announced without a gap.
            left = before.deleting if before.begun else frozenset()
            held = replace(
                held, number=before.number + 1, deleting=left, begun=bool(left), deletions=before.deletions + bool(left)
            )
        if _turns(store).take(held.number, held.to_json()):
            return Lock(store, held)


def _is_abandoned(store: Location, held: Held) -> bool:
    return _is_gone(store, _turns(store).file(held.number), held.owner)


def claimed(store: Location) -> frozenset[Address]:
    """Return the products that living processes claim, and remove the claims of dead ones."""
    folder = store / FOLDER
    found: set[Address] = set()
    for name in (folder / CLAIMS).sizes():
        try:
            fields = unsealed(folder.read(f"{CLAIMS}/{name}"))
            owner, products = Owner.of(fields["owner"]), {(node, key) for node, key in fields["products"]}
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, KeyError):
            folder.remove(f"{CLAIMS}/{name}")
            continue
        if _is_gone(store, f"{CLAIMS}/{name}", owner):
            folder.remove(f"{CLAIMS}/{name}")
        else:
            found |= products
    return frozenset(found)


class Claim:
    """The products that a process uses, for as long as the block lasts.

    Parameters
    ----------
    finish : callable
        Deletes what a lock announces. It is called if a killed process left something half deleted.
    say : callable
        Receives a line if another process has to be waited for.
    """

    def __init__(self, finish: Callable[[Lock], None], say: Say) -> None:
        self._finish = finish
        self._say = say
        self._beating: Beating | None = None
        self._folder: Location | None = None
        self._name = f"{uuid.uuid4().hex}.json"

    def take(self, store: Location, products: Collection[Address]) -> int:
        """Claim products in place of those claimed before; return how often this store was pruned.

        Whoever knew something of the products before must look again if the number has grown.

        Raises
        ------
        StoreUnwritable
            Claims can't be stored.
        """
        self.drop()
        self._folder = store / FOLDER / CLAIMS
        fields = {"owner": Owner.me().as_dict(), "products": sorted(products)}
        beats = count()
        beating = Beating(self._folder, self._name, lambda: sealed({**fields, "beat": next(beats)}), BEAT_S)
        while True:
            beating.write()
            held = latest(store)
            if held is None or held.deleting.isdisjoint(products):
                break
            # Not claimed while it waits: a process that went on with the deletion would spare it.
            self._folder.remove(self._name)
            wait_for(store, products, self._finish, self._say)
        self._beating = beating
        beating.start()
        return 0 if held is None else held.deletions

    def drop(self) -> None:
        """Claim nothing any more."""
        if self._beating is not None and self._folder is not None:
            self._beating.stop()
            self._beating = None
            with suppress(StoreError):
                self._folder.remove(self._name)

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()


def wait_for(store: Location, products: Collection[Address], finish: Callable[[Lock], None], say: Say) -> int:
    """Wait until none of some products is being deleted; return how often the store was pruned.

    What a killed process left half deleted is deleted here.
    """
    said = False
    while True:
        held = latest(store)
        if held is None or held.deleting.isdisjoint(products):
            return 0 if held is None else held.deletions
        if held.released or _is_abandoned(store, held):
            with suppress(StoreBusy), taken(store) as lock:
                finish(lock)
            continue
        if not said:
            node, key = min(held.deleting.intersection(products))
            say(f"waiting until {held.owner} has deleted {node}/{key}, which `melmill prune` found unused")
            said = True
        time.sleep(_LOOK_S)
