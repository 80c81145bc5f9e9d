"""Mel spectrograms as small PNG pictures: one pixel a frame and band, the page draws the axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.melspec import MelSpec
from melmill.stages.reporting.sound import data_uri

RANGE_DB = 80.0
DIFFERENCE_DB = 20.0
_MEL_MAP, _DIFFERENCE_MAP = "magma", "RdBu_r"
_TICKS_HZ = (500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Say what the pictures of one example span: seconds across, and ``(label, share of the height)`` up."""

    duration_s: float
    ticks: tuple[tuple[str, float], ...]


def picture_spec(sr: int) -> MelSpec:
    """Return the analysis behind the pictures: 80 bands up to ``sr / 2``, about 64 ms windows and 16 ms hops, dB."""
    n_fft = 2 ** round(np.log2(0.064 * sr))
    return MelSpec(sr=sr, n_fft=n_fft, win_length=n_fft, hop_length=n_fft // 4, log="db", floor=1e-5)


def axes(spec: MelSpec, n_samples: int) -> Axes:
    """Return the axes of pictures made by `spec` of `n_samples`."""
    from melmill.stages.dsp.filterbank import hz_to_mel

    top = hz_to_mel(spec.top_hz, htk=spec.htk)
    heights = [(f"{hz / 1000:g} kHz", hz_to_mel(hz, htk=spec.htk) / top) for hz in _TICKS_HZ if hz <= spec.top_hz]
    return Axes(duration_s=n_samples / spec.sr, ticks=tuple((label, round(share, 4)) for label, share in heights))


def mel_db(y: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """Return the mel spectrogram ``(n_mels, n_frames)`` of a waveform in dB; what isn't finite counts as silence."""
    from melmill.stages.dsp.mel import mel_spectrogram

    return np.asarray(mel_spectrogram(np.nan_to_num(y, posinf=0.0, neginf=0.0), spec), dtype=np.float64)


def mel_picture(M: NDArray[np.float64], top_db: float) -> str:
    """Return the picture of a mel ``(n_mels, n_frames)`` in dB, from 80 dB below `top_db` (dark) to it (bright)."""
    return _png((M - top_db + RANGE_DB) / RANGE_DB, _MEL_MAP)


def difference_picture(M_hat: NDArray[np.float64], M: NDArray[np.float64]) -> str:
    """Return the picture of two mels' difference, from -20 dB (blue: too weak) to 20 dB (red: too strong)."""
    n_frames = min(M_hat.shape[1], M.shape[1])
    return _png((M_hat[:, :n_frames] - M[:, :n_frames]) / (2 * DIFFERENCE_DB) + 0.5, _DIFFERENCE_MAP)


def _png(shares: NDArray[np.float64], colour_map: str) -> str:
    """Write values in [0, 1], clipped, as a PNG with a palette, low bands at the bottom."""
    from PIL import Image

    levels = np.rint(np.clip(shares[::-1], 0.0, 1.0) * 255).astype(np.uint8)
    image = Image.fromarray(levels, mode="L")
    image.putpalette(_palette(colour_map))
    buffer = BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return data_uri("image/png", buffer.getvalue())


@cache
def _palette(colour_map: str) -> bytes:
    from matplotlib import colormaps

    return np.asarray(colormaps[colour_map](np.arange(256), bytes=True))[:, :3].astype(np.uint8).tobytes()
