"""What an array looks like before any spec is tried: a mel either way round, or something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melmill.errors import Error
from melmill.flows.exchange.identify.candidates import band_numbers

# Fewer frames tell nothing.
FEWEST_FRAMES = 8
_MOST_CHANNELS = 8
_MOST_CODEBOOKS = 32
_COLOURS = (3, 4)
_LONGEST_PLANE = 100_000
# Neighbouring bands of a mel move together, even those of noise, as their triangles overlap.
_LEAST_RELATED = 0.35
_LEAST_STEADY = 0.2
_FFT_SIZES = (
    *(320, 400, 480, 640, 800, 882, 960, 1200, 1280, 1600, 1764, 1920, 2400, 3200),
    *(2**power for power in range(7, 15)),
)
# Rows of cepstral coefficients, as speech recognition takes them.
_CEPSTRA = range(12, 40)
_LOUDEST_INT16 = 32768.0
# Relative error of float16, and a half more.
_HALF = 4.5e-4


class NoMel(Error):
    """Say what an array is that is no mel.

    `ways` are those in which it can be one by its shape, where only its values speak against it.
    """

    def __init__(self, what: str, ways: Sequence[Plane] = ()) -> None:
        """Keep what it looks like, and the ways."""
        super().__init__(what)
        self.ways = tuple(ways)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """Hold an array as a mel may be.

    Parameters
    ----------
    M : ndarray of float64, shape (n_mels, n_frames)
    transposed : bool
        It was given as ``(n_frames, n_mels)``.
    tolerance : float
        Misfit that rounding explains, relative to the mel less its mean.
    """

    M: NDArray[np.float64]
    transposed: bool
    tolerance: float


def planes(values: NDArray[Any]) -> list[Plane]:
    """Return the ways in which an array can be a mel, both where its shape allows both.

    Raises
    ------
    NoMel
        It is something else; the message says what it looks like.
    """
    plane = _plane(values)
    if plane.dtype.kind != "f":
        raise NoMel(_integers(plane))
    n_bad = plane.size - int(np.count_nonzero(np.isfinite(plane)))
    if n_bad:
        raise NoMel(f"{n_bad:,} of {plane.size:,} values are NaN or infinite: find out where they come from")
    if plane.size == 0:
        raise NoMel(f"an empty array of shape {values.shape}")
    if plane.min() == plane.max():
        raise NoMel(f"all values are {plane.flat[0]:g}: silence, or a mel that was never filled")
    _check_shape(plane)
    if min(plane.shape) <= _MOST_CODEBOOKS and np.array_equal(plane, np.rint(plane)):
        raise NoMel(_integers(plane))
    tolerance = _tolerance(plane)
    wide = plane.astype(np.float64)
    known = band_numbers()
    ways = [
        Plane(M=turned, transposed=transposed, tolerance=tolerance)
        for transposed, turned in ((False, wide), (True, wide.T))
        if turned.shape[0] in known and turned.shape[1] >= FEWEST_FRAMES
    ]
    if not ways:
        raise NoMel(_wrong_bands(plane.shape, known))
    looks = [_structure(way.M) for way in ways]
    fine = [way for way, look in zip(ways, looks, strict=True) if not look]
    if not fine:
        raise NoMel(looks[0], ways)
    return fine


def _plane(values: NDArray[Any]) -> NDArray[Any]:
    """Return an array without axes of length 1 around it; of a batch the first."""
    if values.dtype.kind == "c":
        raise NoMel(f"a complex array {values.shape}: an STFT, not yet a mel")
    if values.dtype.kind not in "biuf":
        raise NoMel(f"an array of {values.dtype}, which holds no real numbers")
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3:
        _check_no_image(values)
    if values.ndim == 3 and values.dtype.kind == "f" and values.shape[0] >= 1:
        return np.asarray(values[0])
    if values.ndim == 1 or (values.ndim == 2 and min(values.shape) == 1 and max(values.shape) > 1024):
        raise NoMel(_line(values.ravel()))
    if values.ndim != 2:
        raise NoMel(f"an array of shape {values.shape}: a mel has bands and frames, and a batch axis at most")
    return values


def _check_no_image(values: NDArray[Any]) -> None:
    """Raise NoMel where an array of three axes is a picture, its colours last or first."""
    *sides, colours = values.shape
    if values.dtype == np.uint8 and values.shape[0] in _COLOURS:  # floats may be a batch of so many mels
        colours, *sides = values.shape
    if colours in _COLOURS and min(sides) > _MOST_CHANNELS:
        raise NoMel(f"an image of {colours} colours, {values.shape}")


def _line(values: NDArray[Any]) -> str:
    n = values.size
    if values.dtype.kind in "iu" and n > 1 and values.dtype.itemsize > 1:
        return f"a line of {n:,} integers: tokens, or a waveform of 16-bit samples"
    if n >= 4000 and values.dtype.kind == "f" and np.nanmax(np.abs(values)) <= _LOUDEST_INT16:
        return f"a waveform of {n:,} samples: give it as the recording, and the mel as the file"
    if n in band_numbers():
        return f"one frame of {n} bands, or {n} numbers of one mel: at least {FEWEST_FRAMES} frames are needed to tell"
    return f"a line of {n:,} numbers: a mel has bands and frames"


def _integers(plane: NDArray[Any]) -> str:
    low, high = (int(plane.min()), int(plane.max())) if plane.size else (0, 0)
    if plane.dtype == np.uint8 and min(plane.shape) > 32:
        return f"an 8-bit image {plane.shape}: a mel drawn as a picture has lost its values"
    if min(plane.shape) <= _MOST_CODEBOOKS and low >= 0 and high < 70_000:
        return (
            f"integers {low} to {high} in {min(plane.shape)} rows: tokens of a codec (Encodec, DAC, SNAC ...), which "
            "its own decoder turns into sound"
        )
    return f"integers {low} to {high}: tokens, labels or an image; a mel has floats"


def _check_shape(plane: NDArray[Any]) -> None:
    """Raise NoMel where the shape alone says what it is."""
    few, many = min(plane.shape), max(plane.shape)
    if few <= _MOST_CHANNELS and many >= 4000 and np.abs(plane).max() <= 2.0:
        raise NoMel(f"a waveform of {few} channels and {many:,} samples: give it as the recording, with --audio")
    if few < FEWEST_FRAMES:
        frames = "frame" if few == 1 else "frames"
        raise NoMel(f"{few} {frames} of {many} bands: at least {FEWEST_FRAMES} frames are needed to tell")


def _wrong_bands(shape: tuple[int, ...], known: list[int]) -> str:
    for axis in (0, 1):
        n_fft = 2 * (shape[axis] - 1)
        if n_fft in _FFT_SIZES:
            return f"{shape[axis]} bins: a linear spectrogram of n_fft {n_fft}, which has not gone through a mel bank"
    numbers = ", ".join(map(str, known))
    cepstra = ": so few rows are those of cepstral coefficients (MFCCs)" if min(shape) in _CEPSTRA else ""
    return f"shape {shape}: no known mel has {shape[0]} or {shape[1]} bands (known: {numbers}){cepstra}"


def _structure(M: NDArray[np.float64]) -> str:
    """Return what rows that don't behave as bands of a mel look like, empty where they do."""
    whole = M * 255.0
    if M.min() >= 0 and M.max() <= 255 and M.size > 4096:
        for steps, scaled in ((255, whole), (1, M)):
            if np.abs(scaled - np.rint(scaled)).max() < 1e-3 and np.unique(np.rint(scaled)).size > 16:
                return f"an 8-bit image: all values are multiples of {'1/255' if steps == 255 else '1'}"
    moving = M[M.std(axis=1) > 1e-9 * max(1.0, np.abs(M).max())]
    if len(moving) < 0.5 * len(M):
        return f"{len(M) - len(moving)} of {len(M)} bands never change: a mel that was cut, masked or never filled"
    related, steady = _related(moving), _related_frames(moving)
    if related < _LEAST_RELATED and steady < _LEAST_STEADY:
        return "noise, or features in no order: neither neighbouring bands nor neighbouring frames are alike"
    if related < _LEAST_RELATED:
        return (
            "features whose neighbours are not alike, as cepstral coefficients (MFCCs), latents or embeddings: bands "
            "of a mel overlap and move together"
        )
    if steady < _LEAST_STEADY:
        return "frames that are not alike in time: shuffled frames, or axes that mean something else"
    return ""


