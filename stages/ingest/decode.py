"""Readers of audio: from the bytes of a file to mono int16 PCM at one rate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import CorpusTree, OneOf, Outcome, Product, Scalar, Waveform, as_float
from melmill.stages.errors import PackageMissing
from melmill.stages.formats.audio import HEAD_BYTES, Header, decode, decode_part, read_header, tells
from melmill.stages.ingest.levels import (
    MIX,
    channel_identity,
    channel_words,
    check_channel,
    check_clipped,
    check_sound,
    level_db,
    taken,
)
from melmill.stages.ingest.parts import Part, file_of, part_of
from melmill.stages.ingest.reader import Reader
from melmill.stages.numeric.checks import MAX_SR, check_full_scale, check_int
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.resample import resample
from melmill.storage.utterance import SourceFile, Utterance

_DEFAULT_SR = 16000
STAY = "recordings stay in"
"""How the note begins that says that recordings are not copied."""

_RATES_NAMED = 3
_MEASURED_ANEW = "run again, and the file is measured anew"
_FULL_SCALE = np.float32(32768.0)

# Rate and length of recordings that have parts, by root, path, size and time.
_MOST_CLAIMED = 65_536
_claimed: dict[tuple[str, str, int, int], tuple[int, int]] = {}


@dataclass(frozen=True, kw_only=True)
class AudioReader(Reader):
    """Read a corpus of audio files; for its other fields see `melmill.stages.ingest.reader.Reader`.

    Parameters
    ----------
    sr : int or None
        Rate to store, Hz; files of another rate are resampled. None: 16000, and a note says so
        where recordings have more.
    channel : str or int
        Which channel of a file to take: ``mix`` is the mean of all, ``left`` or 0 the first,
        ``right`` or 1 the second, a number any other, ``loudest`` the one with the most power.
        ``refuse`` puts files of several channels in quarantine.
    audio : {"stored", "reference"}
        ``stored`` keeps a copy of the samples. ``reference`` leaves them in the corpus, which must
        stay as it is: nodes read the files again, and check that they are what was ingested.
    """

    sr: int | None = None
    channel: Annotated[str, OneOf(channel_words)] | int = MIX
    audio: Literal["stored", "reference"] = "stored"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if self.sr is not None:
            check_int("sr", self.sr, at_least=1, at_most=MAX_SR)
        check_channel(self.channel)
        if self.audio not in ("stored", "reference"):
            raise ParameterError("audio", f"must be 'stored' or 'reference', got {self.audio!r}")

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen, the rate, the channel unless all are mixed, and where samples stay."""
        chosen = {**super().identity(), "sr": self._stored_sr}
        # Defaults are absent, so that keys of products from before there was a choice stay.
        if self.channel != MIX:
            chosen["channel"] = channel_identity(self.channel)
        if self.audio != "stored":
            chosen["audio"] = self.audio
        return chosen

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Waveform:
        """Describe what is made: int16 PCM at `sr` with a catalogue."""
        return Waveform(sr=self._stored_sr, dtype="int16", corpus=True, referenced=self.audio == "reference")

    @property
    def _stored_sr(self) -> int:
        return _DEFAULT_SR if self.sr is None else self.sr

    def remarks(self, tree: CorpusTree, new: Sequence[Utterance], rates: Mapping[int, int]) -> Sequence[str]:
        """Say so if nobody chose a lower rate, and if the recordings stay where they are."""
        notes = [] if self.sr is not None else list(_higher(rates))
        if self.audio == "reference":
            notes.append(f"{STAY} {self.root!r} (audio: reference) and are read again where they are needed")
        return notes

    def claims(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return rate (Hz) and length (samples) of a file, or of the part of it that is meant.

        They are zeros if the file is damaged, or ends before the part. Only the first bytes are read
        where their length is a fact. Of other files all is read, and the samples are counted.
        """
        part = part_of(file.path)
        if part.is_whole:
            return self._header_says(tree, file)
        sr, n_samples = self.recording_claims(tree, file)
        if part.start is None or part.n_samples is None:
            return sr, n_samples
        return (sr, part.n_samples) if part.start + part.n_samples <= n_samples else (0, 0)

    def recording_claims(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return rate and length of the whole recording that a file is a part of; zeros for none.

        It is remembered for the other parts.
        """
        path = file_of(file.path)
        key = (self.root, path, file.size_bytes, file.mtime_ns)
        if key not in _claimed:
            if len(_claimed) >= _MOST_CLAIMED:
                _claimed.clear()
            _claimed[key] = self._header_says(tree, replace(file, path=path))
        return _claimed[key]

    def _header_says(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        try:
            head = tree.head(file.path, HEAD_BYTES)
            if tells(head):
                header = read_header(head, file.size_bytes)
            else:
                # It may have another size than when it was listed.
                data = tree.read(file.path)
                header = read_header(data, len(data))
        except (Unusable, PackageMissing):
            return 0, 0
        return (header.sr, header.n_samples) if header.believable else (0, 0)

    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return the samples of a file as mono int16 PCM of the catalogued length, with facts.

        Raises
        ------
        Unusable
            The file is empty, undecodable, truncated, not as catalogued, not finite, silent, constant
            or next to empty. Or it lacks the wanted channel, its channels cancel, or it is far past
            full scale.
        PackageMissing
            It was catalogued where a package was installed that this process lacks.
        """
        part = part_of(utterance.path)
        decoded, header = _decoded(utterance, data) if part.start is None else _decoded_part(utterance, data, part)
        channel = self.channel if part.channel is None else part.channel
        chosen, channels = taken(check_finite(decoded), channel)
        pcm = to_pcm(chosen, header.sr, utterance.sr)
        check_clipped(pcm.n_clipped, len(chosen), pcm.peak_db)
        peak_db, rms_db = check_sound(pcm.y, utterance.sr)
        row: dict[str, Scalar] = {
            "content_sha256": hashlib.sha256(data).hexdigest(),
            "source_sr": header.sr,
            "n_channels": header.n_channels,
            "subtype": header.subtype,
            "peak_db": peak_db,
            "rms_db": rms_db,
            **channels,
        }
        if pcm.n_clipped:
            row |= {"n_clipped": pcm.n_clipped, "source_peak_db": round(pcm.peak_db, 2)}
        return Outcome(array=pcm.y, row=row)


def _higher(rates: Mapping[int, int]) -> Iterator[str]:
    """Yield a line on recordings whose rate is above the default, if there are any."""
    higher = {rate: n for rate, n in rates.items() if rate > _DEFAULT_SR}
    if higher:
        ranked = [f"{rate:,} Hz" for rate in sorted(higher, key=lambda rate: (-higher[rate], -rate))]
        shown = ", ".join(ranked[:_RATES_NAMED]) + (" and others" if len(ranked) > _RATES_NAMED else "")
        count = f"{sum(higher.values()):,} of {sum(rates.values()):,} recordings have {shown}"
        yield (
            f"{count} and are stored at {_DEFAULT_SR:,} Hz: say sr: {max(higher)} to keep all of it, "
            f"or sr: {_DEFAULT_SR} if that is meant"
        )


class Pcm(NamedTuple):
    """Hold int16 PCM ``(n_samples,)``, and what was past full scale before it was resampled.

    That is the number of samples that were clipped, and the peak, dBFS.
    """

    y: NDArray[np.int16]
    n_clipped: int
    peak_db: float


def check_finite(y: NDArray[np.int16 | np.float32]) -> NDArray[np.int16 | np.float32]:
    """Return samples as they are; raise Unusable if one is NaN or infinite."""
    n_bad = int(y.size - np.count_nonzero(np.isfinite(y))) if y.dtype.kind == "f" else 0
    if n_bad:
        raise Unusable(f"not finite: {n_bad:,} of {y.size:,} samples are NaN or infinite")
    return y


def _decoded(utterance: Utterance, data: bytes) -> tuple[NDArray[np.int16 | np.float32], Header]:
    """Decode a file, and compare its length with the catalogued one, for which a shard has room."""
    then = (utterance.source_n_samples, utterance.source_sr)
    try:
        decoded, header = decode(data)
    except PackageMissing as error:
        if any(then):
            raise
        raise Unusable(str(error)) from error
    if then == (header.n_samples, header.sr):
        return decoded, header
    now = f"{header.n_samples:,} at {header.sr:,} Hz now"
    if not any(then):
        raise Unusable(f"catalogued without a length, as it could not be read then; {now}: {_MEASURED_ANEW}")
    if len(data) == utterance.size_bytes and header.sr == then[1]:
        raise Unusable(
            f"catalogued with {then[0]:,} samples, which its header estimates or it held then; {now}: {_MEASURED_ANEW}"
        )
    raise Unusable(f"file changed since it was catalogued: {then[0]:,} samples at {then[1]:,} Hz then, {now}")


def _decoded_part(utterance: Utterance, data: bytes, part: Part) -> tuple[NDArray[np.int16 | np.float32], Header]:
    """Decode the part of a recording that an utterance is."""
    y, header = decode_part(data, part.start or 0, part.n_samples or 0)
    if header.sr != utterance.source_sr:
        raise Unusable(
            f"recording changed since it was catalogued: {utterance.source_sr:,} Hz then, {header.sr:,} Hz now: "
            f"{_MEASURED_ANEW}"
        )
    return y, header


def to_pcm(y: NDArray[np.int16 | np.float32], sr: int, new_sr: int) -> Pcm:
    """Mix finite ``(n_samples, n_channels)`` by the mean and resample, to int16 ``(resampled_length,)``.

    16-bit mono at `new_sr` comes back bit for bit. Other samples are rounded, and clipped at full
    scale. A sample of 1.0 does not count as clipped, and neither do peaks that the change of rate
    makes.

    Raises
    ------
    Unusable
        Floats are so far past full scale that they must be of another scale.
    """
    if y.dtype == np.int16 and y.shape[1] == 1 and sr == new_sr:
        same = np.ascontiguousarray(y[:, 0], dtype=np.int16)
        return Pcm(same, 0, level_db(max(-int(same.min(initial=0)), int(same.max(initial=0))) / 32768.0))
    check_full_scale(y)
    mono = as_float(y).mean(axis=1, dtype=np.float32)
    n_clipped = int(np.count_nonzero(np.abs(np.rint(mono * _FULL_SCALE)) > _FULL_SCALE))
    pcm = np.clip(np.rint(resample(mono, sr, new_sr) * _FULL_SCALE), -32768, 32767).astype(np.int16)
    return Pcm(pcm, n_clipped, level_db(float(np.abs(mono).max(initial=0.0))))
