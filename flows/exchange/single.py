"""Single files, without a store: a waveform from a mel, and a mel from a recording."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.flows.exchange.export import format_for
from melmill.flows.pipeline.errors import PipelineError
from melmill.pcm import as_float
from melmill.stages.contract import Kind
from melmill.stages.extract.transcoding import Transcoded, Via, transcode
from melmill.stages.formats.audio import decode
from melmill.stages.formats.format import FORMATS, ExchangeFormat, formats_for
from melmill.stages.formats.npy import decode_npy, encode_npy
from melmill.stages.ingest.decode import check_finite, to_pcm
from melmill.stages.ingest.levels import MIX, Channel, check_channel, check_clipped, taken
from melmill.stages.ingest.readers.mel_folder import Layout, checked
from melmill.stages.invert.inversion import inverted
from melmill.stages.numeric.errors import Unusable
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
        Samples clipped at full scale: of what was written, or of the recording that was read.
    start : str
        What an inversion's starting magnitude came from. Empty for a mel.
    """

    out: str
    duration_s: float
    compute_s: float
    n_clipped: int = 0
    start: str = ""


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
        expected = f"a file *.{' or *.'.join(dict.fromkeys(suffixes))}, or a folder" if len(files) == 1 else "a folder"
        raise PipelineError(f"the results of {len(files)} files can't go to {out!r}: expected {expected}")
    made = {file: f"{out.rstrip('/')}/{PurePosixPath(file).stem}.{suffixes[0]}" for file in files}
    owners: dict[str, str] = {}
    for file, target in made.items():
        if owners.setdefault(target, file) != file:
            raise PipelineError(
                f"{owners[target]!r} and {file!r} would both be written to {target!r}: write them to two folders"
            )
    return made


def audio_targets(files: Sequence[str], out: str, name: str) -> tuple[dict[str, str], ExchangeFormat]:
    """Return the path to write for the waveform of each file, and the format of all of them.

    Parameters
    ----------
    files : sequence of str
        At least one.
    out : str
        A file, whose suffix says its format, or a folder; see `targets`.
    name : str
        Name of the format of files in a folder. It goes first where formats share a suffix.

    Raises
    ------
    PipelineError
        There is no such format, it can't hold waveforms, or `targets` refuses `out`.
    """
    wanted = format_for(Kind.WAVEFORM, name, "`melmill invert`")
    formats = [wanted, *(FORMATS[other] for other in formats_for(Kind.WAVEFORM) if other != name)]
    places = targets(files, out, [known.suffix for known in formats])
    written = places[files[0]]
    return places, next(known for known in formats if written.endswith(f".{known.suffix}"))


def invert_file(
    path: str,
    out: str,
    spec: MelSpec,
    *,
    format_: ExchangeFormat,
    bits: int | None = None,
    layout: Layout | None = None,
    length: int | None = None,
    options: Mapping[str, Any],
) -> Made:
    """Write the waveform of a mel as an audio file.

    Parameters
    ----------
    path, out : str
        The mel, a ``.npy`` file; and the audio file.
    spec : MelSpec
        How the mel was made.
    format_ : ExchangeFormat
        Format of the audio file.
    bits : int or None
        Bits per sample, one of the format's; None if it has no choice.
    layout : {"bands_first", "frames_first"} or None
        See `melmill.stages.ingest.readers.mel_folder.MelFolder`.
    length : int or None
        Samples of the waveform. None: the fewest that have the mel's frames.
    options : mapping of str to object
        More arguments of `melmill.stages.invert.inversion.inverted`.

    Raises
    ------
    StageError
        The file is no mel of the spec, or can't be inverted so.
    StoreError
        A file can't be read or written.
    """
    M = checked(decode_npy(_read(path)), spec, layout)
    started = time.perf_counter()
    made = inverted(M, spec, length=length, **options)
    compute_s = time.perf_counter() - started
    data, n_clipped = format_.encode(made.y, spec.sr, bits)
    _write(out, data)
    return Made(out=out, duration_s=made.y.size / spec.sr, compute_s=compute_s, n_clipped=n_clipped, start=made.start)


def mel_file(path: str, out: str, spec: MelSpec, channel: Channel = MIX) -> Made:
    """Write the mel of a recording as a ``.npy`` file ``(n_mels, n_frames)``.

    It is the mel that a pipeline makes: the recording is mixed, resampled and rounded to 16 bits
    first.

    Parameters
    ----------
    path, out : str
        The recording, and the ``.npy`` file.
    spec : MelSpec
    channel : str or int
        See `melmill.stages.ingest.decode.AudioReader`.

    Raises
    ------
    StageError
        The file is no recording, is truncated, lacks the channel or is far past full scale.
    StoreError
        A file can't be read or written.
    """
    check_channel(channel)
    y, header = decode(_read(path))
    started = time.perf_counter()
    chosen, _ = taken(check_finite(y), channel)
    pcm = to_pcm(chosen, header.sr, spec.sr)
    check_clipped(pcm.n_clipped, len(chosen), pcm.peak_db)
    M = mel_spectrogram(pcm.y, spec)
    compute_s = time.perf_counter() - started
    _write(out, encode_npy(M))
    return Made(out=out, duration_s=pcm.y.size / spec.sr, compute_s=compute_s, n_clipped=pcm.n_clipped)


def recording(path: str) -> tuple[NDArray[np.int16 | np.float32], int]:
    """Return the samples of a recording, the mean of its channels, and its rate, Hz.

    Raises
    ------
    StageError
        The file is no recording or is truncated.
    StoreError
        The file can't be read.
    """
    try:
        y, header = decode(_read(path))
    except (PipelineError, Unusable) as error:
        raise PipelineError(str(error), path) from error
    finite = check_finite(y)
    return (finite[:, 0] if finite.shape[1] == 1 else as_float(finite).mean(axis=1)), header.sr


def _read(path: str) -> bytes:
    folder, name = folder_and_name(path)
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise PipelineError("no such file") from error  # the caller says which


def _write(path: str, data: bytes) -> None:
    folder, name = folder_and_name(path)
    folder.replace(name, data)


def transcode_file(
    path: str,
    out: str,
    a: MelSpec,
    b: MelSpec,
    *,
    layout: Layout | None = None,
    audio: str | None = None,
    length: int | None = None,
    via: Via = "auto",
    quality: str = "good",
) -> tuple[Made, Transcoded]:
    """Write the mel of another kind of a mel, a ``.npy`` file ``(n_mels, n_frames)``.

    Parameters
    ----------
    path, out : str
        The mel, and the mel made of it, ``.npy`` files.
    a, b : MelSpec
        How the mel was made, and how the other is to be.
    layout : {"bands_first", "frames_first"} or None
        See `melmill.stages.ingest.readers.mel_folder.MelFolder`.
    audio : str or None
        Recording of the mel. With it, the error is measured against its mel.
    length, via, quality
        See `melmill.stages.extract.transcoding.transcode`.

    Raises
    ------
    StageError
        The file is no mel of `a`, or can't be undone.
    StoreError
        A file can't be read or written.
    """
    M = checked(decode_npy(_read(path)), a, layout)
    y, sr = (None, None) if audio is None else recording(audio)
    started = time.perf_counter()
    made = transcode(M, a, b, recording=y, sr=sr, length=length, via=via, quality=quality)
    compute_s = time.perf_counter() - started
    _write(out, encode_npy(made.M))
    duration_s = made.M.shape[1] * b.hop_length / b.sr
    return Made(out=out, duration_s=duration_s, compute_s=compute_s), made
