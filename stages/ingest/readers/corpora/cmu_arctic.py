"""Stage `cmu_arctic`: the CMU Arctic corpora."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from melmill.stages.ingest.corpus import CorpusReader, Said, named
from melmill.stages.ingest.facts import Download, Facts
from melmill.stages.ingest.reader import CorpusFile
from melmill.stages.ingest.texts.decoding import lines
from melmill.storage.utterance import SourceFile

_LINE = re.compile(r'\(\s*(?P<id>\S+)\s+"(?P<text>.*)"\s*\)')
_BASE = "http://festvox.org/cmu_arctic/packed"
_SEXES = dict.fromkeys(("clb", "eey", "ljm", "lnh", "slp", "slt", "axb"), "F")
_FILES = {
    "aew": "645cb33c0f0b2ce41384fdd8d3db2c3f5fc15c1e688baeb74d2e08cab18ab406",
    "ahw": "024664adeb892809d646a3efd043625b46b5bfa3e6189b3500b2d0d59dfab06c",
    "aup": "2c55bc3050caa996758869126ad10cf42e1441212111db034b3a45189c18b6fc",
    "awb": "d74a950c9739a65f7bfc4dfa6187f2730fa03de5b8eb3f2da97a51b74df64d3c",
    "axb": "dd65c3d2907d1ee52f86e44f578319159e60f4bf722a9142be01161d84e330ff",
    "bdl": "26b91aaf48b2799b2956792b4632c2f926cd0542f402b5452d5adecb60942904",
    "clb": "3f16dc3f3b97955ea22623efb33b444341013fc660677b2e170efdcc959fa7c6",
    "eey": "8a0ee4e5acbd4b2f61a4fb947c1730ab3adcc9dc50b195981d99391d29928e8a",
    "fem": "3fcff629412b57233589cdb058f730594a62c4f3a75c20de14afe06621ef45e2",
    "gka": "dc82e7967cbd5eddbed33074b0699128dbd4482b41711916d58103707e38c67f",
    "jmk": "3a37c0e1dfc91e734fdbc88b562d9e2ebca621772402cdc693bbc9b09b211d73",
    "ksp": "8029cafce8296f9bed3022c44ef1e7953332b6bf6943c14b929f468122532717",
    "ljm": "b23993765cbf2b9e7bbc3c85b6c56eaf292ac81ee4bb887b638a24d104f921a0",
    "lnh": "4faf34d71aa7112813252fb20c5433e2fdd9a9de55a00701ffcbf05f24a5991a",
    "rms": "c6dc11235629c58441c071a7ba8a2d067903dfefbaabc4056d87da35b72ecda4",
    "rxr": "1fa4271c393e5998d200e56c102ff46fcfea169aaa2148ad9e9469616fbfdd9b",
    "slp": "54345ed55e45c23d419e9a823eef427f1cc93c83a710735ec667d068c916abf1",
    "slt": "7c173297916acf3cc7fcab2713be4c60b27312316765a90934651d367226b4ea",
}


@dataclass(frozen=True, kw_only=True)
class CmuArctic(CorpusReader):
    """Ingest CMU Arctic: `cmu_us_bdl_arctic/wav/arctic_a0001.wav` and `etc/txt.done.data` of each voice.

    All voices read the same sentences, so an id is the voice and the sentence: ``bdl-arctic_a0001``. For
    the fields see `melmill.stages.ingest.decode.AudioReader`.
    """

    uses: ClassVar[str] = "cmu_arctic"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "CMU Arctic"
    expects: ClassVar[str] = "CMU Arctic: cmu_us_bdl_arctic/wav/arctic_a0001.wav and etc/txt.done.data"
    pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?s:.*/)?cmu_us_(?P<speaker>[a-z]+)_arctic/wav/(?P<id>arctic_(?P<chapter>[ab])\d{4})\.(?i:wav|flac)"
    )
    facts: ClassVar[Facts | None] = Facts(
        url="http://festvox.org/cmu_arctic",
        licence="free, with a notice",
        language="en",
        rate="16,000",
        layout="`cmu_us_bdl_arctic/wav/arctic_a0001.wav`",
        texts='`etc/txt.done.data` of each voice: `( arctic_a0001 "Author of ..." )`',
        quirks="Voices share sentences, and their ids.",
        downloads=tuple(
            Download(f"cmu_us_{voice}_arctic.tar.bz2", f"{_BASE}/cmu_us_{voice}_arctic.tar.bz2", 0, sha256, part=voice)
            for voice, sha256 in _FILES.items()
        ),
    )

    def entry(self, file: SourceFile, match: re.Match[str]) -> CorpusFile | None:
        """Return an utterance with the id of its voice and sentence."""
        voice = match["speaker"]
        sex = _SEXES.get(voice, "M" if voice in _FILES else "")
        return CorpusFile(file, f"{voice}-{match['id']}", "", voice, match["chapter"], sex=sex)

    def tables(self, files: Sequence[SourceFile]) -> Iterable[str]:
        """Return the paths of ``txt.done.data``."""
        return named(files, r"cmu_us_[a-z]+_arctic/etc/txt\.done\.data")

    def table_of(self, entry: CorpusFile, tables: Collection[str]) -> Iterable[str]:
        """Return the table of the voice of an utterance."""
        path = f"{entry.path.rpartition('/wav/')[0]}/etc/txt.done.data"
        return [path] if path in tables else []

    def parse(self, path: str, content: str) -> Iterator[tuple[str, Said]]:
        """Yield the text of each sentence."""
        match = re.search(r"cmu_us_([a-z]+)_arctic/etc/", path)
        voice = match[1] if match else ""
        for _, line in lines(content):
            said = _LINE.fullmatch(line.strip())
            if said:
                yield f"{voice}-{said['id']}", Said(said["text"].replace('\\"', '"').strip())
