"""The demo corpus: a few minutes of synthetic speech in LibriSpeech's layout, made on the spot.

``melmill fetch demo FOLDER`` makes it.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.io import wavfile

from melmill.stages.ingest.demo.espeak import SR as ESPEAK_SR
from melmill.stages.ingest.demo.espeak import Line, speak
from melmill.stages.ingest.demo.script import SPEAKERS, Speaker
from melmill.stages.numeric.resample import resample

SR = 16000
# Raised whenever the corpus would come out otherwise, so that an older one is made again.
VERSION = 1
ROOM_TONE_DB = -60.0
PAUSE_S = 0.3
_MARKER = "DEMO.json"
_README = """A demonstration corpus in the layout of LibriSpeech (Panayotov et al., 2015).

The speech is synthetic, by eSpeak NG; it is meant for trying software, not for judging or training it. The sentences
were written for this corpus. Sentences and recordings are dedicated to the public domain (CC0 1.0).
"""


def make_demo_corpus(folder: Path, with_bad_files: bool = False) -> Path:
    """Make the demo corpus, ``<folder>/LibriSpeech``, unless it is there already.

    It holds 32 utterances of 8 speakers, some two minutes, at 16 kHz and 16 bit. The same version of eSpeak NG and of
    libsndfile give the same bytes. The corpus appears whole or not at all.

    Parameters
    ----------
    folder : Path
    with_bad_files : bool
        Add to ``dev-clean`` a speaker ``bad``, one utterance for each way in which a file can be bad.

    Returns
    -------
    Path
        The corpus's root.

    Raises
    ------
    SynthesisError
        If eSpeak NG is missing or failed.
    FileExistsError
        If another corpus lies there.
    """
    corpus = folder / "LibriSpeech"
    marker = {"version": VERSION, "with_bad_files": with_bad_files}
    if _marker(corpus) == marker:
        return corpus
    if corpus.exists() and _marker(corpus) is None:
        raise FileExistsError(f"{corpus} exists and is not a demo corpus: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=folder) as aside:
        made = Path(aside) / "LibriSpeech"
        for path, data in _contents(with_bad_files).items():
            _write(made / path, data)
        _write(made / _MARKER, json.dumps(marker).encode())
        if corpus.exists():
            corpus.rename(Path(aside) / "replaced")
        _put(made, corpus, marker)
    return corpus


def _put(made: Path, corpus: Path, marker: Mapping[str, Any]) -> None:
    try:
        made.rename(corpus)
    except OSError:
        # Another process may have made the same one meanwhile.
        if _marker(corpus) != marker:
            raise


def _marker(corpus: Path) -> Any:  # noqa: ANN401 - whatever JSON lies there
    try:
        return json.loads((corpus / _MARKER).read_bytes())
    except (OSError, ValueError):
        return None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _contents(with_bad_files: bool) -> dict[str, bytes]:
    """Return the whole corpus, bytes by path."""
    order = [(speaker, sentence) for speaker in SPEAKERS for sentence in speaker.sentences]
    spoken = speak([_line(speaker, sentence) for speaker, sentence in order])
    waves: dict[str, list[NDArray[np.int16]]] = {speaker.speaker_id: [] for speaker in SPEAKERS}
    for i, ((speaker, _), y) in enumerate(zip(order, spoken, strict=True)):
        waves[speaker.speaker_id].append(record(y, level_db=speaker.level_db, seed=i))
    contents = {"README.TXT": _README.encode(), "SPEAKERS.TXT": _speakers_table(waves).encode()}
    for speaker in SPEAKERS:
        chapter = [
            (encode(y), sentence) for y, sentence in zip(waves[speaker.speaker_id], speaker.sentences, strict=True)
        ]
        contents |= _chapter(speaker.subset, speaker.speaker_id, speaker.chapter_id, chapter)
    if with_bad_files:
        first = waves[SPEAKERS[0].speaker_id][0]
        for kind, data in bad_files(first).items():
            contents |= _chapter("dev-clean", "bad", kind, [(data, SPEAKERS[0].sentences[0])])
    return contents


def _line(speaker: Speaker, sentence: str) -> Line:
    return Line(text=sentence, voice=speaker.voice, rate_wpm=speaker.rate_wpm, pitch=speaker.pitch)


def record(y: NDArray[np.int16], *, level_db: float, seed: int) -> NDArray[np.int16]:
    """Turn synthetic speech at `ESPEAK_SR` into what a microphone in a quiet room would give, int16 at `SR`.

    The RMS becomes `level_db` dBFS, with room tone of `ROOM_TONE_DB` under it and for `PAUSE_S` at both ends.
    """
    speech = resample(y, ESPEAK_SR, SR).astype(np.float64)
    speech *= 10 ** (level_db / 20) / np.sqrt(np.mean(np.square(speech)))
    speech = np.pad(speech, round(PAUSE_S * SR))
    # Rooms rumble more than they hiss: noise with its highs taken off.
    tone = np.convolve(np.random.default_rng(seed).standard_normal(speech.size), 0.8 ** np.arange(32), mode="same")
    tone *= 10 ** (ROOM_TONE_DB / 20) / np.sqrt(np.mean(np.square(tone)))
    return np.rint(np.clip(speech + tone, -1.0, 1.0) * 32767.0).astype(np.int16)


def encode(y: NDArray[np.int16]) -> bytes:
    """Encode a waveform ``(n_samples,)`` at `SR` as FLAC."""
    file = io.BytesIO()
    soundfile.write(file, y, SR, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _encode_float(y: NDArray[np.float32]) -> bytes:
    # Not by libsndfile, which writes the time of day into WAV files of floats.
    file = io.BytesIO()
    wavfile.write(file, SR, y)
    return file.getvalue()


def _chapter(subset: str, speaker_id: str, chapter_id: str, read: list[tuple[bytes, str]]) -> dict[str, bytes]:
    folder, name = f"{subset}/{speaker_id}/{chapter_id}", f"{speaker_id}-{chapter_id}"
    files = {f"{folder}/{name}-{i:04d}.flac": data for i, (data, _) in enumerate(read)}
    lines = [f"{name}-{i:04d} {transcript(sentence)}\n" for i, (_, sentence) in enumerate(read)]
    return {**files, f"{folder}/{name}.trans.txt": "".join(lines).encode()}


def transcript(sentence: str) -> str:
    """Return a sentence as LibriSpeech's transcripts spell it.

    >>> transcript("It's late, he said.")
    "IT'S LATE HE SAID"
    """
    return re.sub(r"[^A-Z' ]", "", sentence.upper())


def _speakers_table(waves: Mapping[str, list[NDArray[np.int16]]]) -> str:
    lines = [
        "; The speakers of the demonstration corpus; all of them are synthetic.",
        ";",
        ";ID  |SEX| SUBSET           |MINUTES| NAME",
    ]
    for speaker in SPEAKERS:
        minutes = sum(y.size for y in waves[speaker.speaker_id]) / SR / 60
        lines.append(
            f"{speaker.speaker_id:<5}| {speaker.sex} | {speaker.subset:<17}| {minutes:5.2f} | eSpeak NG {speaker.voice}"
        )
    return "\n".join(lines) + "\n"


def bad_files(y: NDArray[np.int16]) -> dict[str, bytes]:
    """Return files that ingestion must refuse, by what is wrong with them, made of the good waveform `y`."""
    good = encode(y)
    broken = np.where(np.arange(y.size) % 1000 == 500, np.nan, y / 32768.0).astype(np.float32)
    return {
        "empty": b"",
        "endless": with_claimed_length(good, 2**31 - 1),
        "nan": _encode_float(broken),
        "short": with_claimed_length(good, y.size // 2),
        "silent": encode(np.zeros_like(y)),
        "text": b"This is not a recording.\n",
        "truncated": good[: len(good) // 2],
    }


def with_claimed_length(flac: bytes, n_samples: int) -> bytes:
    """Return a FLAC file whose header claims `n_samples` samples: the low 36 bits of its bytes 18 to 26."""
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | n_samples
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]
