"""Stage `audio_folder`: any folder of audio files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.ingest.decode import AudioReader
from melmill.stages.ingest.folder import AUDIO_SUFFIXES, FolderReader


@dataclass(frozen=True, kw_only=True)
class AudioFolder(FolderReader, AudioReader):
    """Ingest all audio files below `root`: FLAC, WAV, Ogg, Opus, MP3 and what libsndfile decodes.

    For the fields see `melmill.stages.ingest.folder.FolderReader` and
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "audio_folder"
    version: ClassVar[int] = 1
    expects: ClassVar[str] = f"audio files ({', '.join(AUDIO_SUFFIXES)})"
    suffixes: ClassVar[tuple[str, ...]] = AUDIO_SUFFIXES
