"""Stage `librispeech`: a corpus in LibriSpeech's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.corpora.librispeech import discover
from melmill.stages.ingest import Corpus
from melmill.stages.stage import CorpusTree
from melmill.storage.utterance import Utterance


@dataclass(frozen=True, kw_only=True)
class LibriSpeech(Corpus):
    """Ingest a corpus in LibriSpeech's layout: ``<subset>/<speaker>/<chapter>/<utterance>.flac`` below `root`.

    For the fields see `melmill.stages.ingest.Corpus`.
    """

    uses: ClassVar[str] = "librispeech"
    version: ClassVar[int] = 1

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> list[Utterance]:
        """List the utterances of the corpus under `tree`; see `melmill.stages.corpora.librispeech.discover`."""
        return discover(tree, root=self.root, subsets=self.subsets, files=self.files, sr=self.sr, known=known)
