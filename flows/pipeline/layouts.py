"""Look at a folder of recordings or mels: recognise its layout, and count what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from melmill.flows.pipeline.errors import PipelineError
from melmill.stages.blame import is_of_file
from melmill.stages.contract import IngestStage
from melmill.stages.formats.npy import HEAD_BYTES, npy_header
from melmill.stages.ingest.decode import AudioReader
from melmill.stages.ingest.names import AUDIO_SUFFIXES, MEL_SUFFIXES, is_hidden, suffix_of
from melmill.stages.ingest.passed_over import unreadable
from melmill.stages.ingest.reader import READERS, looks_like, unreadable_here
from melmill.stages.ingest.readers.audio_folder import AudioFolder
from melmill.stages.numeric.checks import MAX_SR
from melmill.stages.numeric.errors import ParameterError, StageError, Unusable
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.registry import stage_class
from melmill.storage.files.sources import SourceTree
from melmill.storage.utterance import SourceFile

# Headers of so many files tell the shape of a folder's mels.
_PROBED = 50


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Say how the files of a folder lie, and what reads them.

    Parameters
    ----------
    name : str
        What the folder is: the name of the corpus that lies so, or a few words.
    uses : str
        Ingest stage that reads it.
    fields : mapping
        Fields of that stage, ``root`` among them.
    """

    name: str
    uses: str
    fields: Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Say what a folder holds, by the headers of its files.

    Parameters
    ----------
    layout : Layout
    n_files, n_unreadable : int
        All files, and those whose headers tell no length.
    duration_s : float
        Audio, s. 0 for mels.
    rates : mapping of int to int
        Number of files of each sampling rate, Hz. Empty for mels.
    n_texts, n_speakers : int
        Utterances that have texts, and speakers.
    has_subsets : bool
        The utterances belong to subsets.
    n_mels : int or None
        Bands of the mels. None for audio.
    notes : tuple of str
        What a person should know of the folder: files that are passed over, and the like.
    """

    layout: Layout
    n_files: int
    n_unreadable: int = 0
    duration_s: float = 0.0
    rates: Mapping[int, int] = field(default_factory=dict)
    n_texts: int = 0
    n_speakers: int = 0
    has_subsets: bool = False
    n_mels: int | None = None
    notes: tuple[str, ...] = ()


def contents_of(root: str) -> Contents:
    """Return what a folder holds. Headers and transcripts are read, and nothing is written.

    Parameters
    ----------
    root : str
        A path, or any URL that fsspec knows.

    Raises
    ------
    PipelineError
        The folder holds neither audio nor mels, or several corpora.
    StoreError
        The folder can't be read.
    """
    tree = SourceTree(root)
    listed = list(tree.walk())
    files = [file for file in listed if not file.problem]
    audio_reader = AudioFolder(root=root)
    found = audio_reader.find(tree, files)
    audio = [entry for entry in found if audio_reader.can_read(entry.path)]
    if audio:
        layout = recognised(tree.url, [entry.path for entry in audio])
        if layout.fields["root"] == tree.url:
            # A path that is relative stays so in the pipeline.
            layout = replace(layout, fields={**layout.fields, "root": root})
        return _audio_contents(layout)
    for name, reader in READERS.items():
        fields = reader.recognise_files(root, [file.path for file in files])
        if fields is not None:
            return _audio_contents(Layout(name=reader.title, uses=name, fields=fields))
    mels = _with_suffix(files, MEL_SUFFIXES)
    if mels:
        return replace(_mel_contents(root, tree, mels), notes=tuple(unreadable(listed)))
    raise PipelineError(
        f"{root!r} holds neither audio ({', '.join(AUDIO_SUFFIXES)}) nor mels ({', '.join(MEL_SUFFIXES)}) among "
        f"{len(files):,} files: name the folder of a corpus{looks_like(root, files)}"
        + "".join(f"; {line}" for line in (*audio_reader.left_out(found), *audio_reader.passed_over(files, found)))
    )


def recognised(root: str, paths: Sequence[str]) -> Layout:
    """Return the layout that most audio files of a folder have, by their paths below it.

    A reader knows what its corpus looks like.

    >>> recognised("x", ["LJSpeech-1.1/wavs/LJ001-0001.wav", "LJSpeech-1.1/wavs/LJ001-0002.wav"]).name
    'LJSpeech'
    >>> recognised("x", ["rain/1.ogg", "rain/2.ogg", "dogs/1.ogg"]).fields
    {'root': 'x', 'folders': ('subset',)}
    """
    for name, reader in READERS.items():
        fields = reader.recognise(root, paths)
        if fields is not None:
            return Layout(name=reader.title or reader.__name__, uses=name, fields=fields)
    levels = ("subset", "speaker", "chapter")[: _depth(paths)]
    return Layout(name="a folder of audio", uses="audio_folder", fields={"root": root, "folders": levels})


def bands(shapes: Sequence[tuple[int, ...]]) -> tuple[int, str]:
    """Return how many bands mels of some shapes have, and which axis is theirs.

    Parameters
    ----------
    shapes : sequence of tuple of int
        ``(n_mels, n_frames)`` or ``(n_frames, n_mels)``, maybe below one axis of length 1.

    Returns
    -------
    n_mels : int
    layout : str
        ``"bands_first"`` or ``"frames_first"``.

    Raises
    ------
    PipelineError
        No axis has one length in all of them.

    >>> bands([(80, 312), (80, 97)]), bands([(1, 55, 100)])
    ((80, 'bands_first'), (100, 'frames_first'))
    """
    planes = [shape[1:] if len(shape) == 3 and shape[0] == 1 else shape for shape in shapes]
    lengths = [{plane[axis] for plane in planes if len(plane) == 2} for axis in (0, 1)]
    candidates = [axis for axis in (0, 1) if len(lengths[axis]) == 1]
    # If both axes have one length each, the one that some preset has is that of the bands.
    known = {preset(name).n_mels for name in preset_names()}
    candidates.sort(key=lambda axis: not lengths[axis] <= known)
    if not candidates:
        shown = ", ".join(map(repr, shapes[:3]))
        raise PipelineError(f"the .npy files are no mels of one kind: expected one number of bands, got shapes {shown}")
    axis = candidates[0]
    return lengths[axis].pop(), ("bands_first", "frames_first")[axis]


def _with_suffix(files: Sequence[SourceFile], suffixes: Sequence[str]) -> list[SourceFile]:
    """Return the files with one of some suffixes that are not hidden."""
    return [file for file in files if suffix_of(file.path) in suffixes and not is_hidden(file.path)]


def _depth(paths: Sequence[str]) -> int:
    """Return how many folders most files lie below."""
    return Counter(path.count("/") for path in paths).most_common(1)[0][0]


def _audio_contents(layout: Layout) -> Contents:
    reader: Any = stage_class(layout.uses)
    # Which rate is stored is asked later, so a note on it has no place here.
    rate = {"sr": MAX_SR} if issubclass(reader, AudioReader) else {}
    stage = cast("IngestStage", reader(**layout.fields, **rate))
    tree = SourceTree(stage.root)
    refused: tuple[str, ...] = ()
    try:
        try:
            discovered = stage.discover(tree, {})
        except ParameterError as error:
            if error.field not in ("columns", "encoding"):
                raise
            # The pipeline is where a person can say what the texts are.
            refused = (f"no texts are read yet: {error}",)
            discovered = stage.discover(_Recordings(tree), {})
    except StageError as error:
        raise PipelineError(str(error)) from error
    utterances = discovered.utterances
    readable = [utterance for utterance in utterances if utterance.source_sr]
    return Contents(
        layout=layout,
        n_files=len(utterances),
        n_unreadable=len(utterances) - len(readable),
        duration_s=sum(utterance.source_n_samples / utterance.source_sr for utterance in readable),
        rates=dict(Counter(utterance.source_sr for utterance in readable).most_common()),
        n_texts=sum(bool(utterance.text) for utterance in utterances),
        n_speakers=len({utterance.speaker_id for utterance in utterances} - {""}),
        has_subsets=any(utterance.subset for utterance in utterances),
        notes=(*refused, *discovered.notes),
    )


@dataclass(frozen=True)
class _Recordings:
    """The files of a corpus without its texts."""

    tree: SourceTree

    def walk(self) -> Iterator[SourceFile]:
        return iter(_with_suffix(list(self.tree.walk()), AUDIO_SUFFIXES))

    def read(self, path: str) -> bytes:
        return self.tree.read(path)

    def head(self, path: str, n: int) -> bytes:
        return self.tree.head(path, n)

    def files(self, paths: Iterable[str]) -> dict[str, SourceFile]:
        return self.tree.files(paths)

    def members(self, path: str) -> Iterator[SourceFile]:
        return self.tree.members(path)

    def rows(self, path: str, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        return self.tree.rows(path, columns)


def _mel_contents(root: str, tree: SourceTree, files: Sequence[SourceFile]) -> Contents:
    shapes = []
    for file in files[:_PROBED]:
        try:
            shapes.append(npy_header(tree.head(file.path, HEAD_BYTES), file.size_bytes).shape)
        except Unusable:
            continue
        except OSError as error:
            if not is_of_file(error):
                raise PipelineError(str(unreadable_here(root, file.path, error))) from error
    n_mels, axes = bands(shapes)
    layout = Layout(name="a folder of mels", uses="mel_folder", fields={"root": root, "layout": axes})
    return Contents(
        layout=layout, n_files=len(files), n_unreadable=min(len(files), _PROBED) - len(shapes), n_mels=n_mels
    )
