"""What a training leaves in the store, and the stages that compute with it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from melmill.stages.contract import FileStage, Processor, StageFile, StageFiles, TrainedVocoder
from melmill.stages.vocode.files.companions import TRAINED_FILES
from melmill.storage.product import ProductFolder
from melmill.storage.store import Store

# Name of a training's record, of which there is one, and of the folder of its files.
TRAINED = "trained"

# Of those that make one.
_PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Say where a training's files are.

    Parameters
    ----------
    store : str
        Its URL.
    name, folder, key : str
        Of the training's node.
    product : TrainedVocoder
    """

    store: str
    name: str
    folder: str
    key: str
    product: TrainedVocoder

    def opened(self, stage: FileStage) -> Processor:
        """Return what computes with the files in this process.

        Raises
        ------
        StoreError
            The training is not done.
        DamagedData
            Its files are not those of its record.
        """
        files = self._folder.done(TRAINED).files
        # A training that was repaired may have other bytes under the same key.
        facts = [files[_path(name)].sha256 for name in TRAINED_FILES.values()]
        digest = hashlib.sha256("\n".join(facts).encode()).hexdigest()
        given = stage.trained(self.product, self.name, digest)
        if not isinstance(given, FileStage):
            raise TypeError(f"{stage.uses}: trained() answered a stage without files")
        return given.opened(self._read)

    def _read(self) -> StageFiles:
        record = self._folder.done(TRAINED)
        return {
            role: StageFile(
                url=f"{self._folder.location.url}/{_path(name)}", data=self._folder.read_whole(record, _path(name))
            )
            for role, name in TRAINED_FILES.items()
        }

    @property
    def _folder(self) -> ProductFolder:
        return Store.open(self.store).product(self.folder, self.key)


def trained_page(product: ProductFolder) -> list[str]:
    """Return where the page of a training is, as a list of one; empty where it is not done or made none."""
    record = product.record(TRAINED)
    if record is None or _path(_PAGE) not in record.files:
        return []
    return [f"{product.location.url}/{_path(_PAGE)}"]


def _path(name: str) -> str:
    return f"{TRAINED}/{name}"
