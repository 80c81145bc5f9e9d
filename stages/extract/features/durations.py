"""Stage `durations`: how many frames of a mel each label of an alignment lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Features, Input, Item, Outcome, Product, Scalar, each
from melmill.stages.extract.features.aligned import PORTS, Frames, aligned, frames_of, waveform
from melmill.stages.extract.reading import list_files, read_file
from melmill.stages.formats.alignments import SUFFIXES, Segment, read_alignment
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.storage.utterance import Utterance

# An alignment may end so much after its recording.
_OVER_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Count the frames of the mel that each label of an alignment lasts.

    A frame belongs to the label that is heard in the middle of its window, so that the durations of
    an utterance add up to its frames. Time without a label gets an empty one. The array
    ``(1, n_frames)`` has the number of each frame's label, from 0; the labels with their frames and
    times are in a table, ``melmill.open(STORE).durations(NODE)``.

    Alignments are TextGrids, ``.lab`` files in HTK's units, seconds or Festival's form, and TIMIT's
    ``.PHN`` and ``.WRD``. One is found by the path of its recording, or by the utterance's id or
    the recording's name, in the folder or in one of its speaker.

    Parameters
    ----------
    alignments : str
        Folder of the alignments; a path, or any URL that fsspec knows.
    tier : str
        Of TextGrids. Empty: ``phones``, or the only one.
    """

    uses: ClassVar[str] = "durations"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = PORTS

    alignments: str = field(metadata={"place": True})
    tier: str = ""
    _url: str = field(default="", init=False)
    _listed: str = field(default="", init=False)
    _suffixes: tuple[str, ...] = field(default=(), init=False)

    def chosen(self, inputs: Mapping[str, Sequence[Product]]) -> Durations:
        """Return the stage that knows which alignments there are; see `ChoosingStage`.

        Raises
        ------
        ParameterError
            The folder has none.
        """
        del inputs
        listing = list_files(self.alignments)
        suffixes = {f".{name.rpartition('.')[2]}" for name in listing.names}
        known = tuple(sorted(suffix for suffix in suffixes if suffix.lower() in SUFFIXES))
        if not known:
            raise ParameterError(
                "alignments",
                f"must be a folder of alignments ({', '.join(SUFFIXES)}), got {self.alignments!r} with "
                f"{len(listing.names):,} other files",
            )
        stage = copy(self)
        object.__setattr__(stage, "_url", listing.url)
        object.__setattr__(stage, "_listed", listing.digest)
        object.__setattr__(stage, "_suffixes", known)
        return stage

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the durations. Alignments are known by their names, sizes and times."""
        return {"alignments": self._listed, "tier": self.tier}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Features:
        """Describe the row; raise ContractError unless the inputs are waveforms and mels."""
        return aligned(self.uses, inputs, ("segment",))

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the labels of every utterance's frames."""
        del product
        sr = waveform(inputs).sr
        return each(items, lambda item: self._outcome(item, frames_of(item, inputs), sr))

    def _outcome(self, item: Item, frames: Frames, sr: int) -> Outcome:
        utterance = item.utterance
        name, data = self._read(utterance)
        segments = read_alignment(name, data, utterance.source_sr or utterance.sr, self.tier)
        duration_s = item.inputs["from"].size / sr
        if segments[-1].end_s > duration_s + _OVER_S:
            raise Unusable(
                f"{name} ends at {segments[-1].end_s:.3f} s, but the recording at {duration_s:.3f} s: is it of another?"
            )
        segments = filled(segments, duration_s)
        index = segment_of(segments, frames.centres(sr) / sr)
        padded = np.pad(index, (0, frames.n_frames - index.size), mode="edge")
        columns = {
            "segment": np.arange(len(segments)),
            "label": np.array([one.label for one in segments], dtype=np.str_),
            "start_s": np.array([one.start_s for one in segments]),
            "end_s": np.array([one.end_s for one in segments]),
            "n_frames": np.bincount(padded, minlength=len(segments)),
        }
        row: dict[str, Scalar] = {"n_segments": len(segments), "alignment": name}
        return Outcome(array=padded[np.newaxis].astype(np.float32), row=row, trace=columns)

    def _read(self, utterance: Utterance) -> tuple[str, bytes]:
        for name in self._candidates(utterance):
            try:
                return name, read_file(f"{self._url}/{name}")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
        raise Unusable(f"there is no alignment of {utterance.utterance_id!r} in {self.alignments!r}")

    def _candidates(self, utterance: Utterance) -> Iterator[str]:
        path = utterance.path.rpartition("//")[2]
        stem = path.rpartition(".")[0] or path
        names = [stem, utterance.utterance_id, stem.rpartition("/")[2]]
        if utterance.speaker_id:
            names += [f"{utterance.speaker_id}/{name}" for name in names[1:]]
        for name in dict.fromkeys(names):
            yield from (f"{name}{suffix}" for suffix in self._suffixes)


def filled(segments: Sequence[Segment], duration_s: float) -> list[Segment]:
    """Return segments without gaps: time that none has gets an empty label.

    >>> [one.label for one in filled([Segment(0.5, 1.0, "a"), Segment(1.0, 1.5, "b")], 2.0)]
    ['', 'a', 'b', '']
    """
    whole: list[Segment] = []
    at = 0.0
    for one in segments:
        if one.start_s > at + 1e-6:
            whole.append(Segment(at, one.start_s, ""))
        whole.append(one)
        at = one.end_s
    if duration_s > at + 1e-6:
        whole.append(Segment(at, duration_s, ""))
    return whole


def segment_of(segments: Sequence[Segment], moments_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the segment that is heard at each moment; the last one past the end."""
    ends = np.array([one.end_s for one in segments])
    return np.minimum(np.searchsorted(ends, moments_s, side="right"), len(segments) - 1)
