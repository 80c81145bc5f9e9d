"""Tables and files of texts beside recordings, and manifests, as the readers of corpora take them."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from benchmarks.fuzz.contract import Case, Kind, Wrong, check_message
from benchmarks.fuzz.corpus import MemoryTree
from benchmarks.fuzz.mutating import mutated, mutated_text
from melmill.errors import Error
from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.ingest.readers.librispeech import LibriSpeech
from melmill.storage.utterance import Utterance

_STEMS = ("wavs/a1", "wavs/a2", "wavs/caf\u00e9", "84/1/84-1-0000", "84/1/84-1-0001", "b.x/c d")
_TEXTS = (
    "one two three",
    'It\'s, "quoted"',
    "na\u00efve caf\u00e9",
    "tab\tin it",
    "semi;colon",
    "a|b",
    "1.5",
    "\u2028 line",
    "",
    "x" * 300,
)
_WORDS = (
    "|", ",", "\t", ";", '"', '""', "'", "\n", "\r\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c",
    "\x00", "\ufeff", "\ufffd",
    "#", "path", "text", "file", "id", "transcript", "speaker", "wavs/a1", "a1", "a1.wav", "84-1-0000", "../a1", "/",
    "./", " ", "  ",
    "e\u0301", "\u00e9", "\ud7ff", "\U0001f600", "0", "-1", "1 2 a", "\\", "wavs\\a1.wav", ".", "..",
)  # fmt: skip
_CODECS = (
    "utf-8",
    "utf-8",
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "cp1252",
    "shift_jis",
)
_NAMES = ("metadata.csv", "metadata.csv", "wavs/metadata.csv", "list.txt", "84/1/84-1.trans.txt", "SPEAKERS.TXT",
"wavs/a1.txt", "wavs/a1.normalized.txt")  # fmt: skip


class Tables(Kind):
    """A file of texts beside six recordings."""

    name = "tables"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.recordings: dict[str, bytes] = {}
        for format_, suffix in (("WAV", "wav"), ("FLAC", "flac")):
            file = io.BytesIO()
            soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 800), 16000, format=format_)
            self.recordings |= {
                f"{stem}.{suffix}": file.getvalue() for stem in _STEMS if ("84" in stem) == (suffix == "flac")
            }

    def case(self, rng: Random) -> Case:
        """Return a table, a manifest, a transcript or a text of one utterance, perhaps mutated."""
        name = rng.choice(_NAMES)
        text = self._text(name, rng)
        if rng.random() < 0.6:
            text = mutated_text(text, rng, _WORDS)
        data = text.encode(rng.choice(_CODECS), "replace" if rng.random() < 0.9 else "ignore")
        if rng.random() < 0.25:
            data = mutated(data, rng)
        return Case(name, data)

    def _text(self, name: str, rng: Random) -> str:
        mark = rng.choice(("|", "|", "|", ",", "\t", ";"))
        end = rng.choice(("\n", "\n", "\r\n", "\r"))
        lines = []
        for stem in rng.sample(_STEMS, rng.randint(1, len(_STEMS))):
            text = rng.choice(_TEXTS)
            if name.endswith(".trans.txt"):
                lines.append(stem.rpartition("/")[2] + rng.choice((" ", "\t", "  ")) + text)
                continue
            if name == "SPEAKERS.TXT":
                lines.append(f"{stem[:2]} | F | train | 25.0 | {text}")
                continue
            if name.startswith("wavs/a1"):
                return rng.choice((text, f"0 46797 {text}"))
            label = rng.choice((stem, stem.rpartition("/")[2])) + rng.choice(("", "", ".wav"))
            cells = [label, *rng.choice(((text,), (text, text.upper()), (text, "spk1"), ("spk1", text), ()))]
            if rng.random() < 0.2:
                cells = ['"' + cell.replace('"', '""') + '"' for cell in cells]
            lines.append(mark.join(cells))
        header = [mark.join(rng.choice((("path", "text"), ("file", "transcription"), ("id", "speaker", "text"))))]
        return end.join((header if rng.random() < 0.3 else []) + lines) + end * rng.randint(0, 2)

    def judge(self, case: Case) -> bool:
        """Catalogue the recordings with the file among them, and look where each text comes from."""
        files = {**self.recordings, case.name: case.data}
        tree = MemoryTree(files)
        if case.name in ("84/1/84-1.trans.txt", "SPEAKERS.TXT"):
            moved = {f"dev/{path}" if path.startswith("84/") else path: data for path, data in files.items()}
            reader: AudioFolder | LibriSpeech = LibriSpeech(root="corpus")
            tree = MemoryTree({path: data for path, data in moved.items() if path.startswith(("dev/84", "SPEAKERS"))})
        elif case.name == "list.txt":
            reader = AudioFolder(root="corpus", manifest="list.txt", folders=())
        else:
            reader = AudioFolder(root="corpus", folders=())
        try:
            utterances = reader.discover(tree, {}).utterances
        except Error as error:
            check_message(error)
            return False
        for utterance in utterances:
            _check(utterance, case)
        return any(utterance.text for utterance in utterances)


def _check(utterance: Utterance, case: Case) -> None:
    text = utterance.text
    if not text:
        return
    readings = _readings(case.data)
    if "\ufffd" in text and not any("\ufffd" in reading for reading in readings if reading is not None):
        raise Wrong("a text holds U+FFFD in place of bytes that are not understood", f"{text[:80]!r} from {case.name}")
    if "\0" in text:
        raise Wrong("a text holds NUL: its file has another encoding", f"{text[:80]!r} from {case.name}")
    wanted = _plain(text)
    holding = [reading for reading in readings if wanted in _plain(reading)]
    if not holding:
        raise Wrong("a text that its file does not hold", f"{text[:80]!r} from {case.name}")
    if case.name.startswith("wavs/a1."):
        return
    stem = unicodedata.normalize("NFC", utterance.path.rpartition("/")[2].rpartition(".")[0]).casefold()
    lines = [line for reading in holding for line in reading.replace("\r", "\n").split("\n")]
    quoted = any('"' in reading for reading in holding)
    if not quoted and not any(wanted in _plain(line) and stem in _folded(line) for line in lines):
        raise Wrong("a text of another line", f"{text[:80]!r} for {utterance.path} from {case.name}")


def _readings(data: bytes) -> list[str]:
    """Return what a file says in each of the encodings that it may have."""
    found = []
    for codec in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"):
        try:
            found.append(data.decode(codec))
        except UnicodeDecodeError:
            continue
    return found


def _plain(text: str) -> str:
    """Return text without quotes and with single spaces, in NFC, to find it again."""
    return unicodedata.normalize("NFC", " ".join(text.replace('"', " ").split()))


def _folded(line: str) -> str:
    return unicodedata.normalize("NFC", line).casefold()
