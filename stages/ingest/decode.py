"""Readers of audio: from the bytes of a file to mono int16 PCM at one rate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import CorpusTree, Outcome, Product, Scalar, Waveform, as_float
from melmill.stages.formats.audio import HEAD_BYTES, decode, read_header, tells
from melmill.stages.ingest.reader import Reader
from melmill.stages.numeric.checks import MAX_SR, check_int
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.resample import resample
from melmill.storage.utterance import SourceFile, Utterance

# Some three steps of 16-bit PCM. Below it a file holds dither or less, and PESQ, STOI and SC are
# undefined.
SILENCE_DB = -80.0


@dataclass(frozen=True, kw_only=True)
class AudioReader(Reader):
    """Read a corpus of audio files; for its other fields see `melmill.stages.ingest.reader.Reader`.

    Parameters
    ----------
    sr : int
        Rate to store, Hz; files of another rate are resampled.
    """

    sr: int = 16000

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.sr < 1:
            raise ParameterError("sr", f"must be a rate in Hz, got {self.sr!r}")
        check_int("sr", self.sr, at_most=MAX_SR)

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen and the rate."""
        return {**super().identity(), "sr": self.sr}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Waveform:
        """Describe what is stored: int16 PCM at `sr` with a catalogue."""
        return Waveform(sr=self.sr, dtype="int16", corpus=True)

    def claims(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return rate (Hz) and length (samples) in a file's header; zeros if not believable.

        Only the first bytes are read where they are enough.
        """
        try:
            head = tree.head(file.path, HEAD_BYTES)
            header = read_header(head if tells(head) else tree.read(file.path), file.size_bytes)
        except (OSError, Unusable):
            return 0, 0
        return (header.sr, header.n_samples) if header.believable else (0, 0)

    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return the samples of a file as mono int16 PCM of the catalogued length, with facts.

        Raises
        ------
        Unusable
            The file is empty, undecodable, truncated, not as catalogued, not finite or silent.
        """
        decoded, header = decode(data)
        then = (utterance.source_n_samples, utterance.source_sr)
        if then != (header.n_samples, header.sr):
            raise Unusable(
                f"file changed since it was catalogued: {then[0]:,} samples at {then[1]:,} Hz then, "
                f"{header.n_samples:,} at {header.sr:,} Hz now"
            )
        y = to_pcm(decoded, header.sr, utterance.sr)
        wide = y.astype(np.float64) / 32768.0
        peak_db, rms_db = _db(float(np.max(np.abs(wide)))), _db(float(np.sqrt(np.mean(np.square(wide)))))
        if peak_db < SILENCE_DB:
            raise Unusable(f"silent: peak {peak_db:.1f} dBFS, a recording has at least {SILENCE_DB:.0f}")
        row: dict[str, Scalar] = {
            "content_sha256": hashlib.sha256(data).hexdigest(),
            "source_sr": header.sr,
            "n_channels": header.n_channels,
            "subtype": header.subtype,
            "peak_db": peak_db,
            "rms_db": rms_db,
        }
        return Outcome(array=y, row=row)


def to_pcm(y: NDArray[np.int16 | np.float32], sr: int, new_sr: int) -> NDArray[np.int16]:
    """Mix ``(n_samples, n_channels)`` by the mean and resample, to int16 ``(resampled_length,)``.

    16-bit mono at `new_sr` comes back bit for bit. Other samples are rounded, and clipped at full
    scale.

    Raises
    ------
    Unusable
        A sample is NaN or infinite.
    """
    n_bad = int(y.size - np.count_nonzero(np.isfinite(y)))
    if n_bad:
        raise Unusable(f"not finite: {n_bad:,} of {y.size:,} samples are NaN or infinite")
    if y.dtype == np.int16 and y.shape[1] == 1 and sr == new_sr:
        return np.ascontiguousarray(y[:, 0])
    mono = resample(as_float(y).mean(axis=1, dtype=np.float32), sr, new_sr)
    pcm: NDArray[np.int16] = np.clip(np.rint(mono * np.float32(32768.0)), -32768, 32767).astype(np.int16)
    return pcm


def _db(amplitude: float) -> float:
    """Return an amplitude in dB re full scale, ``-inf`` for 0."""
    return 20.0 * math.log10(amplitude) if amplitude > 0 else -math.inf
