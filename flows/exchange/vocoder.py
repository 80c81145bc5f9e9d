"""From a training's product in the store to a folder of files, as vocoders are passed on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from melmill.flows.errors import PipelineError
from melmill.flows.exchange.export import check_outside
from melmill.flows.tasks.trained import TRAINED
from melmill.storage.files.location import Location
from melmill.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class ExportedVocoder:
    """What came of an export; its fields are what `melmill export --json` prints: files written, and those kept."""

    store: str
    node: str
    key: str
    folder: str
    written: int
    kept: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def export_vocoder(store: Store, node: str, folder: str) -> ExportedVocoder:
    """Write what a training made to a folder: weights, configuration, page and whatever it answered besides.

    Parameters
    ----------
    store : Store
    node : str
        Of the last run; it trains a vocoder.
    folder : str
        Path or URL.

    Raises
    ------
    PipelineError
        A file of one of their names holds something else.
    StoreError, DamagedData
        The training is not done, or its files are not those of its record; nothing is written then.
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
