"""Stage `webdataset`: tars of samples, each some files of one key."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.described import Described, ManifestReader, Tally
from melmill.stages.ingest.names import AUDIO_SUFFIXES, RARE_SUFFIXES
from melmill.stages.ingest.reader import READERS
from melmill.stages.ingest.texts.decoding import collapsed, decoded
from melmill.storage.utterance import SourceFile

_AUDIO = frozenset({*AUDIO_SUFFIXES, *RARE_SUFFIXES})
_TEXTS = ("txt", "text", "transcript", "transcription", "lab")
_IN_JSON = ("text", "normalized_text", "sentence", "transcript", "transcription")
_SPEAKERS = ("speaker", "speaker_id", "spk", "client_id")
_SPLIT = re.compile(r"^(?P<split>.*?)[-_.]?\d*(-of-\d+)?$")


@dataclass(frozen=True, kw_only=True)
class WebDataset(ManifestReader):
    """Ingest tars of WebDataset: files of one key are a sample, `key.flac`, `key.txt`, `key.json`.

    Tars are read in place; `manifest` chooses some. The text is that of ``txt``, or ``text`` in the
    ``json``, which may name a ``speaker`` too. The subset is the name of the tar without its number. For
    the fields see `melmill.stages.ingest.described.ManifestReader` and
    `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "webdataset"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "a WebDataset"
    expects: ClassVar[str] = "tars of samples (key.flac, key.txt, key.json)"
    signs: ClassVar[tuple[str, ...]] = (".tar", ".tar.gz", ".tgz", ".tar.zst")

    @classmethod
    def recognise_files(cls, root: str, paths: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the root if it holds a tar whose name ends with a number, but no Shar.

        Archives of published corpora, such as ``train-clean-100.tar.gz``, are no shards.
        """
        published = {one.name for reader in READERS.values() if reader.facts for one in reader.facts.downloads}
        tars = [path for path in paths if cls.looks_described(path) and posixpath.basename(path) not in published]
        shar = any(posixpath.basename(path).startswith("cuts.") for path in paths)
        numbered = [path for path in tars if re.search(r"\d\.tar", path)]
        return {"root": root} if numbered and not shar else None

    def describe(self, tree: CorpusTree, files: Sequence[SourceFile], tally: Tally) -> Iterator[Described]:
        """Yield the samples of each tar that hold audio."""
        tars = self.descriptions(files)
        several = len({_split(tar) for tar in tars}) > 1
        unparsed: list[str] = []
        for tar in tars:
            samples: dict[str, dict[str, SourceFile]] = {}
            for file in tree.members(tar):
                name = file.path.partition("//")[2]
                if file.problem:
                    tally.skip(file.problem, f"{name!r} of {tar!r}")
                    continue
                folder, _, base = name.rpartition("/")
                key, _, suffix = base.partition(".")
                samples.setdefault(f"{folder}/{key}" if folder else key, {})[suffix.lower()] = file
            for key, parts in samples.items():
                audio = [suffix for suffix in parts if suffix.rpartition(".")[2] in _AUDIO]
                if not audio:
                    tally.skip("samples without audio", f"{key!r} of {tar!r}")
                    continue
                subset = _split(tar) if several else ""
                yield self._described(tree, tar, key, parts[audio[0]], parts, unparsed)._replace(subset=subset)
        if unparsed:
            tally.said.append(
                f"{len(unparsed):,} samples have JSON that can't be parsed and is not taken: {unparsed[0]}"
            )

    def _described(
        self,
        tree: CorpusTree,
        tar: str,
        key: str,
        audio: SourceFile,
        parts: Mapping[str, SourceFile],
        unparsed: list[str],
    ) -> Described:
        said: Mapping[str, Any] = {}
        if "json" in parts:
            path = parts["json"].path
            content = decoded(tree.read(path), path, self.encoding)
            try:
                value = json.loads(content)
            except (ValueError, RecursionError) as error:
                unparsed.append(f"{path!r} ({error})")
                value = {}
            said = value if isinstance(value, dict) else {}
        text = next((str(said[name]) for name in _IN_JSON if said.get(name)), "")
        for name in _TEXTS:
            if name in parts:
                text = collapsed(decoded(tree.read(parts[name].path), parts[name].path, self.encoding))
                break
        speaker = next((str(said[name]) for name in _SPEAKERS if said.get(name)), "")
        return Described(f"{tar}//{key}", key, audio.path, text=text, speaker_id=speaker, file=audio)


def _split(tar: str) -> str:
    """Return the subset that a tar is a part of.

    >>> _split("x/train-000012.tar"), _split("000001.tar")
    ('train', '')
    """
    name = posixpath.basename(tar).partition(".tar")[0].removesuffix(".tgz")
    match = _SPLIT.fullmatch(name)
    return match["split"] if match else name
