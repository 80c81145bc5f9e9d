"""A mel of one kind from a mel of another, with the error of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.invert.inversion import Device, inverted, shortest_length
from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.contract import conversion, convert, differences
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.filterbank import band_scale
from melmill.stages.numeric.mel import (
    check_range,
    chosen_frames,
    framed,
    from_bands,
    linear_bands,
    to_linear,
    unframed,
)
from melmill.stages.numeric.mels.remap import bands_of, remapped, same_frames, smooth_magnitude, unseen_bands
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.resample import resample
from melmill.stages.numeric.stft import window_norm

Via = Literal["auto", "magnitude", "waveform"]
Route = Literal["exact", "values", "magnitude", "waveform"]
Measured = Literal["exact", "recording", "round trip"]
VIAS: tuple[Via, ...] = ("auto", "magnitude", "waveform")

# Raise it when a transcoded mel changes. It is in the keys of the nodes that transcode.
VERSION = 1

# Differences in these fields leave frames and bank as they are: values can be carried over, though
# what was hidden stays hidden.
_VALUES_ONLY = frozenset(
    (
        *("floor", "clip", "log", "compression", "pcen", "shift", "scale", "norm", "normalized", "floor_kind"),
        *("band_gain", "band_mean", "band_std", "below_max", "frames", "last_frame", "frame_multiple", "per_utterance"),
        *("eps", "energy_floor", "window", "pad_mode"),
    )
)
# Bands of magnitudes below this, of full scale, count as silent where a spec has no floor.
_SILENT = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Transcoded:
    """A mel of another kind. Unpacks to the mel and its error.

    Parameters
    ----------
    M : ndarray of float32, shape (n_mels, n_frames)
    error_db : float
        Mean absolute error of the log mel, dB of magnitude; `measured` says against what. 0 where
        both mels are functions of the same bands.
    measured : {"exact", "recording", "round trip"}
        Against the mel of the recording itself. Or without one: between the mel given and the mel
        of its kind that the result stands for, which says nothing of `unseen` bands.
    via : {"exact", "values", "magnitude", "waveform"}
        Values carried over, exactly or as far as nothing was hidden; a magnitude that has the mel;
        or a waveform.
    unseen : tuple of int
        Bands of the result that lie where the mel given holds nothing. They are guessed.
    notes : tuple of str
        What else a person should know: a line each.
    """

    M: NDArray[np.float32]
    error_db: float
    measured: Measured
    via: Route
    unseen: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the mel and its error."""
        return iter((self.M, self.error_db))


def route(a: MelSpec, b: MelSpec, via: Via = "auto") -> Route:
    """Return how a mel made by `a` becomes one made by `b`.

    Raises
    ------
    ContractError
        No mel of `a` can be undone.

    >>> hifigan = MelSpec(sr=22050, fmax=8000.0, log="ln", floor=1e-5, center="same", pad_mode="reflect", eps=1e-9)
    >>> route(hifigan, replace(hifigan, log="log10")), route(hifigan, replace(hifigan, fmax=None))
    ('exact', 'magnitude')
    >>> route(hifigan, replace(hifigan, center=True))
    'waveform'
    """
    check_choice("via", via, VIAS)
    if via == "auto":
        if conversion(a, b) in ("same", "lossless"):
            return "exact"
        a.check_invertible()
        if {difference.field for difference in differences(a, b)} <= _VALUES_ONLY:
            return "values"
    a.check_invertible()
    needs_waveform = b.key_shift or any(not (step.is_filter or step.step == "gain") for step in b.wave)
    if via == "auto":
        return "magnitude" if same_frames(a, b) and not needs_waveform else "waveform"
    if via == "magnitude" and needs_waveform:
        raise ParameterError(
            "via", "must be 'waveform' or 'auto': levels and keys of the mel needed are those of a waveform"
        )
    return via


