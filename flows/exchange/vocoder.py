"""Export what a training made from the store to a folder of files, as vocoders are passed on."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from melmill.flows.errors import PipelineError
from melmill.flows.exchange.export import check_outside
from melmill.flows.tasks.trained import TRAINED
from melmill.storage.files.location import Location
from melmill.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class ExportedVocoder:
    """Say how many files an export wrote, and how many it kept; `melmill export --json` prints the fields."""

    store: str
    node: str
    key: str
    folder: str
    written: int
    kept: int

    def as_dict(self) -> dict[str, str | int]:
        """Return plain values, for JSON."""
        return asdict(self)


def export_vocoder(store: Store, node: str, folder: str) -> ExportedVocoder:
    """Write the files that a training made to a folder: weights, configuration, page and all others.

    Parameters
    ----------
    store : Store
    node : str
        Name of a node of the last run that trains a vocoder.
    folder : str
        Path or URL.

    Raises
    ------
    PipelineError
        The folder has a file of one of these names with other bytes.
    StoreError, DamagedData
        The training is not done, or its files are not those of its record. Nothing is written then.
    """
    entry, location = store.nodes[node], Location(folder)
    check_outside(location, store)
    product = store.product(entry.folder, entry.key)
    record = product.done(TRAINED)
    files = {name.removeprefix(f"{TRAINED}/"): product.read_whole(record, name) for name in record.files}
    present = [name for name in files if location.exists(name)]
    for name in present:
        if location.read(name) != files[name]:
            raise PipelineError(f"{location.url}/{name} holds something else than {node!r} made: name another folder")
    for name in files.keys() - present:
        location.replace(name, files[name])
    return ExportedVocoder(
        store=store.location.url,
        node=node,
        key=entry.key,
        folder=location.url,
        written=len(files) - len(present),
        kept=len(present),
    )
