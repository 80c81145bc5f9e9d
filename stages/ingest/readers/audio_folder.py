"""Stage `audio_folder`: any folder of audio files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.formats.containers import ffmpeg
from melmill.stages.ingest.decode import AudioReader
from melmill.stages.ingest.folder import FolderReader
from melmill.stages.ingest.names import ARRAYS, AUDIO, AUDIO_SUFFIXES, RARE_SUFFIXES, suffix_of
from melmill.stages.ingest.passed_over import count_suffixes, note
from melmill.stages.ingest.reader import CorpusFile
from melmill.storage.utterance import SourceFile

_RARE = frozenset(RARE_SUFFIXES)
_UNREAD = "are audio by their names but not read"


@dataclass(frozen=True, kw_only=True)
class AudioFolder(FolderReader, AudioReader):
    """Ingest all audio files below `root`: FLAC, WAV, Ogg, Opus, MP3 and what libsndfile decodes.

    With the extra ``melmill[av]``, it reads M4A, WMA, WebM and what else FFmpeg decodes. For the
    fields see `melmill.stages.ingest.folder.FolderReader` and
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "audio_folder"
    version: ClassVar[int] = 1
    expects: ClassVar[str] = f"audio files ({', '.join(AUDIO_SUFFIXES)})"
    suffixes: ClassVar[tuple[str, ...]] = AUDIO_SUFFIXES + RARE_SUFFIXES

    def find(self, tree: CorpusTree, files: Sequence[SourceFile]) -> Sequence[CorpusFile]:
        """Return the audio files. Of a recording in a common and a rare format, the common is read."""
        entries = super().find(tree, files)
        rare = {entry.path for entry in entries if suffix_of(entry.path) in _RARE}
        if not rare:
            return entries
        common = {entry.utterance_id for entry in entries if entry.path not in rare}
        return [entry for entry in entries if entry.path not in rare or entry.utterance_id not in common]

    def can_read(self, path: str) -> bool:
        """Tell whether libsndfile reads files of this name, or FFmpeg if it is installed."""
        return ffmpeg.is_installed() or suffix_of(path) not in ffmpeg.SUFFIXES

    def left_out(self, entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return a line on audio that is read where FFmpeg is installed."""
        counts = Counter(suffix_of(entry.path) for entry in entries)
        return [note(counts, _UNREAD, f"{ffmpeg.INSTALL} to read them")] if counts else []

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return lines on audio that is not read, and on arrays; none where a manifest chooses files."""
        if self.manifest is not None:
            return []
        counts = count_suffixes(files, AUDIO | ARRAYS, {entry.path for entry in entries})
        doubled, unread, arrays = (Counter[str]() for _ in range(3))
        for suffix, n in counts.items():
            (arrays if suffix in ARRAYS else doubled if suffix in self.suffixes else unread)[suffix] = n
        notes = [
            note(found, what, remedy)
            for found, what, remedy in (
                (unread, _UNREAD, "convert them, say by ffmpeg -i FILE FILE.flac"),
                (doubled, "are audio but not read, as a file of another format has the name", "move them away"),
                (arrays, "hold arrays by their names, no audio", "mel_folder reads .npy"),
            )
            if found
        ]
        return [*super().passed_over(files, entries), *notes]
