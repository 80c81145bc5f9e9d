"""Audio as a page can carry it: FLAC in a data: address."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

# What all of a page's audio may take before base64; 16-bit speech with some noise packs to about 0.65 of its PCM size.
BUDGET_BYTES = 2_800_000
_PACKED = 0.65


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Hold a playable address (empty where there is none) and what a listener should know of it."""

    uri: str
    note: str = ""


def excerpt_s(rates: Iterable[int], budget_bytes: int = BUDGET_BYTES) -> float:
    """Return how many seconds of every stream fit a page: one rate (Hz) per stream.

    >>> excerpt_s([16000] * 10, budget_bytes=1_040_000)
    5.0
    """
    per_second = sum(rates) * 2 * _PACKED
    return budget_bytes / per_second if per_second else 0.0


def clip(y: NDArray[np.float32], sr: int) -> Clip:
    """Encode a waveform ``(n_samples,)`` of full scale 1 as 16-bit FLAC, without changing its level.

    Samples beyond full scale are clipped, and the note counts them; a waveform with samples that aren't finite
    isn't playable, and the note says so.
    """
    import soundfile

    broken = int((~np.isfinite(y)).sum())
    if broken or not y.size:
        return Clip(uri="", note=f"not playable: {broken} samples are not finite" if broken else "not playable: empty")
    scaled = np.rint(y.astype(np.float64) * 32768.0)
    over = int(((scaled > 32767) | (scaled < -32768)).sum())
    buffer = BytesIO()
    soundfile.write(buffer, np.clip(scaled, -32768, 32767).astype(np.int16), sr, format="FLAC", subtype="PCM_16")
    return Clip(uri=data_uri("audio/flac", buffer.getvalue()), note=f"{over} samples clipped" if over else "")


def data_uri(media_type: str, content: bytes) -> str:
    """Return `content` as a data: address.

    >>> data_uri("text/plain", b"hi")
    'data:text/plain;base64,aGk='
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
