"""The files that a training leaves in the store, and the stages that compute with them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from melmill.stages.contract import FileStage, Processor, StageFile, StageFiles, Trained
from melmill.storage.product import ProductFolder
from melmill.storage.reading.run_tables import TRAINED as TRAINED
from melmill.storage.store import Store

# The page of a training that makes one.
_PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class TrainedFiles:
    """Say where the files of a training are.

    Parameters
    ----------
    store : str
        URL of the store.
    name, folder, key : str
        The training's node, its folder and its key.
    product : Trained
    """

    store: str
    name: str
    folder: str
    key: str
    product: Trained

    def opened(self, stage: FileStage) -> Processor:
        """Return what computes with the files in this process.

        Raises
        ------
        StoreError
            The training is not done.
        DamagedData
            The files are not those of the record.
        """
        files = self._folder.done(TRAINED).files
        # A training that was repaired may have other bytes under the same key.
        checksums = [files[_path(name)].sha256 for name in self.product.files.values()]
        digest = hashlib.sha256("\n".join(checksums).encode()).hexdigest()
        with_files = stage.trained(self.product, self.name, digest)
        if not isinstance(with_files, FileStage):
            raise TypeError(f"stage {stage.uses!r}: trained() must return a stage with files, got {with_files!r}")
        return with_files.opened(self._read)

    def _read(self) -> StageFiles:
        record = self._folder.done(TRAINED)
        return {
            role: StageFile(
                url=f"{self._folder.home(record).url}/{_path(name)}", data=self._folder.read_whole(record, _path(name))
            )
            for role, name in self.product.files.items()
        }

    @property
    def _folder(self) -> ProductFolder:
        return Store.open(self.store).product(self.folder, self.key)


def trained_page(product: ProductFolder) -> list[str]:
    """Return the URL of a training's page in a list; empty if it is not done or made no page."""
    record = product.record(TRAINED)
    if record is None or _path(_PAGE) not in record.files:
        return []
    return [f"{product.home(record).url}/{_path(_PAGE)}"]


def _path(name: str) -> str:
    return f"{TRAINED}/{name}"
