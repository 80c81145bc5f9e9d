"""Stage `nemo`: JSON manifests of NVIDIA NeMo."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.described import Described, ManifestReader, Tally, json_lines, split_of
from melmill.stages.ingest.names import stem_of
from melmill.stages.ingest.parts import Span, number
from melmill.storage.utterance import SourceFile


@dataclass(frozen=True, kw_only=True)
class Nemo(ManifestReader):
    """Ingest what manifests of NVIDIA NeMo name: a JSON object a line, with `audio_filepath` and `text`.

    A line with an ``offset`` is a segment, ``duration`` long. Lines with a ``shard_id`` are members of
    the ``audio_<shard_id>.tar`` beside the manifest. The id is the path, and that of a segment ends with
    its first sample. For the fields see `melmill.stages.ingest.described.ManifestReader` and
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "nemo"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "a NeMo manifest"
    expects: ClassVar[str] = "a NeMo manifest (*manifest*.json) and the recordings that it names"
    signs: ClassVar[tuple[str, ...]] = (".json", ".jsonl")

    @classmethod
    def looks_described(cls, path: str) -> bool:
        """Tell whether a file is a manifest by its name."""
        return super().looks_described(path) and "manifest" in posixpath.basename(path).lower()

    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterator[Described]:
        """Yield the line of each utterance."""
        paths = self.descriptions(files)
        for path in paths:
            tars: dict[str, dict[str, SourceFile]] = {}
            for where, one in json_lines(tree, path, self.encoding):
                audio = one.get("audio_filepath", one.get("audio_file"))
                if not isinstance(audio, str) or not audio:
                    tally.skip("lines without an audio_filepath", where)
                    continue
                row = _row(where, one, audio, posixpath.dirname(path))._replace(subset=split_of(path, len(paths) > 1))
                if "shard_id" in one:
                    tar = posixpath.join(row.folder, f"audio_{one['shard_id']}.tar")
                    if tar not in tars:
                        there = tree.members(tar) if tree.files([tar]) else ()
                        tars[tar] = {file.path.partition("//")[2]: file for file in there}
                    file = tars[tar].get(audio)
                    if file is None:
                        tally.skip("naming files that are not there", f"{audio!r} of {tar!r} ({where})")
                        continue
                    row = row._replace(file=file, id=row.id or stem_of(audio))
                yield row


def _row(where: str, one: Mapping[str, Any], audio: str, folder: str) -> Described:
    offset, duration = number(one.get("offset")), number(one.get("duration"))
    span = None if offset is None else Span(offset, length=duration)
    return Described(
        where,
        str(one.get("id") or one.get("utt_id") or ""),
        audio,
        folder,
        text=str(one.get("text") or one.get("normalized_text") or ""),
        speaker_id="" if one.get("speaker") is None else str(one["speaker"]),
        sex=str(one.get("gender") or "")[:1].upper(),
        span=span,
    )
