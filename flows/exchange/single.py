"""Single files, without a store: a waveform from a mel, and a mel from a recording."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from melmill.flows.errors import PipelineError
from melmill.stages.formats.audio import decode
from melmill.stages.formats.exchange.pcm import AUDIO_FORMATS, Bits, encode_audio
from melmill.stages.formats.npy import decode_npy, encode_npy
from melmill.stages.ingest.decode import to_pcm
from melmill.stages.ingest.readers.mel_folder import Layout, checked
from melmill.stages.invert.inversion import invert
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import MelSpec
from melmill.storage.files.location import folder_and_name


@dataclass(frozen=True, kw_only=True)
class Made:
    """Say what was written.

    Parameters
    ----------
    out : str
        Path or URL of the file.
    duration_s, compute_s : float
        Length of the audio, and time spent computing, s.
    n_clipped : int
        Samples clipped at full scale.
    """

    out: str
    duration_s: float
    compute_s: float
    n_clipped: int = 0


def targets(files: Sequence[str], out: str, suffixes: Sequence[str]) -> dict[str, str]:
    """Return the path to write for each file.

    Parameters
    ----------
    files : sequence of str
    out : str
        A file where there is one of `files`, or a folder. In a folder the results keep the names of
        `files`, with the first of the suffixes.
    suffixes : sequence of str
        Suffixes that a file `out` may have, without the dot.

    Raises
    ------
    PipelineError
        `out` is neither such a file nor a folder, or two results would have one path.

    >>> targets(["mels/a.npy", "mels/b.npy"], "out", ["wav", "flac"])
    {'mels/a.npy': 'out/a.wav', 'mels/b.npy': 'out/b.wav'}
    """
    suffix = "" if out.endswith("/") else PurePosixPath(out).suffix[1:]
    if suffix in suffixes and len(files) == 1:
        return {files[0]: out}
    if suffix:
        expected = f"a file *.{' or *.'.join(suffixes)}, or a folder" if len(files) == 1 else "a folder"
        raise PipelineError(f"the results of {len(files)} files can't go to {out!r}: expected {expected}")
    made = {file: f"{out.rstrip('/')}/{PurePosixPath(file).stem}.{suffixes[0]}" for file in files}
    owners: dict[str, str] = {}
    for file, target in made.items():
        if owners.setdefault(target, file) != file:
            raise PipelineError(
                f"{owners[target]!r} and {file!r} would both be written to {target!r}: write them to two folders"
            )
    return made


def invert_file(
    path: str,
    out: str,
    spec: MelSpec,
    *,
    bits: Bits = 16,
    layout: Layout | None = None,
    length: int | None = None,
    options: Mapping[str, Any],
) -> Made:
    """Write the waveform of a mel as FLAC or WAV.

    Parameters
    ----------
    path, out : str
        The mel, a ``.npy`` file; and the audio file, whose suffix says its format.
    spec : MelSpec
        How the mel was made.
    bits : {16, 24}
        Bits of a sample.
    layout : {"bands_first", "frames_first"} or None
        See `melmill.stages.ingest.readers.mel_folder.MelFolder`.
    length : int or None
        Samples of the waveform. None: the fewest that have the mel's frames.
    options : mapping of str to object
        More arguments of `melmill.stages.invert.inversion.invert`.

    Raises
    ------
    StageError
        The file is no mel of the spec, or can't be inverted so.
    StoreError
        A file can't be read or written.
    """
    M = checked(decode_npy(_read(path)), spec, layout)
    started = time.perf_counter()
    y = invert(M, spec, length=length, **options)
    compute_s = time.perf_counter() - started
    format_ = next(known for known in AUDIO_FORMATS if out.endswith(f".{known}"))
    data, n_clipped = encode_audio(y, spec.sr, format_, bits)
    _write(out, data)
    return Made(out=out, duration_s=y.size / spec.sr, compute_s=compute_s, n_clipped=n_clipped)


def mel_file(path: str, out: str, spec: MelSpec) -> Made:
    """Write the mel of a recording as a ``.npy`` file ``(n_mels, n_frames)``.

    It is the mel that a pipeline makes: the recording is mixed, resampled and rounded to 16 bits
    first.

    Raises
    ------
    StageError
        The file is no recording, or is truncated.
    StoreError
        A file can't be read or written.
    """
    y, header = decode(_read(path))
    started = time.perf_counter()
    pcm = to_pcm(y, header.sr, spec.sr)
    M = mel_spectrogram(pcm, spec)
    compute_s = time.perf_counter() - started
    _write(out, encode_npy(M))
    return Made(out=out, duration_s=pcm.size / spec.sr, compute_s=compute_s)


def _read(path: str) -> bytes:
    folder, name = folder_and_name(path)
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise PipelineError("no such file") from error  # the caller says which


def _write(path: str, data: bytes) -> None:
    folder, name = folder_and_name(path)
    folder.replace(name, data)