def _related(M: NDArray[np.float64]) -> float:
    """Return the median correlation of neighbouring rows, over time."""
    centred = M - M.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).sum(axis=1, keepdims=True))
    return float(np.median((scaled[:-1] * scaled[1:]).sum(axis=1))) if len(M) > 1 else 0.0


def _related_frames(M: NDArray[np.float64]) -> float:
    """Return the correlation of neighbouring frames, each band less its mean."""
    centred = M - M.mean(axis=1, keepdims=True)
    return float((centred[:, 1:] * centred[:, :-1]).sum() / max(1e-30, (centred**2).sum()))


def _tolerance(plane: NDArray[Any]) -> float:
    """Return the largest misfit that rounding explains.

    It is that of a relative error of 1e-4, or of the type that the values may have been stored in.
    """
    error, most = 1e-4, 1e-3
    single = np.ascontiguousarray(plane, dtype=np.float32)
    with np.errstate(over="ignore"):
        half = plane.dtype == np.float16 or np.array_equal(single.astype(np.float16).astype(np.float32), single)
    if half:
        error, most = _HALF, 1e-2
    elif not (single.view(np.uint32) & 0xFFFF).any():
        error, most = 8.0 * _HALF, 2e-2  # bfloat16
    wide = plane.astype(np.float64)
    return min(most, error * max(1.0, float(np.sqrt((wide**2).mean()) / wide.std())))
