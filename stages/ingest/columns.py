"""Columns of tables of recordings: which holds the audio, the text, the speaker, the times."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal

from melmill.stages.ingest.described import Described, ManifestReader
from melmill.stages.ingest.parts import Span, number
from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.errors import ParameterError

# Columns that are taken where none is declared, by what they are; the first that is there counts.
USUAL: Mapping[str, tuple[str, ...]] = {
    "audio": (
        *("audio", "path", "file_name", "filename", "audio_filepath", "audio_file", "audio_path", "audiopath", "file"),
        *("file_path", "filepath", "wav", "wav_path", "clip", "recording", "speech"),
    ),
    "text": (
        *("normalized_text", "text_normalized", "text", "sentence", "transcription", "transcript"),
        *("raw_text", "raw_transcription"),
    ),
    "speaker": ("speaker_id", "speaker", "client_id", "spk_id", "spk"),
    "id": ("utterance_id", "utt_id", "id", "segment_id"),
    "subset": ("split", "subset"),
    "sex": ("gender", "sex"),
    "start": ("start", "offset", "begin", "start_time", "begin_time"),
    "end": ("end", "stop", "end_time"),
    "duration": ("duration", "length", "dur"),
    "channel": ("channel",),
}


@dataclass(frozen=True, kw_only=True)
class ColumnsReader(ManifestReader):
    """Read a table of recordings; see `melmill.stages.ingest.described.ManifestReader`.

    A column that is not named is found by its usual names, such as ``path`` and ``sentence``.

    Parameters
    ----------
    audio_column, text_column, speaker_column, id_column, subset_column, sex_column : str or None
        Columns of the recording, its text, its speaker, its id, its subset and the speaker's sex. None:
        a usual name; ``-`` for no column.
    start_column, end_column, duration_column : str or None
        Columns of the times of a segment. A duration without a start says nothing.
    channel_column : str or None
        Column of the number of the channel, from 0.
    times : {"s", "ms", "samples"}
        Unit of the times.
    """

    audio_column: str | None = None
    text_column: str | None = None
    speaker_column: str | None = None
    id_column: str | None = None
    subset_column: str | None = None
    sex_column: str | None = None
    start_column: str | None = None
    end_column: str | None = None
    duration_column: str | None = None
    channel_column: str | None = None
    times: Literal["s", "ms", "samples"] = "s"

    roles: ClassVar[tuple[str, ...]] = tuple(USUAL)

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("times", self.times, ("s", "ms", "samples"))

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen, and the columns that decide which samples an utterance has."""
        names = ("audio_column", "id_column", "start_column", "end_column", "duration_column", "channel_column")
        declared = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**super().identity(), **declared, **({} if self.times == "s" else {"times": self.times})}

    def columns_of(self, names: Sequence[str], path: str) -> dict[str, str]:
        """Return the column of each role; one without a column is left out.

        Raises
        ------
        ParameterError
            One that is declared is not there, or nothing says where the audio is.
        """
        found = {}
        low = {name.strip().lower(): name for name in reversed(names)}
        for role, usual in USUAL.items():
            declared = getattr(self, f"{role}_column")
            if declared == "-":
                continue
            if declared is not None and declared not in names:
                near = difflib.get_close_matches(declared, names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ParameterError(
                    f"{role}_column",
                    f"must be a column of {path!r}, got {declared!r}{hint} (columns: {', '.join(names)})",
                )
            column = declared or next((low[name] for name in usual if name in low), None)
            if column is not None:
                found[role] = column
        if "audio" not in found:
            raise ParameterError(
                "audio_column",
                f"must say which column of {path!r} holds the recordings: none has a usual name (columns: "
                f"{', '.join(map(str, names))})",
            )
        return found

    def span_of(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Span | Literal["wrong"] | None:
        """Return the segment that a row says; None for the whole recording, ``"wrong"`` for no numbers."""
        said = {role: row.get(columns[role]) for role in ("start", "end", "duration") if role in columns}
        said = {role: value for role, value in said.items() if value not in (None, "")}
        if "start" not in said:
            return None
        values = {role: number(value) for role, value in said.items()}
        if None in values.values():
            return "wrong"
        scale = Decimal("0.001") if self.times == "ms" else Decimal(1)
        scaled = {role: value * scale for role, value in values.items() if value is not None}
        end = scaled.get("end")
        return Span(
            scaled["start"],
            end=end,
            length=scaled.get("duration") if end is None else None,
            in_samples=self.times == "samples",
        )

    def described(
        self, row: Mapping[str, Any], columns: Mapping[str, str], where: str, audio: str, name: str, folder: str
    ) -> Described | None:
        """Return the utterance of a row, None where its times are no numbers."""

        def said(role: str) -> str:
            value = row.get(columns[role]) if role in columns else None
            return "" if value is None else str(value)

        span = self.span_of(row, columns)
        if span == "wrong":
            return None
        channel = said("channel")
        return Described(
            where,
            said("id") or name,
            audio,
            folder,
            text=said("text"),
            speaker_id=said("speaker"),
            sex=said("sex")[:1].upper(),
            subset=said("subset"),
            span=span,
            channel=int(channel) if channel.isdigit() else None,
        )
