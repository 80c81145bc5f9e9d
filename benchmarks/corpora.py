"""Corpora to measure on: LibriSpeech, the demo corpus, and 1,000 hours of headers.

The demo corpus stands in where no real speech is found.
"""

from __future__ import annotations

import os
import random
from itertools import cycle
from pathlib import Path

from melmill.flac import HEAD_BYTES as FLAC_HEAD_BYTES
from melmill.flac import MAGIC as FLAC
from melmill.stages.formats.audio import read_header

SR = 16000
_DEFAULT = Path(__file__).parents[2] / "shared"

# LibriSpeech's 960 hours are 281,241 utterances of 2,338 speakers in 5,831 chapters.
N_SPEAKERS, N_CHAPTERS, N_UTTERANCES = 2500, 2, 60
SHORTEST_S, LONGEST_S = 1.5, 22.5
# A file may have 65,000 names on ext4.
N_LENGTHS = 64
WORDS = ("THE", "SEA", "WAS", "CALM", "EVENING", "LIGHT", "LAY", "UPON", "HILLS", "AS", "WE", "WALKED", "TOGETHER")


def speech(folder: Path) -> tuple[Path, str]:
    """Return the root and the name of a corpus: LibriSpeech, or the demo corpus made in `folder`."""
    real = librispeech()
    if real.is_dir():
        return real, "LibriSpeech"
    return demo(folder), "the demo corpus (MELMILL_REAL_DATA names no LibriSpeech)"


def librispeech() -> Path:
    """Return the folder of LibriSpeech, or None."""
    return Path(os.environ.get("MELMILL_REAL_DATA", _DEFAULT)) / "corpora" / "LibriSpeech"


def demo(folder: Path) -> Path:
    """Make the demo corpus; return its root."""
    from melmill.stages.ingest.demo.corpus import make_demo_corpus

    return make_demo_corpus(folder)


def repeated(source: Path, root: Path, duration_s: float) -> None:
    """Make a corpus of at least `duration_s` from the recordings of another.

    Recordings are repeated under new names if there are too few.
    """
    files = sorted(source.rglob("*.flac"))
    random.Random(0).shuffle(files)
    total = 0.0
    for index, file in enumerate(cycle(files)):
        if total >= duration_s:
            return
        data = file.read_bytes()
        header = read_header(data[:FLAC_HEAD_BYTES], len(data))
        total += header.n_samples / header.sr
        copy = root / "dev" / str(index // len(files)) / "1" / f"{index // len(files)}-1-{index:05d}.flac"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(data)


def thousand_hours(root: Path) -> None:
    """Make the tree of a corpus of 300,000 utterances and 1,000 hours.

    Names, transcripts and headers are real, but the files hold no audio. Files of the same length are
    hard links to one file.
    """
    step = (LONGEST_S - SHORTEST_S) / (N_LENGTHS - 1)
    heads = [_head(root, int((SHORTEST_S + step * i) * SR)) for i in range(N_LENGTHS)]
    rng = random.Random(0)
    for speaker in range(1, N_SPEAKERS + 1):
        for chapter in range(1, N_CHAPTERS + 1):
            folder = root / "train" / str(speaker) / str(chapter)
            folder.mkdir(parents=True)
            ids = [f"{speaker}-{chapter}-{i:04d}" for i in range(N_UTTERANCES)]
            for utterance_id in ids:
                os.link(heads[rng.randrange(N_LENGTHS)], f"{folder}/{utterance_id}.flac")
            text = "".join(f"{utterance_id} {' '.join(rng.choices(WORDS, k=33))}\n" for utterance_id in ids)
            (folder / f"{speaker}-{chapter}.trans.txt").write_text(text)


def _head(root: Path, n_samples: int) -> Path:
    """Make a FLAC file of a header (RFC 9639, section 8.2) and a hole in place of its audio."""
    folder = root.parent / "heads"
    folder.mkdir(parents=True, exist_ok=True)
    packed = (SR << 44) | (15 << 36) | n_samples
    stream_info = bytes([16, 0, 16, 0]) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    path = folder / f"{n_samples}.flac"
    path.write_bytes(FLAC + bytes([128, 0, 0, len(stream_info)]) + stream_info)
    os.truncate(path, n_samples)
    return path
