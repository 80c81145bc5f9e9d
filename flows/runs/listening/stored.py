"""The listening tests of a store: their designs, and the answers of listeners."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melmill.stages.numeric.errors import StageError
from melmill.stages.score.listeners.answers import Answers
from melmill.stages.score.listeners.design import Design
from melmill.storage.errors import damaged
from melmill.storage.files.location import Location
from melmill.storage.product import Address
from melmill.storage.records import sealed, unsealed
from melmill.storage.store import Store

# No node can be called so.
LISTENING = "_listening"
DESIGN = "test.json"
ANSWERS = "listeners"


@dataclass(frozen=True, kw_only=True)
class StoredTest:
    """Hold a test of a store with all answers."""

    design: Design
    answers: Sequence[Answers]


def folder_of(store: Store, test_id: str) -> Location:
    """Return the folder of a test."""
    return store.location / LISTENING / test_id


def ids_of_tests(store: Store) -> list[str]:
    """Return the names of all tests of a store, sorted."""
    return (store.location / LISTENING).folders()


def write_design(store: Store, design: Design) -> None:
    """Store the design of a test. The same design may be stored again."""
    folder = folder_of(store, design.test_id)
    if not folder.exists(DESIGN):
        folder.put(DESIGN, sealed(design.as_plain()))


def read_design(store: Store, test_id: str) -> Design | None:
    """Return the design of a test, None where the store has none; raise DamagedData."""
    folder = folder_of(store, test_id)
    try:
        return Design.from_plain(unsealed(folder.read(DESIGN)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise damaged(f"{folder.url}/{DESIGN}", f"can't be parsed ({error})") from error


def answers_file(listener: str) -> str:
    """Return the file of a listener's answers, relative to the folder of the test."""
    return f"{ANSWERS}/{hashlib.sha256(listener.encode()).hexdigest()[:16]}.json"


def answers_bytes(given: Answers) -> bytes:
    """Return the answers as the bytes of their file: the same answers give the same bytes."""
    return sealed(json.loads(json.dumps(given.as_plain())))


def read_tests(store: Store) -> list[StoredTest]:
    """Return all tests of a store with their answers, by name; raise DamagedData."""
    tests = []
    for test_id in ids_of_tests(store):
        design = read_design(store, test_id)
        if design is not None:
            folder = folder_of(store, test_id)
            names = sorted(name for name in (folder / ANSWERS).sizes() if name.endswith(".json"))
            tests.append(StoredTest(design=design, answers=[_read_answers(folder, name) for name in names]))
    return tests


def _read_answers(folder: Location, name: str) -> Answers:
    try:
        return Answers.from_plain(unsealed((folder / ANSWERS).read(name)))
    except (ValueError, TypeError, KeyError, AttributeError, StageError) as error:
        raise damaged(f"{folder.url}/{ANSWERS}/{name}", f"can't be parsed ({error})") from error


def heard(tests: Sequence[StoredTest], names: Mapping[Address, str]) -> list[StoredTest]:
    """Return the tests with answers in which a product was heard that now has a name.

    Parameters
    ----------
    tests : sequence of StoredTest
    names : mapping of (folder, key) to str
        Names of products.
    """
    return [
        one for one in tests if one.answers and any((each.folder, each.key) in names for each in one.design.systems)
    ]


def digest(store: Store) -> str:
    """Return a hash of which listeners have answered which tests of a store. Empty without any.

    Answers never change, so their names and sizes stand for them. A report is made anew when more
    listeners have answered.
    """
    said = [
        f"{test_id}/{name}/{size}"
        for test_id in ids_of_tests(store)
        for name, size in sorted((folder_of(store, test_id) / ANSWERS).sizes().items())
    ]
    return hashlib.sha256("\n".join(said).encode()).hexdigest() if said else ""
