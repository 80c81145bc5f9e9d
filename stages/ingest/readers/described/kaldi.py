"""Stage `kaldi`: data folders of Kaldi and ESPnet."""

from __future__ import annotations

import hashlib
import posixpath
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

from melmill.stages.contract import CorpusTree, Outcome
from melmill.stages.formats.audio import read_header
from melmill.stages.ingest.described import Described, ManifestReader, Tally, text_lines
from melmill.stages.ingest.parts import MARK, Span, number
from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.errors import Unusable
from melmill.storage.utterance import SourceFile, Utterance

_TIMEOUT_S = 600
# Kaldi keeps parts and copies of data folders below them.
_COPIES = re.compile(r"(^|/)(\.backup|split\d+(utt)?|log|q)(/|$)")
_ARK = re.compile(r".+\.ark:\d+(\[.*\])?")


@dataclass(frozen=True, kw_only=True)
class Kaldi(ManifestReader):
    """Ingest data folders of Kaldi: `wav.scp`, and `segments`, `text`, `utt2spk` and others beside it.

    `manifest` is the path of a ``wav.scp``, or several. The folder of each is a subset where there are
    several. For the other fields see `melmill.stages.ingest.decode.AudioReader`.

    Parameters
    ----------
    pipes : {"refuse", "run"}
        What to do with lines of ``wav.scp`` that are commands (``sph2pipe ... |``). ``run`` gives each
        to ``/bin/sh``, once for the plan and once in its task. Say so only of a file that you trust.
    """

    uses: ClassVar[str] = "kaldi"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "a Kaldi data folder"
    expects: ClassVar[str] = "a Kaldi data folder with wav.scp"
    signs: ClassVar[tuple[str, ...]] = ("/wav.scp",)

    pipes: Literal["refuse", "run"] = "refuse"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("pipes", self.pipes, ("refuse", "run"))

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen, and whether commands are run."""
        return {**super().identity(), **({} if self.pipes == "refuse" else {"pipes": self.pipes})}

    @classmethod
    def looks_described(cls, path: str) -> bool:
        """Tell whether a file is a ``wav.scp`` that is no copy."""
        return PurePosixPath(path).name == "wav.scp" and not _COPIES.search(path)

    def listed(self, tree: CorpusTree) -> Iterable[SourceFile]:
        """Return the ``wav.scp`` that are given or at the root, else all files below the root."""
        if not self._given:
            at_root = tree.files(["wav.scp"])
            return list(at_root.values()) or tree.walk()
        return super().listed(tree)

    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterator[Described]:
        """Yield the utterances of each data folder."""
        scps = self.descriptions(files)
        stats = tree.files(scps)
        for scp in scps:
            folder = posixpath.dirname(scp)
            subset = PurePosixPath(folder).name if len(scps) > 1 else ""
            yield from _Folder(self, tree, stats[scp], folder, subset, tally).utterances()

    def claims(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return rate and length; those of a command's output take running it."""
        command = _piped(file.path)
        if command is None:
            return super().claims(tree, file)
        try:
            header = read_header(*_whole(self._output(tree.read(file.path), command)))
        except Unusable:
            return 0, 0
        return (header.sr, header.n_samples) if header.believable else (0, 0)

    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return the samples of a recording, or of what its command prints; see `AudioReader.ingest`."""
        command = _piped(utterance.path)
        if command is None:
            return super().ingest(utterance, data)
        made = super().ingest(utterance, self._output(data, command))
        # The file of the utterance is wav.scp: what is compared later is that.
        return replace(made, row={**(made.row or {}), "content_sha256": hashlib.sha256(data).hexdigest()})

    def _output(self, scp: bytes, recording: str) -> bytes:
        if self.pipes != "run":
            raise Unusable("a command makes this recording, and pipes: refuse runs none")
        line = _lines(scp).get(recording)
        if line is None:
            raise Unusable(f"wav.scp has no recording {recording!r} any more")
        command = line.rstrip().removesuffix("|")
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            raise Unusable(f"its command takes more than {_TIMEOUT_S} s: {command.strip()}") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise Unusable(
                f"its command fails with {done.returncode} ({said[-1] if said else 'no message'}): {command.strip()}"
            )
        return done.stdout


def _whole(data: bytes) -> tuple[bytes, int]:
    return data, len(data)


def _piped(path: str) -> str | None:
    """Return the recording of ``wav.scp`` that a command makes, by the path of its utterance."""
    _, mark, recording = path.rpartition(f"{MARK}|")
    return recording if mark else None


@lru_cache(maxsize=4)
def _lines(scp: bytes) -> Mapping[str, str]:
    pairs = (line.split(maxsplit=1) for line in scp.decode("utf-8", "replace").splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


class _Folder:
    """Read one data folder."""

    def __init__(self, stage: Kaldi, tree: CorpusTree, scp: SourceFile, folder: str, subset: str, tally: Tally) -> None:
        self._stage, self._tree, self._scp, self._folder = stage, tree, scp, folder
        self._subset, self._tally = subset, tally
        names = ("segments", "text", "utt2spk", "spk2gender", "reco2file_and_channel")
        there = tree.files(posixpath.join(folder, name) for name in names)
        self._tables = {name: self._table(name) if posixpath.join(folder, name) in there else {} for name in names}

    def _table(self, name: str) -> dict[str, tuple[int, str]]:
        """Return the rest of each line by its first word, with the number of the line."""
        table: dict[str, tuple[int, str]] = {}
        for at, line in text_lines(self._tree, posixpath.join(self._folder, name), self._stage.encoding):
            key, _, rest = line.strip().partition(" ")
            key, tab, behind = key.partition("\t")
            table[key] = (at, (behind + (" " if tab and rest else "") + rest).strip())
        return table

    def utterances(self) -> Iterator[Described]:
        recordings = dict(self._recordings())
        segments, scp = self._tables["segments"], self._scp.path
        said = set()
        if segments:
            for utterance, (line, rest) in segments.items():
                where = f"{posixpath.join(self._folder, 'segments')}:{line}"
                fields = rest.split()
                times = [number(field) for field in fields[1:3]]
                if len(fields) < 3 or None in times:
                    self._tally.skip("lines of segments that are none", f"{where} ({utterance!r})")
                elif fields[0] not in recordings:
                    self._tally.skip("segments of recordings that wav.scp does not give", f"{where} ({fields[0]!r})")
                else:
                    start, end = times[0], times[1]
                    assert start is not None
                    span = Span(start, end=None if end is None or end < 0 else end)
                    said.add(utterance)
                    yield self._described(utterance, recordings[fields[0]]._replace(where=where, span=span), fields[0])
        else:
            for recording, one in recordings.items():
                said.add(recording)
                yield self._described(recording, one, recording)
        unknown = self._tables["text"].keys() - said
        if unknown:
            at = posixpath.join(self._folder, "text")
            first = min(unknown, key=lambda one: self._tables["text"][one][0])
            self._tally.said.append(
                f"{at}: {len(unknown):,} of {len(self._tables['text']):,} texts are of no utterance of {scp}; "
                f"first: {first!r}"
            )

    def _recordings(self) -> Iterator[tuple[str, Described]]:
        scp = self._scp.path
        for recording, (line, audio) in self._table("wav.scp").items():
            where = f"{scp}:{line}"
            if not audio:
                self._tally.skip("lines of wav.scp without a file", where)
            elif audio.startswith("|") or audio.endswith("|"):
                if self._stage.pipes != "run" or self._tables["segments"]:
                    why = (
                        "say pipes: run to run them" if self._stage.pipes != "run" else "segments can't be cut of them"
                    )
                    self._tally.skip(f"made by commands ({why})", f"{where} ({recording!r})")
                else:
                    file = SourceFile(
                        path=f"{scp}{MARK}|{recording}", size_bytes=self._scp.size_bytes, mtime_ns=self._scp.mtime_ns
                    )
                    yield recording, Described(where, recording, audio, file=file)
            elif _ARK.fullmatch(audio):
                self._tally.skip("inside archives of Kaldi (copy them to WAV with wav-copy)", f"{where} ({audio!r})")
            else:
                yield recording, Described(where, recording, audio, self._folder)

    def _described(self, utterance: str, one: Described, recording: str) -> Described:
        tables = self._tables
        speaker = tables["utt2spk"].get(utterance, (0, ""))[1]
        sides = tables["reco2file_and_channel"].get(recording, (0, ""))[1].split()
        side = {"A": 0, "B": 1, "1": 0, "2": 1}.get(sides[1]) if len(sides) > 1 and tables["segments"] else None
        return one._replace(
            id=utterance,
            text=tables["text"].get(utterance, (0, ""))[1],
            speaker_id=speaker,
            sex=tables["spk2gender"].get(speaker, (0, ""))[1].upper()[:1],
            subset=self._subset,
            channel=side,
        )
