"""The demo corpus, two minutes of synthetic speech in LibriSpeech's layout."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.io import wavfile

from melmill.stages.ingest.demo.espeak import SR as ESPEAK_SR
from melmill.stages.ingest.demo.espeak import Line, speak
from melmill.stages.ingest.demo.script import SPEAKERS
from melmill.stages.numeric.resample import resample

SR = 16000
# Raise it whenever the corpus changes, so that an older one is made again.
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

    It holds 32 utterances of 8 speakers at 16 kHz and 16 bits, about two minutes. The same versions
    of eSpeak NG and libsndfile give the same bytes. The corpus appears whole or not at all.

    Parameters
    ----------
    folder : Path
    with_bad_files : bool
        Add a speaker ``bad`` to ``dev-clean``, with an utterance for each way to be bad.

    Returns
    -------
    Path
        Root of the corpus.

    Raises
    ------
    SynthesisError
        eSpeak NG is missing or failed.
    FileExistsError
        Another corpus is there.
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
        try:
            made.rename(corpus)
        except OSError:
            # Another process may have made the same corpus meanwhile.
            if _marker(corpus) != marker:
                raise
    return corpus


def _marker(corpus: Path) -> object:
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
    spoken = speak(
        [
            Line(text=sentence, voice=speaker.voice, rate_wpm=speaker.rate_wpm, pitch=speaker.pitch)
            for speaker, sentence in order
        ]
    )
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


def record(y: NDArray[np.int16], *, level_db: float, seed: int) -> NDArray[np.int16]:
    """Return synthetic speech as a microphone in a quiet room records it, int16 at `SR`.

    The input has the rate `ESPEAK_SR`. The RMS of the speech becomes `level_db` dBFS. Room tone of
    `ROOM_TONE_DB` lies under it, and lasts for `PAUSE_S` before and after it.
    """
    speech = resample(y, ESPEAK_SR, SR).astype(np.float64)
    speech *= 10 ** (level_db / 20) / np.sqrt(np.mean(np.square(speech)))
    speech = np.pad(speech, round(PAUSE_S * SR))
    # Rooms rumble more than they hiss, so their noise has less of the high frequencies.
    tone = np.convolve(np.random.default_rng(seed).standard_normal(speech.size), 0.8 ** np.arange(32), mode="same")
    tone *= 10 ** (ROOM_TONE_DB / 20) / np.sqrt(np.mean(np.square(tone)))
    return np.rint(np.clip(speech + tone, -1.0, 1.0) * 32767.0).astype(np.int16)


def encode(y: NDArray[np.int16]) -> bytes:
    """Return a waveform ``(n_samples,)`` at `SR` as FLAC."""
    file = io.BytesIO()
    soundfile.write(file, y, SR, format="FLAC", subtype="PCM_16")
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
    """Return files that ingestion must refuse, by what is wrong with them."""
    good, not_finite = encode(y), io.BytesIO()
    broken = np.where(np.arange(y.size) % 1000 == 500, np.nan, y / 32768.0).astype(np.float32)
    # Not by libsndfile, which writes the time of day into WAV files of floats.
    wavfile.write(not_finite, SR, broken)
    return {
        "empty": b"",
        "endless": with_claimed_length(good, 2**31 - 1),
        "nan": not_finite.getvalue(),
        "short": with_claimed_length(good, y.size // 2),
        "silent": encode(np.zeros_like(y)),
        "text": b"This is not a recording.\n",
        "truncated": good[: len(good) // 2],
    }


def with_claimed_length(flac: bytes, n_samples: int) -> bytes:
    """Return a FLAC file whose header claims `n_samples` samples, in 36 bits of bytes 18 to 26."""
    packed = int.from_bytes(flac[18:26], "big") >> 36 << 36 | n_samples
    return flac[:18] + packed.to_bytes(8, "big") + flac[26:]
