"""Stage `mel_folder`: any folder of mel spectrograms that other software made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.blame import is_of_file
from melmill.stages.contract import CorpusTree, Mel, Outcome, Product
from melmill.stages.extract.fields import MelFields
from melmill.stages.formats.npy import HEAD_BYTES, decode_npy, npy_header
from melmill.stages.ingest.folder import FolderReader
from melmill.stages.ingest.names import ARRAYS, AUDIO, MEL_SUFFIXES
from melmill.stages.ingest.passed_over import count_suffixes, note
from melmill.stages.ingest.reader import CorpusFile, unreadable_here
from melmill.stages.invert.inversion import shortest_length
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.mel import check_range
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.utterance import SourceFile, Utterance

Layout = Literal["bands_first", "frames_first"]
LAYOUTS: tuple[Layout, ...] = ("bands_first", "frames_first")
_LOOKED_AT = 8


@dataclass(frozen=True, kw_only=True)
class MelFolder(FolderReader, MelFields):
    """Ingest all mel spectrograms below `root`: ``.npy`` files of one float array each.

    No file says how its mel was made, so `preset` (with overrides) must. The utterances have no
    recordings. An inverter makes the shortest waveforms that have their frames, and there is
    nothing to score these against. With ``audio: NODE`` the mels are joined with that node's
    recordings, by the stage `paired_mels`, whose fields it takes too. For the other fields see
    `melmill.stages.ingest.folder.FolderReader` and `melmill.stages.extract.fields.MelFields`.

    Parameters
    ----------
    layout : {"bands_first", "frames_first"} or None
        Order of the axes, ``(n_mels, n_frames)`` or ``(n_frames, n_mels)``, perhaps below one axis
        of length 1. None: the axis of each file that has the spec's number of bands. A file where
        both axes have it is rejected.
    """

    layout: Layout | None = None

    uses: ClassVar[str] = "mel_folder"
    joined_by: ClassVar[str] = "paired_mels"
    version: ClassVar[int] = 1
    expects: ClassVar[str] = f"mel files ({', '.join(MEL_SUFFIXES)})"
    suffixes: ClassVar[tuple[str, ...]] = MEL_SUFFIXES

    def __post_init__(self) -> None:
        """Check the fields."""
        FolderReader.__post_init__(self)
        MelFields.__post_init__(self)
        if self.layout not in (*LAYOUTS, None):
            raise ParameterError("layout", f"must be {' or '.join(map(repr, LAYOUTS))}, got {self.layout!r}")

    def identity(self) -> Mapping[str, Any]:
        """Return what is chosen, the spec and the layout; the name of a preset does not matter."""
        return {**super().identity(), "spec": self.spec.as_dict(), "layout": self.layout}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Mel:
        """Describe what is stored: float32 mels with a catalogue."""
        return Mel(spec=self.spec)

    def passed_over(self, files: Sequence[SourceFile], entries: Sequence[CorpusFile]) -> Sequence[str]:
        """Return lines on arrays of other formats, and on audio."""
        arrays = count_suffixes(files, ARRAYS - set(MEL_SUFFIXES), ())
        audio = count_suffixes(files, AUDIO, ())
        notes = [
            note(found, what, remedy)
            for found, what, remedy in (
                (arrays, "hold arrays by their names but are not read", "save them as .npy, one array each"),
                (audio, "are audio by their names, no mels", "audio_folder reads them"),
            )
            if found
        ]
        return [*super().passed_over(files, entries), *notes]

    def claims(self, tree: CorpusTree, file: SourceFile) -> tuple[int, int]:
        """Return the spec's rate (Hz) and the fewest samples that give a file's frames."""
        try:
            header = npy_header(tree.head(file.path, HEAD_BYTES), file.size_bytes)
            n_frames = frames_of(header.shape, self.spec.n_mels, self.layout)[0]
        except Unusable:
            return 0, 0
        return self.spec.sr, shortest_length(self.spec, n_frames)

    def remarks(self, tree: CorpusTree, new: Sequence[Utterance], rates: Mapping[int, int]) -> Sequence[str]:
        """Say so if the first new mels, eight at most, look wrong. They are read for that."""
        looked_at = new[:_LOOKED_AT]
        problems = [problem for utterance in looked_at if (problem := self._problem(tree, utterance.path))]
        if not looked_at or len(problems) < len(looked_at):
            return ()
        what = f"the first {len(looked_at)} new mels are" if len(looked_at) > 1 else "the only new mel is"
        return [f"{what} probably not of this spec and would be quarantined; of {looked_at[0].path}: {problems[0]}"]

    def _problem(self, tree: CorpusTree, path: str) -> str:
        """Return why a file holds no mel of the spec, empty where it does or is gone."""
        try:
            checked(decode_npy(tree.read(path)), self.spec, self.layout)
        except OSError as error:
            if is_of_file(error):
                return ""
            raise unreadable_here(self.root, path, error) from error
        except Unusable as error:
            return str(error)
        return ""

    def ingest(self, utterance: Utterance, data: bytes) -> Outcome:
        """Return the mel of one file, with facts about the file.

        Raises
        ------
        Unusable
            The file holds no mel of the spec, or not the one that was catalogued.
        """
        values = decode_npy(data)
        M = checked(values, self.spec, self.layout)
        if shortest_length(self.spec, M.shape[1]) != utterance.n_samples:
            raise Unusable(f"file changed since it was catalogued: it has {M.shape[1]:,} frames now")
        row = {
            "content_sha256": hashlib.sha256(data).hexdigest(),
            "source_dtype": values.dtype.name,
            "n_frames": M.shape[1],
            "lowest": float(M.min()),
            "highest": float(M.max()),
        }
        return Outcome(array=M, row=row)


def checked(values: NDArray[Any], spec: MelSpec, layout: Layout | None = None) -> NDArray[np.float32]:
    """Return an array from elsewhere as a mel of a spec.

    Parameters
    ----------
    values : ndarray of float
        ``(n_mels, n_frames)`` or ``(n_frames, n_mels)``, perhaps below one axis of length 1.
    spec : MelSpec
    layout : {"bands_first", "frames_first"} or None
        None: the shape decides.

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)

    Raises
    ------
    Unusable
        It has no floats, another shape, no frames, or a range that no mel of the spec has.
    """
    if values.dtype.kind != "f":
        raise Unusable(f"holds {values.dtype.name}, expected a mel of float16, float32 or float64")
    _, transposed = frames_of(values.shape, spec.n_mels, layout)
    plane = values.reshape(values.shape[-2:])
    with np.errstate(over="ignore"):
        M = np.ascontiguousarray(plane.T if transposed else plane, dtype=np.float32)
    n_bad = M.size - int(np.count_nonzero(np.isfinite(M)))
    if n_bad:
        raise Unusable(f"not finite: {n_bad:,} of {M.size:,} values are NaN, infinite or past float32")
    check_range(M, spec)
    return M


def frames_of(shape: tuple[int, ...], n_mels: int, layout: Layout | None) -> tuple[int, bool]:
    """Return the number of frames of a shape, and whether frames are the first axis.

    >>> frames_of((80, 200), 80, None), frames_of((1, 200, 80), 80, None)
    ((200, False), (200, True))
    """
    plane = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    fits = [len(plane) == 2 and plane[axis] == n_mels for axis in (0, 1)]
    if layout is None and all(fits):
        raise Unusable(f"shape {shape!r} could be either way round: say layout: bands_first or frames_first")
    transposed = layout == "frames_first" if layout else fits[1]
    if not fits[transposed]:
        expected = {None: "either way round", "bands_first": "bands first", "frames_first": "frames first"}[layout]
        raise Unusable(f"shape {shape!r} is no mel of n_mels={n_mels} bands, {expected}")
    if plane[not transposed] == 0:
        raise Unusable(f"shape {shape!r} has no frames")
    return plane[not transposed], transposed
