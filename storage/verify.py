"""Find damage in a store, and remove it so that the next run redoes only that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from melmill.storage.arrays import array_slots, metadata
from melmill.storage.catalogue import Catalogue
from melmill.storage.corpus.labels import damaged_labels
from melmill.storage.errors import DamagedData, StoreError, StoreUnwritable
from melmill.storage.product import ARRAY_METADATA, CATALOGUE, DESCRIPTION, Address, ProductDescription, ProductFolder
from melmill.storage.records import record_file
from melmill.storage.store import FACTS, MANIFEST, OUTCOME, RUNS, TAGS, Store, tag_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file that is not what was written.

    Parameters
    ----------
    node, key : str
        Its product, or ``runs`` and the run's id for a manifest.
    record : str
        Record that names it. Empty for files of the whole product.
    file : str
        Relative to ``<store>/<node>/<key>``.
    problem : str
        What is wrong with it.
    """

    node: str
    key: str
    record: str
    file: str
    problem: str


def verify(store: Store) -> list[Damage]:
    """Check every file in the store; return damages in order of product and record."""
    damages = [damage for address, folder in store.products() for damage in _product_damages(address, folder)]
    readers = {MANIFEST: store.manifest, FACTS: store.facts, OUTCOME: store.outcome}
    for run_id in store.run_ids():
        for file, read in readers.items():
            if not _can_be_parsed(read, run_id):
                damages.append(Damage(node=RUNS, key=run_id, record="", file=file, problem="can't be parsed"))
    damages += [
        Damage(node=TAGS, key="", record="", file=tag_file(name), problem="can't be parsed")
        for name in store.tag_names()
        if not _can_be_parsed(store.tag, name)
    ]
    return damages


def _can_be_parsed(read: Callable[[str], object], name: str) -> bool:
    try:
        read(name)
    except DamagedData:
        return False
    return True


def repair(store: Store, damages: Sequence[Damage]) -> None:
    """Remove damaged files and the records that name them, so that the next run redoes only those.

    This also removes what killed writers left behind, so no run may be writing meanwhile.

    Raises
    ------
    StoreError
        A catalogue is damaged. Nothing in the store tells what it held. All else is repaired first.
    """
    for damage in damages:
        if damage.file == CATALOGUE:
            continue
        location = store.location / damage.node / damage.key
        if damage.record:
            location.remove(record_file(damage.record))
        location.remove(damage.file)
        if damage.file == ARRAY_METADATA:
            folder = store.product(damage.node, damage.key)
            address = folder.description.catalogue
            catalogue = store.catalogue(*address) if address else None
            if catalogue is not None:
                folder.prepare(folder.description, catalogue.n_slots)
        elif damage.file == DESCRIPTION:
            # A run writes the description anew when some of its product is to be done.
            for name in store.product(damage.node, damage.key).record_names()[:1]:
                location.remove(record_file(name))
    for name in store.location.leftovers():
        store.location.remove(name)
    lost = [damage for damage in damages if damage.file == CATALOGUE]
    if lost:
        places = ", ".join(f"{damage.node}/{damage.key}/{CATALOGUE}" for damage in lost)
        raise StoreError(
            f"{store.location.url}: the catalogue at {places} can't be repaired ({lost[0].problem}). Make it anew "
            "from the corpus with `melmill repair STORE --pipeline FILE`, or restore it from a copy. If you can do "
            "neither, remove the folder of that key and of all that was made of it, and run again."
        )


def _product_damages(address: Address, folder: ProductFolder) -> Iterator[Damage]:
    node, key = address
    # Names first: a run may be storing parts of the catalogue, and then records.
    names = folder.record_names()
    records = folder.records(names, reread=not folder.location.is_remote)
    for file, problem in _whole_product_problems(folder, names, bool(records)).items():
        yield Damage(node=node, key=key, record="", file=file, problem=problem)
    for name in names:
        if name not in records:
            yield Damage(node=node, key=key, record=name, file=record_file(name), problem="can't be parsed")
    found = folder.each(lambda name: folder.problems(records[name]), list(records))
    for name, problems in zip(records, found, strict=True):
        for file, problem in problems.items():
            yield Damage(node=node, key=key, record=name, file=file, problem=problem)


def _whole_product_problems(folder: ProductFolder, names: Sequence[str], has_records: bool) -> dict[str, str]:
    if not has_records and not folder.location.exists(DESCRIPTION):
        return {}
    try:
        description = folder.description
    except DamagedData:
        return {DESCRIPTION: "can't be parsed"}
    except StoreUnwritable:
        raise
    except StoreError:
        return {DESCRIPTION: "is missing"}
    labels = damaged_labels(folder.location / CATALOGUE)
    found = {
        CATALOGUE: _catalogue_problem(folder, description, names, has_records),
        **{f"{CATALOGUE}/{name}": problem for name, problem in labels.items()},
        ARRAY_METADATA: _metadata_problem(folder, description, has_records),
    }
    return {file: problem for file, problem in found.items() if problem}


def _catalogue_problem(
    folder: ProductFolder, description: ProductDescription, names: Sequence[str], has_records: bool
) -> str:
    location = folder.location / CATALOGUE
    if description.items_of is not None:
        return ""
    if description.catalogue != (description.node, description.key) or not (has_records or location.sizes()):
        return ""
    try:
        Catalogue.read_parts(location).check_covers(names, location.url)
    except StoreUnwritable:
        raise
    except StoreError as error:
        return str(error)
    return ""


def _metadata_problem(folder: ProductFolder, description: ProductDescription, has_records: bool) -> str:
    if description.stored_array is None:
        return ""
    try:
        data = folder.location.read(ARRAY_METADATA)
    except FileNotFoundError:
        # Whoever was to store it next was killed. The next run does.
        return "is missing" if has_records else ""
    try:
        n_slots = array_slots(data, description.slot_length)
    except ValueError:
        return "can't be parsed"
    expected = json.loads(metadata(description.stored_array, description.slot_length, n_slots))
    found = json.loads(data)
    wrong = [name for name in expected if found.get(name) != expected[name]]
    return f"has another {', '.join(wrong)} than the product" if wrong else ""
