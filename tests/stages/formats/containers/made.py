"""Audio files in memory, for the tests of containers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray


def noisy_tone(n_samples: int = 40000, n_channels: int = 1) -> NDArray[np.int16]:
    """Return a tone with noise, ``(n_samples, n_channels)``."""
    noise = np.random.default_rng(0).normal(0, 500, (n_samples, n_channels))
    y: NDArray[np.int16] = np.rint(9000 * np.sin(0.05 * np.arange(n_samples))[:, None] + noise).astype(np.int16)
    return y


def by_libsndfile(y: NDArray[Any], kind: str, subtype: str, sr: int = 16000) -> bytes:
    """Encode a waveform by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, y, sr, format=kind, subtype=subtype)
    return file.getvalue()


def by_ffmpeg(
    y: NDArray[np.int16],
    sr: int,
    container: str,
    codec: str,
    *,
    variable: bool = False,
    path: Path | None = None,
    **options: str,
) -> bytes:
    """Encode a waveform by FFmpeg; skip the test where PyAV or the codec is missing.

    Parameters
    ----------
    y : ndarray of int16, shape (n_samples, n_channels)
    sr : int
        Rate, Hz.
    container, codec : str
        By FFmpeg's names.
    variable : bool
        Encode with a variable bit rate.
    path : Path or None
        A file to write, for options that read it again. None: write to memory.
    **options : str
        Options of the container.
    """
    av = pytest.importorskip("av", reason="making such files needs the extra: pip install 'melmill[av]'")
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec} here")
    file = io.BytesIO()
    layout = "mono" if y.shape[1] == 1 else "stereo"
    formats = [known.name for known in av.Codec(codec, "w").audio_formats or ()]
    with av.open(path or file, "w", format=container, options=options) as out:
        stream = out.add_stream(codec, rate=sr, layout=layout)
        stream.codec_context.format = next(name for name in ("s16", "s16p", "fltp", "flt") if name in formats)
        stream.bit_rate = 64000
        if variable:
            stream.codec_context.flags |= 2  # AV_CODEC_FLAG_QSCALE
            stream.codec_context.global_quality = 5 * 118
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(y).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = sr, 0
        codec_format, n_frame = stream.codec_context.format.name, stream.codec_context.frame_size or len(y)
        to_codec = av.AudioResampler(format=codec_format, layout=layout, rate=sr, frame_size=n_frame)
        for part in [*to_codec.resample(frame), *to_codec.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return path.read_bytes() if path else file.getvalue()


def ffmpeg_decoded(data: bytes) -> NDArray[np.float32]:
    """Decode a whole file by FFmpeg, packet by packet, ``(n_samples, n_channels)``."""
    av = pytest.importorskip("av", reason="the reference decoder needs the extra: pip install 'melmill[av]'")
    blocks = []
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(audio=0):
            raw = frame.to_ndarray()
            block = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
            scale = {"i": 2.0 ** (8 * block.itemsize - 1), "f": 1.0}[block.dtype.kind]
            blocks.append(block / scale)
    return np.concatenate(blocks).astype(np.float32)


def as_floats(y: NDArray[np.int16 | np.float32]) -> NDArray[np.float32]:
    """Return decoded samples as floats of full scale 1."""
    return (y / np.float32(32768)).astype(np.float32) if y.dtype == np.int16 else y.astype(np.float32)
