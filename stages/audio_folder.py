"""Stage `audio_folder`: any folder of audio files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.corpora.folder import discover
from melmill.stages.errors import ParameterError
from melmill.stages.ingest import Corpus
from melmill.stages.stage import CorpusTree
from melmill.storage.utterance import Utterance

SKIPPED = "-"
LEVELS = ("subset", "speaker", "chapter", SKIPPED)


@dataclass(frozen=True, kw_only=True)
class AudioFolder(Corpus):
    """Ingest all audio files below `root`: FLAC, WAV, Ogg, Opus, MP3 and what else libsndfile decodes.

    An utterance is named by its path (``wavs/LJ001-0001.wav`` is ``wavs--LJ001-0001``). Its text is in a file beside it
    (``LJ001-0001.normalized.txt`` or ``.txt``), or in a ``metadata.csv`` as LJSpeech has it, or there is none. For the
    other fields see `melmill.stages.ingest.Corpus`.

    Parameters
    ----------
    folders : tuple of str
        What the folders below `root` stand for, the outermost first: ``subset``, ``speaker``, ``chapter``, or ``-`` for
        nothing; deeper ones stand for nothing.
    """

    folders: tuple[str, ...] = ("subset", "speaker", "chapter")

    uses: ClassVar[str] = "audio_folder"
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        for name in self.folders:
            if name not in LEVELS:
                raise ParameterError("folders", f"must hold only {', '.join(LEVELS)}, got {name!r}")
        named = [name for name in self.folders if name != SKIPPED]
        if len(set(named)) < len(named):
            raise ParameterError("folders", f"must name each level once, got {list(self.folders)!r}")
        if self.subsets is not None and "subset" not in named:
            raise ParameterError(
                "subsets", f"can't be chosen where no folder is a subset: folders is {list(self.folders)!r}"
            )

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen, the rate, and what the folders mean; where the corpus lies decides nothing."""
        return {**super().identity(), "folders": list(self.folders)}

    def discover(self, tree: CorpusTree, known: Mapping[str, Utterance]) -> list[Utterance]:
        """List the audio files under `tree`; see `melmill.stages.corpora.folder.discover`."""
        return discover(
            tree,
            root=self.root,
            folders=self.folders,
            subsets=self.subsets,
            files=self.files,
            sr=self.sr,
            known=known,
        )