def transcode(
    M: NDArray[np.floating],
    a: MelSpec,
    b: MelSpec,
    *,
    recording: NDArray[np.floating | np.int16] | None = None,
    sr: int | None = None,
    length: int | None = None,
    via: Via = "auto",
    quality: str = "good",
    seed: int = 0,
    device: Device = "cpu",
) -> Transcoded:
    """Return the mel that `b` would have made of the sound under a mel made by `a`, and its error.

    Where both are functions of the same bands, it is exact. Where they have the same frames, it is
    the mel of a smooth magnitude that agrees with M: no phase is needed. Else M is inverted, and the
    waveform gives what M covers; the magnitude gives the bands that it doesn't.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Made by `a`.
    a, b : MelSpec
        How M was made, and what is needed.
    recording : ndarray of float or int16, shape (n_samples,), or None
        The sound that M is of, by which the error is measured.
    sr : int or None
        Its rate, Hz. None: ``a.sr``.
    length : int or None
        Samples of the sound at ``a.sr``. None: those of the recording, else the fewest that have
        M's frames.
    via : {"auto", "magnitude", "waveform"}
        How, where it is not exact.
    quality, seed, device
        Of the inversion, see `melmill.stages.invert.inversion.inverted`.

    Raises
    ------
    ParameterError
        A parameter is unknown or lies outside its range.
    ContractError
        M is no mel of `a`, or can't be undone.
    Unusable
        A value is not finite, the range of M's values shows that it was made otherwise than by `a`,
        or `length` does not give M's frames.
    """
    how = route(a, b, via)
    M = np.asarray(M)
    to_linear(np.asarray(M)[:, :0] if M.ndim == 2 else M, replace(a, per_utterance=None, key_shift=0.0))
    if M.shape[1] == 0:
        raise Unusable("the mel has no frames: the recording is shorter than a window")
    if not np.isfinite(M).all():
        raise Unusable(f"{int((~np.isfinite(M)).sum())} mel values are not finite")
    check_range(M, a)
    y = None if recording is None else resample(recording, a.sr if sr is None else sr, b.sr)
    if length is None:
        length = _own_length(M, a, recording, sr)
    elif a.n_frames(length) != M.shape[1]:
        raise Unusable(f"the mel has {M.shape[1]} frames but {length} samples have {a.n_frames(length)}")
    n_samples = -(-length * b.sr // a.sr)
    if b.n_frames(n_samples) == 0:
        raise Unusable(f"the sound of {M.shape[1]} frames is shorter than one frame of the mel needed")
    if how in ("exact", "values"):
        linear = to_linear(unframed(M, a), a)
        change = (band_scale(b) / band_scale(a) / window_norm(b) ** b.power)[:, np.newaxis]
        M_b, bands, error_db = _carried(M, a, b, n_samples), (linear * change).astype(np.float32), 0.0
    else:
        whole, error_db = _bands(M, a, b, n_samples, length, how, quality, seed, device)
        bands = chosen_frames(whole, b, n_samples)
        M_b = framed(from_bands(bands, b), b)
    unseen = () if how in ("exact", "values") else tuple(map(int, unseen_bands(a, b)))
    measured: Measured = "exact" if how == "exact" else "round trip"
    if y is not None and how != "exact":
        direct = chosen_frames(linear_bands(y, b), b, y.size)
        error_db, measured = _distance_db(bands, direct, b), "recording"
    return Transcoded(M=M_b, error_db=error_db, measured=measured, via=how, unseen=unseen, notes=_notes(a, b, unseen))


def _own_length(M: NDArray[np.floating], a: MelSpec, recording: NDArray[Any] | None, sr: int | None) -> int:
    """Return the samples of the sound under a mel: those of its recording, if that has its frames."""
    if recording is None:
        return shortest_length(a, unframed(M, a).shape[1])
    length = -(-recording.size * a.sr // (a.sr if sr is None else sr))
    if a.n_frames(length) != M.shape[1]:
        raise Unusable(
            f"the mel has {M.shape[1]} frames, but the recording has {a.n_frames(length)} at "
            f"hop_length={a.hop_length}: is it the mel's own?"
        )
    return length


def _carried(M: NDArray[np.floating], a: MelSpec, b: MelSpec, n_samples: int) -> NDArray[np.float32]:
    """Carry values over; frames that the mel lacks repeat its last."""
    made = convert(M, a, b, allow_lossy=True)
    n_frames = b.n_frames(n_samples)
    return np.pad(made[:, :n_frames], ((0, 0), (0, max(0, n_frames - made.shape[1]))), mode="edge")


def _bands(
    M: NDArray[np.floating],
    a: MelSpec,
    b: MelSpec,
    n_samples: int,
    length: int,
    how: Route,
    quality: str,
    seed: int,
    device: Device,
) -> tuple[NDArray[np.float32], float]:
    """Return the bands of the mel needed, and the error of the mel given by what they are made of."""
    linear = to_linear(unframed(M, a), a)
    given = (linear / window_norm(a) ** a.power).astype(np.float32)
    Y, unseen = smooth_magnitude(linear, a), unseen_bands(a, b)
    guessed = bands_of(remapped(Y, a, b, n_samples), b) if how == "magnitude" or unseen.size else None
    if how == "magnitude" and guessed is not None:
        return guessed, _distance_db(given, bands_of(Y, replace(a, eps=0.0)), a)
    y = inverted(M, a, quality=quality, length=length, seed=seed, device=device).y
    bands = linear_bands(resample(y, a.sr, b.sr)[:n_samples], b)
    if guessed is not None:
        bands[unseen] = guessed[unseen]
    return bands, _distance_db(given, linear_bands(y, a), a)


def _distance_db(x: NDArray[np.float32], y: NDArray[np.float32], spec: MelSpec) -> float:
    """Return the mean absolute difference of two sets of bands, dB of magnitude, over their common frames.

    What is below the floor of the spec counts as the floor.
    """
    floor = spec.floor if spec.log is not None and spec.floor is not None else _SILENT**spec.power
    n_frames = min(x.shape[1], y.shape[1])
    levels = [np.log10(np.maximum(bands[:, :n_frames].astype(np.float64), floor)) for bands in (x, y)]
    return float(np.abs(levels[0] - levels[1]).mean() * 20.0 / spec.power)


def _notes(a: MelSpec, b: MelSpec, unseen: tuple[int, ...]) -> tuple[str, ...]:
    lines = [f"the mel given does not hold {phrase}" for phrase in a.lost()]
    lines += [
        f"{step} was set on a waveform of another phase, whose peak may differ: the level may be off"
        for step in b.wave
        if step.step in ("peak", "clamp")
    ]
    if unseen:
        which = f"bands {unseen[0]} to {unseen[-1]}" if len(unseen) > 1 else f"band {unseen[0]}"
        lines.append(
            f"{len(unseen)} of {b.n_mels} bands of the result ({which}) lie where the mel given holds nothing: "
            "they are guessed"
        )
    return tuple(lines)
