"""Stage `audio_folder`: any folder of audio files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.collection import Folder
from melmill.stages.ingest.decode import Corpus
from melmill.stages.ingest.folder import AUDIO, discover
from melmill.storage.utterance import Utterance


@dataclass(frozen=True, kw_only=True)
class AudioFolder(Folder, Corpus):
    """Ingest all audio files below `root`: FLAC, WAV, Ogg, Opus, MP3 and what else libsndfile decodes.

    For the fields see `melmill.stages.ingest.collection.Folder` and `melmill.stages.ingest.decode.Corpus`.
    """

    uses: ClassVar[str] = "audio_folder"
    version: ClassVar[int] = 1

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> list[Utterance]:
        """List the audio files under `tree`; see `melmill.stages.ingest.folder.discover`."""
        return discover(
            tree,
            AUDIO,
            root=self.root,
            folders=self.folders,
            manifest=self.manifest,
            subsets=self.subsets,
            files=self.files,
            sr=self.sr,
            known=known,
        )
