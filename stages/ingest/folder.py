"""Find the utterances of any folder of files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from melmill.stages.contract import CorpusTree
from melmill.stages.ingest.collection import (
    About,
    Claimed,
    Found,
    choose,
    claimed_audio,
    described,
    refuse_duplicates,
    transcript,
)
from melmill.stages.ingest.manifest import listed, parse_manifest
from melmill.stages.numeric.errors import ParameterError
from melmill.storage.utterance import SourceFile, Utterance

# What libsndfile decodes and people keep speech and sounds in.
SUFFIXES = ("flac", "wav", "ogg", "oga", "opus", "mp3", "aiff", "aif", "au", "caf", "w64", "rf64")
MEL_SUFFIXES = ("npy",)
METADATA = "metadata.csv"
_TRANSCRIPTS = (".normalized.txt", ".txt")


class Medium(NamedTuple):
    """What the files of a folder are: a word for it, the suffixes of their names, and what tells a file's length."""

    word: str
    suffixes: tuple[str, ...]
    claimed: Claimed


AUDIO = Medium("audio", SUFFIXES, claimed_audio)


class _Texts:
    """Looks transcripts up: beside the recording, else in the nearest ``metadata.csv`` at or above its folder."""

    def __init__(self, tree: CorpusTree, files: Sequence[SourceFile]) -> None:
        self._tree = tree
        self._paths = frozenset(file.path for file in files if file.path.endswith((*_TRANSCRIPTS, METADATA)))
        self._tables: dict[str, dict[str, str]] = {}

    def text(self, path: str) -> str:
        stem = path.rpartition(".")[0]
        for suffix in _TRANSCRIPTS:
            if stem + suffix in self._paths:
                return " ".join(transcript(self._tree, stem + suffix).split())
        return next(filter(None, self._listed(stem)), "")

    def _listed(self, stem: str) -> Iterator[str]:
        folder, _, name = stem.rpartition("/")
        below = name
        while True:
            table = self._table(f"{folder}/{METADATA}" if folder else METADATA)
            yield table.get(below) or table.get(name, "")
            if not folder:
                return
            folder, _, inner = folder.rpartition("/")
            below = f"{inner}/{below}"

    def _table(self, path: str) -> dict[str, str]:
        if path not in self._tables:
            self._tables[path] = parse_metadata(transcript(self._tree, path)) if path in self._paths else {}
        return self._tables[path]


def discover(
    tree: CorpusTree,
    medium: Medium,
    *,
    root: str,
    folders: Sequence[str],
    manifest: str | None,
    subsets: Sequence[str] | None,
    files: Sequence[str] | None,
    sr: int,
    known: Mapping[str, Utterance],
) -> list[Utterance]:
    """List the files under a root as utterances, sorted by path; headers and transcripts alone are read.

    Parameters
    ----------
    tree : CorpusTree
    medium : Medium
        What the files are.
    root : str
        Name of its root, for messages.
    folders : sequence of str
        What the folders below the root stand for, the outermost first: ``subset``, ``speaker``, ``chapter``; other
        words stand for nothing.
    manifest : str or None
        Path of a list of the files wanted, None for all.
    subsets, files : sequence of str or None
        Subsets and patterns of paths wanted, None for all.
    sr : int
        Rate that the store will hold, Hz.
    known : mapping of str to Utterance
        Utterances catalogued earlier, by path: one whose file has the same size and time is taken as it is.

    Raises
    ------
    ParameterError
        If no such file is there, a subset, pattern or line of the manifest chooses nothing, two files have one id, or a
        transcript can't be read.
    """
    there = list(tree.walk())
    found = list(_matches(there, medium.suffixes, folders))
    if not found:
        raise ParameterError(
            "root",
            f"must hold {medium.word} files ({', '.join(medium.suffixes)}), got {root!r} with none among "
            f"{len(there):,} files",
        )
    entries = [] if manifest is None else parse_manifest(_manifest(tree, manifest, root), _stem)
    if manifest is not None:
        found = listed(found, entries, _stem, manifest, root)
    chosen = choose(found, subsets, files, root)
    refuse_duplicates(chosen, root, f"rename one, or choose with files, say files: '*.{medium.suffixes[0]}'")
    said = {entry.stem: entry.text for entry in entries}
    texts = _Texts(tree, there)

    def about(f: Found) -> About:
        return About(text=said.get(_stem(f.file.path)) or texts.text(f.file.path))

    return described(chosen, tree, sr, known, about, medium.claimed)


def _manifest(tree: CorpusTree, path: str, root: str) -> str:
    try:
        data = tree.read(path)
    except OSError as error:
        raise ParameterError("manifest", f"must be a file below {root!r}, got {path!r}: {error.strerror}") from error
    return data.decode("utf-8-sig", errors="replace")


def utterance_id(stem: str) -> str:
    """Return an id that can name a file, from a path without its suffix.

    It depends on nothing but the path, so that files that are added later change no id.

    >>> utterance_id("p225/p225_001"), utterance_id("rain & wind/take 1")
    ('p225--p225_001', 'rain_wind--take_1')
    """
    return "--".join(re.sub(r"[^\w.-]+", "_", part) for part in stem.split("/"))


def parse_metadata(table: str) -> dict[str, str]:
    r"""Return the texts of a ``metadata.csv`` as LJSpeech has it: id, text and maybe a normalised text between bars.

    An id may be a file's name or its path below the table's folder, with or without its suffix; of several texts the
    last is taken. Lines of another form are passed over.

    >>> parse_metadata("LJ001-0001|in 1455|in fourteen fifty-five\nwavs/LJ001-0002.wav|a|\nnothing\n")
    {'LJ001-0001': 'in fourteen fifty-five', 'wavs/LJ001-0002': 'a'}
    """
    rows = ([field.strip() for field in line.split("|")] for line in table.splitlines())
    return {_stem(row[0]): next(filter(None, reversed(row[1:])), "") for row in rows if len(row) > 1}


def _stem(path: str) -> str:
    match = _named(*SUFFIXES, *MEL_SUFFIXES).fullmatch(path)
    return match["stem"] if match else path


@cache
def _named(*suffixes: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<stem>.+)\.(?:{'|'.join(suffixes)})", flags=re.IGNORECASE)


def _matches(files: Sequence[SourceFile], suffixes: Sequence[str], folders: Sequence[str]) -> Iterator[Found]:
    for file in files:
        match = _named(*suffixes).fullmatch(file.path)
        # Names with a leading dot are what systems leave behind: "._a.wav", ".Trashes/".
        if match and not file.path.startswith(".") and "/." not in file.path:
            says = dict(zip(folders, file.path.split("/")[:-1], strict=False))
            yield Found(
                file,
                utterance_id(match["stem"]),
                says.get("subset", ""),
                says.get("speaker", ""),
                says.get("chapter", ""),
            )
