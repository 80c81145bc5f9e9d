"""Stages `lhotse` and `shar`: manifests of Lhotse, and its tars."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.described import Described, ManifestReader, Tally, json_lines
from melmill.stages.ingest.parts import Span, number
from melmill.storage.utterance import SourceFile

_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
_KINDS = ("cuts", "recordings", "supervisions")
_SHARD = re.compile(r"(?P<field>.+)\.(?P<number>\d+)\.(jsonl(\.gz)?|tar(\.gz)?)")


@dataclass(frozen=True, kw_only=True)
class Lhotse(ManifestReader):
    """Ingest manifests of Lhotse: cuts, or recordings and their supervisions (`.jsonl`, `.jsonl.gz`).

    `manifest` names cuts, or recordings and supervisions together. An utterance is a cut, else a
    supervision, else a recording without any. Cuts that are mixed or padded, and recordings that are not
    plain files or are changed when they are loaded, are passed over. For the fields see
    `melmill.stages.ingest.described.ManifestReader` and `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "lhotse"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "a set of Lhotse manifests"
    expects: ClassVar[str] = (
        "Lhotse manifests (*cuts*.jsonl.gz, or *recordings* and *supervisions*) and their recordings"
    )
    signs: ClassVar[tuple[str, ...]] = _SUFFIXES

    @classmethod
    def looks_described(cls, path: str) -> bool:
        """Tell whether a file is a manifest by its name; shards of Shar are none."""
        name = posixpath.basename(path).lower()
        return super().looks_described(path) and bool(_kind(name)) and not _SHARD.fullmatch(name)

    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterator[Described]:
        """Yield cuts, and supervisions of recordings that no cuts describe."""
        paths = self.descriptions(files)
        by_kind: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {kind: [] for kind in _KINDS}
        for path in paths:
            named = _kind(posixpath.basename(path).lower())
            subset = _part(path) if len(paths) > 1 else ""
            for where, one in json_lines(tree, path, self.encoding):
                by_kind[named or _kind_of(one)].append((where, subset, one))
        for where, subset, cut in by_kind["cuts"]:
            yield from cut_rows(where, cut, posixpath.dirname(where), subset, tally)
        if by_kind["cuts"]:
            return
        spoken: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for where, _, one in by_kind["supervisions"]:
            spoken.setdefault(str(one.get("recording_id")), []).append((where, one))
        known = set()
        for where, subset, recording in by_kind["recordings"]:
            known.add(str(recording.get("id")))
            audio = source_of(recording, where, tally)
            if audio is None:
                continue
            row = Described(where, str(recording.get("id")), audio, posixpath.dirname(where), subset=subset)
            some = spoken.get(row.id, [])
            yield from ([_supervised(row, recording, at, one) for at, one in some] if some else [row])
        for name in spoken.keys() - known:
            for where, _ in spoken[name]:
                tally.skip("supervisions of recordings that are not described", f"{where} ({name!r})")


def _kind(name: str) -> str:
    return next((kind for kind in _KINDS if kind in name or kind.removesuffix("s") + "_" in name), "")


def _kind_of(one: Mapping[str, Any]) -> str:
    return "recordings" if "sources" in one else "cuts" if "type" in one else "supervisions"


def _part(path: str) -> str:
    """Return the part of a corpus that a manifest is of, by its name.

    >>> _part("x/librispeech_cuts_dev-clean.jsonl.gz"), _part("cuts_train.jsonl")
    ('dev-clean', 'train')
    """
    stem = posixpath.basename(path).partition(".")[0]
    return re.sub(r"^.*?(cuts|recordings|supervisions)_?", "", stem) or stem


def _objects(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list of JSON; other values say nothing."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def source_of(recording: Mapping[str, Any], where: str, tally: Tally) -> str | None:
    """Return the path of a recording's only file; None, and counted, where it has no such file."""
    sources = recording.get("sources")
    if recording.get("transforms"):
        tally.skip("recordings that are changed when they are loaded (transforms)", where)
    elif len(_objects(sources)) != 1 or _objects(sources)[0].get("type") not in ("file", "url", "shar"):
        kinds = ", ".join(str(one.get("type")) for one in _objects(sources)) or "none"
        tally.skip("recordings that are not one file", f"{where} (sources: {kinds})")
    else:
        return str(_objects(sources)[0].get("source", ""))
    return None


def _supervised(row: Described, recording: Mapping[str, Any], where: str, one: Mapping[str, Any]) -> Described:
    start, length = number(one.get("start")), number(one.get("duration"))
    span = None if start is None else Span(start, length=length)
    if span is not None and not span.start and _is_all(length, recording):
        span = None
    return _spoken(row._replace(where=where, id=str(one.get("id")), span=span, channel=_channel(one, recording)), [one])


def _is_all(length: Any, recording: Mapping[str, Any]) -> bool:  # noqa: ANN401 - a number, or anything
    """Tell whether a length is that of the whole recording, whose times are rounded."""
    sr, n_samples = recording.get("sampling_rate"), recording.get("num_samples")
    if length is None or not isinstance(sr, int) or not isinstance(n_samples, int):
        return False
    return bool(abs(round(length * sr) - n_samples) <= 1)


def _channel(one: Mapping[str, Any], recording: Mapping[str, Any]) -> int | None:
    """Return the channel of a cut or a supervision, where the recording has several."""
    said = [source.get("channels") for source in _objects(recording.get("sources"))]
    channels = [channel for some in said if isinstance(some, list) for channel in some]
    channel = one.get("channel")
    if isinstance(channel, list):
        channel = channel[0] if len(channel) == 1 else None
    return channel if isinstance(channel, int) and len(channels) > 1 else None


def _spoken(row: Described, supervisions: Sequence[Mapping[str, Any]]) -> Described:
    """Return an utterance with the texts of its supervisions, and their speaker if it is one."""
    ordered = sorted(supervisions, key=lambda one: number(one.get("start")) or 0)
    texts = [str(one["text"]) for one in ordered if one.get("text")]
    speakers = {str(one["speaker"]) for one in ordered if one.get("speaker")}
    sexes = {str(one["gender"])[:1].upper() for one in ordered if one.get("gender")}
    return row._replace(
        text=" ".join(texts),
        speaker_id=speakers.pop() if len(speakers) == 1 else "",
        sex=sexes.pop() if len(sexes) == 1 else "",
    )


def cut_rows(
    where: str, cut: Mapping[str, Any], folder: str, subset: str, tally: Tally, file: SourceFile | None = None
) -> Iterator[Described]:
    """Yield the utterance that a cut is, unless it is passed over.

    Parameters
    ----------
    where : str
    cut : mapping
        A line of a manifest.
    folder, subset : str
    tally : Tally
    file : SourceFile or None
        The audio of the cut by itself, as tars of Shar have it. None: its recording is cut.
    """
    recording = cut.get("recording")
    if cut.get("type", "MonoCut") not in ("MonoCut", "Cut", "MultiCut"):
        tally.skip("cuts that are mixed or padded", f"{where} ({cut.get('type')})")
    elif not isinstance(recording, dict):
        tally.skip("cuts without a recording", where)
    elif file is not None:
        row = Described(where, str(cut.get("id")), file.path, folder, subset=subset, file=file)
        yield _spoken(row, _objects(cut.get("supervisions")))
    elif (audio := source_of(recording, where, tally)) is not None:
        start, length = number(cut.get("start")), number(cut.get("duration"))
        span = None if start is None or (not start and _is_all(length, recording)) else Span(start, length=length)
        row = Described(where, str(cut.get("id")), audio, folder, subset=subset, span=span)
        yield _spoken(row._replace(channel=_channel(cut, recording)), _objects(cut.get("supervisions")))


@dataclass(frozen=True, kw_only=True)
class Shar(ManifestReader):
    """Ingest Lhotse Shar: `cuts.000000.jsonl.gz` and `recording.000000.tar` with the audio of each cut.

    `manifest` chooses some of the shards of cuts. Their audio is in the tar of the same number. For the
    fields see
    `melmill.stages.ingest.described.ManifestReader` and `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "shar"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "a Lhotse Shar"
    expects: ClassVar[str] = "shards of Lhotse Shar (cuts.000000.jsonl.gz and recording.000000.tar)"
    signs: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz")

    @classmethod
    def looks_described(cls, path: str) -> bool:
        """Tell whether a file is a shard of cuts."""
        match = _SHARD.fullmatch(posixpath.basename(path))
        return super().looks_described(path) and match is not None and match["field"] == "cuts"

    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterator[Described]:
        """Yield the cuts of each shard, with their audio."""
        paths = self.descriptions(files)
        folders = {posixpath.dirname(path) for path in paths}
        for path in paths:
            folder = posixpath.dirname(path)
            match = _SHARD.fullmatch(posixpath.basename(path))
            shard = match["number"] if match else ""
            names = [posixpath.join(folder, f"recording.{shard}{suffix}") for suffix in (".tar", ".tar.gz")]
            tar = next(iter(tree.files(names)), None)
            if tar is None:
                tally.skip("shards without their audio", f"{path!r} (expected {names[0]!r})")
                continue
            audio = {}
            for file in tree.members(tar):
                stem, _, suffix = file.path.partition("//")[2].rpartition(".")
                if suffix not in ("json", "nodata", "nometa"):
                    audio[stem] = file
            subset = posixpath.basename(folder) if len(folders) > 1 else ""
            for where, cut in json_lines(tree, path, self.encoding):
                name = str(cut.get("id"))
                if name not in audio:
                    tally.skip("cuts whose audio is not in their tar", f"{name!r} ({where})")
                    continue
                yield from cut_rows(where, cut, folder, subset, tally, audio[name])
