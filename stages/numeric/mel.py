"""Mel spectrograms of waveforms, in every variant of `MelSpec`, back to linear bands, and their range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from melmill.pcm import as_float
from melmill.stages.numeric.errors import ContractError, StageError, Unusable
from melmill.stages.numeric.filterbank import band_scale, mel_bank
from melmill.stages.numeric.mels.keyshift import shifted_bands
from melmill.stages.numeric.mels.pcen import inverse_pcen, pcen
from melmill.stages.numeric.mels.wave import prepared
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.numeric.stft import hann, window_norm

_LOGS = ("ln", "log10", "db")
# What NeMo adds to a standard deviation before it divides by it.
_DEVIATION_GUARD = 1e-5
_INT16_DECADES = 4.6  # more than a factor of 32768, by which mels of int16 samples are larger
_LOWEST = {"ln": math.log(1e-10), "log10": -10.0, "db": -math.inf}  # logs of the lowest floors in use
_PRESETS_NAMED = 3

# Acoustic models overshoot a little, both ways.
_ABOVE_DB, _BELOW_DB = 6.0, 20.0
# No sound is as loud as white noise of this level in all its bands all the time.
_ALWAYS_DB = -10.0
# A sound has dips and peaks; a mel whose values lie so close is normalised.
_SPAN_DB = 14.0
# Fewer frames of noise may have no dip and no peak.
_ENOUGH_FRAMES = 16
# Where mels end that were made otherwise: log10(1e-5), and common normalisations.
_OTHER_FLOORS = {"ln": (-5.0, -4.0, -1.0, 0.0), "log10": (-1.0, 0.0)}
_AT_FLOOR, _FLOOR_SLACK = 0.01, 1e-3
_NEGATIVE = 0.1
_INT16_DB = 20.0 * math.log10(32768.0)
# Levels that loudest frames of recordings have.
_USUAL_DB = (-50.0, 3.0)


def mel_spectrogram(y: NDArray[np.floating | np.int16], spec: MelSpec) -> NDArray[np.float32]:
    """Return the mel spectrogram of a waveform.

    A frame's values depend on its own samples alone: not on threads, nor on the signal's length.
    They are librosa's to rounding: ``melspectrogram``, then ``power_to_db`` or ``amplitude_to_db``
    (``ref=1``, ``top_db=None``) or ``pcen``.

    Parameters
    ----------
    y : ndarray of float32 or float64 in [-1, 1], or of int16, shape (n_samples,)
        Waveform at ``spec.sr``.
    spec : MelSpec

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)
        ``spec.n_frames(n_samples)`` frames; the unit is the spec's.

    Raises
    ------
    StageError
        `y` is not one channel of float or int16 samples.
    Unusable
        `y` is shorter than one frame, or holds values that are not finite.

    Examples
    --------
    >>> mel_spectrogram(np.zeros(16000, dtype=np.int16), MelSpec()).shape
    (80, 63)
    """
    check_waveform(y)
    if y.size == 0 or spec.n_frames(y.size) == 0:
        raise Unusable(
            f"{y.size} samples are shorter than one frame (n_fft={spec.n_fft}, hop_length={spec.hop_length}, "
            f"center={spec.center!r})"
        )
    bands = linear_bands(y, spec)
    if not np.isfinite(bands).all():
        raise Unusable("the waveform holds samples that are not finite, or far outside [-1, 1]")
    return framed(from_bands(chosen_frames(bands, spec, y.size), spec), spec)


def band_statistics(
    y: NDArray[np.floating | np.int16], spec: MelSpec
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation by which an utterance is normalised, each ``(n_mels,)``.

    They are what a mel of a spec with `per_utterance` lacks: ``spec.normalised(mean, std)`` says
    how the mel of `y` was made, and such a mel can be undone.

    Raises
    ------
    ContractError
        The spec normalises no utterances so.
    StageError, Unusable
        As of `mel_spectrogram`.
    """
    if spec.per_utterance not in ("mean", "mean_var"):
        raise ContractError(
            f"a mel with per_utterance: {spec.per_utterance or 'null'} has no mean and deviation of an utterance: "
            "this is for per_utterance: mean or mean_var"
        )
    plain = replace(spec, per_utterance=None, clip=None, last_frame=None, frame_multiple=1)
    values = mel_spectrogram(y, plain).astype(np.float64)
    return _statistics(values[:, : _n_counted(values.shape[1], spec)], spec.per_utterance)


def linear_bands(y: NDArray[np.floating | np.int16], spec: MelSpec) -> NDArray[np.float32]:
    """Return what a spec's bank makes of a waveform, of all frames of the transform.

    It is what `from_bands` takes. The waveform takes the spec's steps before.
    """
    if spec.wave:
        y = prepared(y, spec.wave, spec.sr)
    elif y.dtype != np.int16:
        y = as_float(y)
    if spec.key_shift:
        return shifted_bands(y, spec)
    from melmill.stages.numeric.compiled.mel import mel_bands  # here, as it imports numba

    return mel_bands(y, spec)


def chosen_frames(M: NDArray[np.float32], spec: MelSpec, n_samples: int) -> NDArray[np.float32]:
    """Return those of the transform's frames ``(n_mels, n_frames)`` that a mel of the spec has."""
    n_frames = replace(spec, frame_multiple=1, last_frame=None).n_frames(n_samples) if spec.frames != "all" else -1
    if n_frames in (-1, M.shape[1]):
        return M
    return np.pad(M[:, :n_frames], ((0, 0), (0, max(0, n_frames - M.shape[1]))), mode="edge")


def framed(M: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Return a mel whose last frame is what the spec overwrites it with, up to whole multiples."""
    if spec.last_frame is None or M.shape[1] == 0:
        return M
    n_frames = M.shape[1]
    M = np.pad(M, ((0, 0), (0, -n_frames % spec.frame_multiple)))
    M[:, n_frames - 1 :] = spec.last_frame
    return M


def unframed(M: NDArray[np.floating], spec: MelSpec) -> NDArray[np.floating]:
    """Return a mel without frames that were added, its overwritten last frame that before it.

    It undoes `framed` as far as that can be: without a length, frames at the end that hold the
    value `last_frame` throughout count as added, up to the spec's multiple.

    >>> spec = MelSpec(n_mels=2, last_frame=0.0, frame_multiple=4)
    >>> unframed(np.array([[1.0, 2, 0, 0], [3, 4, 0, 0]]), spec)
    array([[1., 2., 2.],
           [3., 4., 4.]])
    """
    if spec.last_frame is None or M.ndim != 2 or M.shape[1] < 2:
        return M
    held = np.flatnonzero((np.float32(spec.last_frame) != M).any(axis=0))
    end = M.shape[1] if held.size == 0 else max(int(held[-1]) + 2, M.shape[1] - spec.frame_multiple + 1)
    kept = np.array(M[:, : min(end, M.shape[1])])
    if kept.shape[1] > 1:
        kept[:, -1] = kept[:, -2]
    return kept


def from_bands(bands: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Apply what comes after the mel bank: PCEN, power law or log, normalisations and clip.

    Parameters
    ----------
    bands : ndarray of float32, shape (n_mels, n_frames)
        Non-negative, as the bank gave them. Where the spec looks at utterances, they are all frames
        of one.

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)
        `framed` overwrites its last frame, if the spec does.
    """
    linear = bands.astype(np.float64)
    if spec.band_gain is not None:
        linear *= column(spec.band_gain)
    if spec.per_utterance == "max" and linear.max(initial=0.0) > 0:
        linear /= linear.max()
    values = _compressed(linear, spec)
    if spec.below_max is not None and values.size:
        np.maximum(values, values.max() - spec.below_max, out=values)
    if (spec.shift, spec.scale) != (0.0, 1.0):
        values = (values + spec.shift) * spec.scale
    if spec.per_utterance in ("mean", "mean_var"):
        mean, std = _statistics(values[:, : _n_counted(values.shape[1], spec)], spec.per_utterance)
        values = (values - mean[:, np.newaxis]) / std[:, np.newaxis]
    if spec.band_mean is not None:
        values = values - column(spec.band_mean)
    if spec.band_std is not None:
        values = values / column(spec.band_std)
    if spec.clip is not None:
        np.clip(values, *spec.clip, out=values)
    return values.astype(np.float32)


def column(values: Sequence[float]) -> NDArray[np.float64]:
    """Return numbers of bands as a column ``(n_mels, 1)``."""
    return np.array(values, dtype=np.float64)[:, np.newaxis]


def _n_counted(n_frames: int, spec: MelSpec) -> int:
    """Return how many frames count: all, but for a last one that is overwritten."""
    return n_frames if spec.last_frame is None else max(n_frames - 1, 0)


def _statistics(values: NDArray[np.float64], kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation of each band; of one frame the deviation is the guard alone."""
    if values.shape[1] == 0:
        return np.zeros(len(values)), np.ones(len(values))
    mean = values.mean(axis=1)
    if kind == "mean":
        return mean, np.ones(len(values))
    deviation = values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
    return mean, deviation + _DEVIATION_GUARD


def _compressed(bands: NDArray[np.float64], spec: MelSpec) -> NDArray[np.float64]:
    if spec.pcen is not None:
        return pcen(bands, spec.pcen, spec.sr / spec.hop_length)
    if spec.compression is not None:
        return np.asarray(bands**spec.compression)
    if spec.log is None:
        return bands
    floor = spec.floor or 0.0
    raised = bands + floor if spec.floor_kind == "add" else np.maximum(bands, floor)
    if spec.log == "ln":
        return np.asarray(np.log(raised))
    return np.asarray(np.log10(raised)) * (20.0 / spec.power if spec.log == "db" else 1.0)


def check_waveform(y: NDArray[np.floating | np.int16]) -> None:
    """Raise StageError unless an array is one channel of float or int16 samples."""
    if y.ndim != 1:
        raise StageError(f"a waveform is (n_samples,), got shape {y.shape!r}: mix its channels first")
    if y.dtype not in (np.int16, np.float32, np.float64):
        raise StageError(
            f"a waveform is float32, float64 or int16, got {y.dtype}: give 16-bit samples as int16, and divide others "
            "by their full scale, 2147483648 for 32 bits"
        )


def to_linear(M: NDArray[np.floating], spec: MelSpec) -> NDArray[np.float32]:
    """Return a mel as the bank gave it, without normalisation.

    It undoes clip, normalisation of bands, shift and scale, log or compression, gains of bands, and
    `normalized`. What came before the transform is for `mels.wave.restored`.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        As made by `spec`; its log and affine map say the unit.
    spec : MelSpec

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)
        ``E |X|**power``, not negative: a mel of `magnitude_spec`. What a floor or clip hid stays
        at the floor or clip, and `eps` stays under the root.

    Raises
    ------
    ContractError
        The shape is not the spec's, or its PCEN or what it does with utterances can't be undone.
    Unusable
        A value is not finite, or exceeds what the spec can mean.
    """
    spec.check_invertible()
    M = np.asarray(M)
    if M.ndim != 2 or M.shape[0] != spec.n_mels:
        raise ContractError(
            f"a mel of this spec is (n_mels={spec.n_mels}, n_frames), got shape {M.shape!r}; "
            "frame-major mels need a transpose"
        )
    if not np.isfinite(M).all():
        raise Unusable(f"{int((~np.isfinite(M)).sum())} mel values are not finite")
    linear = np.maximum(uncompressed(unscaled(M, spec), spec), 0.0) * window_norm(spec) ** spec.power
    if spec.band_gain is not None:
        linear /= column(spec.band_gain)
    with np.errstate(over="ignore"):
        result: NDArray[np.float32] = linear.astype(np.float32)
    if not np.isfinite(result).all():
        raise Unusable(
            f"mel value {float(M.max()):g} exceeds what its spec can mean: undone it is past float32; "
            f"{range_found(M, spec)}"
        )
    return result


def unscaled(M: NDArray[np.floating], spec: MelSpec) -> NDArray[np.float64]:
    """Undo what a spec does to values after the log: numbers of bands, scale and shift."""
    values = M.astype(np.float64)
    if spec.band_std is not None:
        values = values * column(spec.band_std)
    if spec.band_mean is not None:
        values = values + column(spec.band_mean)
    return np.asarray(values / spec.scale - spec.shift)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MelRange:
    """What mels of sounds within full scale can hold.

    Parameters
    ----------
    lowest, highest : float
        Bounds of all values: those of silence, and of a signal of power 1 in any one band.
    always : float
        No mel of 16 frames or more has all its values above this: some band of white noise at -10 dBFS.
    areas, scale : ndarray of float64, shape (n_mels,)
        Sum over the bins of each band's triangle of peak 1, and the factor of that triangle.
    energy : float
        ``sum |X|^2`` over the bins of a frame of power 1.
    """

    lowest: float
    highest: float
    always: float
    areas: NDArray[np.float64]
    scale: NDArray[np.float64]
    energy: float


@lru_cache(maxsize=64)
def mel_range(spec: MelSpec) -> MelRange:
    """Return what mels of a spec can hold if no sample is beyond full scale.

    The triangles of peak 1 add up to 1 at most. So by Jensen's and Parseval's theorems, with a
    triangle's area A and a band M of power p, ``sum A (M / A)^(2 / p)`` over the bands is at most
    ``n_fft sum w^2 / 2`` for a signal of power 1. That holds for p up to 2.
    """
    window = float(np.sum(hann(spec.stft) ** 2))
    energy = spec.n_fft * window / 2.0
    scale = band_scale(spec)
    areas = mel_bank(spec).astype(np.float64).sum(axis=1) / scale
    held = areas > 0
    share, unit = spec.power / 2.0, scale[held] * areas[held] / window_norm(spec) ** spec.power
    loudest = unit * (energy / areas[held]) ** share
    noise = unit * (window * 10.0 ** (_ALWAYS_DB / 10.0)) ** share
    plain = at_once(spec)
    silence = np.zeros((spec.n_mels, 1), dtype=np.float32)
    whole = np.zeros((2, spec.n_mels, 1), dtype=np.float32)
    whole[:, held, 0] = loudest, noise
    values = [from_bands(bands, plain)[held] for bands in whole]
    return MelRange(
        lowest=float(from_bands(silence, plain).min()),
        highest=float(values[0].max()),
        always=float(values[1].min()),
        areas=areas,
        scale=scale,
        energy=energy,
    )


def loudest_frame_db(M: NDArray[np.floating], spec: MelSpec) -> float:
    """Return the level of a mel's loudest frame, dB re a signal of power 1.

    No sound with that mel is quieter. It is ``inf`` where undoing the log overflows.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Finite values; at least one frame.

    >>> noise = np.random.default_rng(0).uniform(-1, 1, 16000).astype(np.float32)
    >>> -8 < loudest_frame_db(mel_spectrogram(noise, MelSpec()), MelSpec()) < -3
    True
    """
    known = mel_range(spec)
    held = known.areas > 0
    with np.errstate(over="ignore", divide="ignore"):
        bands = np.maximum(uncompressed(unscaled(M, spec), spec), 0.0)
        if spec.band_gain is not None:
            bands /= column(spec.band_gain)
        means = bands[held] * (window_norm(spec) ** spec.power / (known.scale * known.areas)[held])[:, np.newaxis]
        energy = float((known.areas[held] @ means ** (2.0 / spec.power)).max())
        return float(10.0 * np.log10(energy / known.energy))


def range_problem(M: NDArray[np.floating], spec: MelSpec) -> str:
    """Return why the range of a mel's values shows that it was made otherwise than by its spec.

    Mels that acoustic models make may overshoot: frames may be 6 dB over full scale, and values
    20 dB below the spec's floor. A mel in PCEN, or of a power above 2, is not judged. One of fewer
    than 16 frames is judged by these bounds alone, not by how its values are spread.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Finite values; at least one frame.

    Returns
    -------
    str
        What is wrong, the range that mels of the spec have, the one found, and what it looks like.
        Empty where nothing is wrong.
    """
    problem = _problem(unframed(M, spec), spec)
    if not problem:
        return ""
    known = mel_range(spec)
    return (
        f"no mel of its spec: {problem}; sound within full scale gives {known.lowest:.4g} to {known.highest:.4g}; "
        f"{range_found(M, spec)}"
    )


def check_range(M: NDArray[np.floating], spec: MelSpec) -> None:
    """Raise Unusable if there is a `range_problem`."""
    problem = range_problem(M, spec)
    if problem:
        raise Unusable(problem)


def _problem(M: NDArray[np.floating], spec: MelSpec) -> str:
    """Return what shows that a mel was made otherwise than by its spec, empty where nothing does."""
    # A high-pass or a level changes what sound within full scale gives, and so do numbers of utterances.
    if spec.pcen is not None or spec.power > 2 or spec.wave or spec.per_utterance or not mel_bank(spec).any():
        return ""
    known, low, high = mel_range(spec), float(M.min()), float(M.max())
    if spec.log is None:
        unit = 0.0
        n_negative = np.count_nonzero(np.less(M, -0.01 * max(high, -low)))
        if spec.shift >= 0 and n_negative > _NEGATIVE * M.size:
            most = "most" if 2 * n_negative > M.size else "many"
            return f"{most} values are negative ({low:g} to {high:g}), but the spec has no log"
    else:
        unit = {"ln": spec.power * math.log(10) / 20, "log10": spec.power / 20, "db": 1.0}[spec.log] * spec.scale
    if low < known.lowest - _BELOW_DB * unit < known.lowest:
        return f"values are far below its lowest, {known.lowest:.4g}"
    level_db = loudest_frame_db(M, spec)
    if level_db > _ABOVE_DB:
        return f"its loudest frame would be {level_db:.0f} dB over full scale"
    if low == high or M.shape[1] < _ENOUGH_FRAMES:
        return ""
    if low >= known.always:
        return f"all values are above {known.always:.4g}, so it would be too loud throughout"
    if known.lowest < known.lowest + _BELOW_DB * unit < low and high - low < _SPAN_DB * unit:
        return f"all values lie within {(high - low) / unit:.0f} dB"
    return _other_floor(M, low, spec)


def _other_floor(M: NDArray[np.floating], low: float, spec: MelSpec) -> str:
    """Return what shows that a mel ends at a floor of other logs, empty where nothing does."""
    if (spec.shift, spec.scale) == (0.0, 1.0):
        lowest = mel_range(spec).lowest
        for floor in _OTHER_FLOORS.get(spec.log or "", ()):
            if abs(floor - lowest) < _FLOOR_SLACK:
                continue
            n_there = np.count_nonzero(np.less(M, floor + _FLOOR_SLACK))
            if abs(low - floor) < _FLOOR_SLACK and n_there > _AT_FLOOR * M.size:
                return f"many values are {floor:g} and none is lower, but its floor is {mel_range(spec).lowest:.4g}"
    return ""


def range_found(M: NDArray[np.floating], spec: MelSpec) -> str:
    """Return, for a message, the range of a mel's values, and the log that such values have.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
        Finite values that can't be a mel of `spec`.
    spec : MelSpec

    >>> range_found(np.linspace(-9.8, 73.7, 160).reshape(80, 2), MelSpec(log="ln", floor=1e-5))
    'its values are -9.8 to 73.7, and the spec has log: ln; they look like log: db, so say how the mel was made'
    """
    low, high = float(M.min()), float(M.max())
    found = f"its values are {low:g} to {high:g}, and the spec has log: {spec.log or 'null'}"
    normalised = _normalised(M, low, high)
    if normalised:
        return f"{found}; they look normalised {normalised}: undo that, or say shift and scale"
    if _of_integers(M, spec):
        return f"{found}; they look like a mel of 16-bit integers: divide the waveform by 32768 first"
    # The largest band of a full-scale wave is below n_fft ** power.
    decades = spec.power * (math.log10(spec.n_fft) + _INT16_DECADES)
    highest = {"ln": decades * math.log(10), "log10": decades, "db": 20.0 / spec.power * decades}
    # A range from -5 is that of log10 with the common floor.
    logs = sorted(_LOGS, key=lambda log: log != "log10") if abs(low + 5.0) < _FLOOR_SLACK else _LOGS
    fitting = (log for log in logs if log != spec.log and low >= _LOWEST[log] - 0.01 and high <= highest[log])
    likely = None if low >= 0 else next(fitting, spec.log)
    if likely == spec.log:
        return f"{found}; say how the mel was made"
    specs = {name: preset(name) for name in preset_names()}
    named = [
        name
        for name, like in specs.items()
        if (like.log, like.n_mels, like.sr, like.shift, like.scale) == (likely, spec.n_mels, spec.sr, 0.0, 1.0)
    ]
    hint = f" (preset {', '.join(named[:_PRESETS_NAMED])})" if named else ""
    return f"{found}; they look like log: {likely or 'null'}{hint}, so say how the mel was made"


def _of_integers(M: NDArray[np.floating], spec: MelSpec) -> bool:
    """Tell whether a mel would be of a usual level if its waveform were divided by 32768."""
    if spec.pcen is not None or spec.per_utterance or M.min() < mel_range(spec).lowest - _FLOOR_SLACK:
        return False
    # Most magnitudes without a log are close to 0.
    without_log = spec.log is not None and M.min() >= 0 and np.median(M) < 0.1 * M.max()
    return not without_log and _USUAL_DB[0] < loudest_frame_db(M, spec) - _INT16_DB < _USUAL_DB[1]


def _normalised(M: NDArray[np.floating], low: float, high: float) -> str:
    """Return to what a mel's values seem normalised, empty where they don't."""
    if low > -0.01 and 0.5 < high < 1.01:
        return "to 0 to 1, or like magnitudes without a log"
    if abs(low + 1.0) < 0.01 and high < 1.01:
        return "to -1 to 1"
    if abs(low + 4.0) < 0.01 and high < 4.01:
        return "to -4 to 4"
    if abs(float(M.mean())) < 0.2 and 0.8 < float(M.std()) < 1.25 and low < -1.0:
        return "to mean 0 and variance 1"
    return ""


def magnitude_spec(spec: MelSpec) -> MelSpec:
    """Return the spec of what `to_linear` gives: the same bank and power, nothing after it.

    >>> magnitude_spec(MelSpec(log="ln", floor=1e-5)) == MelSpec()
    True
    """
    return replace(
        at_once(spec),
        log=None,
        floor=None,
        floor_kind="max",
        compression=None,
        pcen=None,
        shift=0.0,
        scale=1.0,
        clip=None,
        normalized=False,
        wave=(),
        band_gain=None,
        band_mean=None,
        band_std=None,
        frames="all",
    )


def at_once(spec: MelSpec) -> MelSpec:
    """Return the spec without what it does with an utterance as a whole: each frame for itself."""
    if spec.below_max is None and spec.per_utterance is None and spec.last_frame is None:
        return spec
    return replace(spec, below_max=None, per_utterance=None, last_frame=None, frame_multiple=1)


def uncompressed(values: NDArray[np.float64], spec: MelSpec) -> NDArray[np.float64]:
    """Undo the log, the power law or the PCEN of a spec; leave values that had none."""
    if spec.pcen is not None:
        return inverse_pcen(values, spec.pcen, spec.sr / spec.hop_length)
    added = spec.floor if spec.floor_kind == "add" and spec.floor is not None else 0.0
    with np.errstate(over="ignore"):
        if spec.log == "ln":
            return np.exp(values) - added if added else np.exp(values)
        if spec.log == "log10":
            return np.asarray(10.0**values - added)
        if spec.log == "db":
            return np.asarray(10.0 ** (values * spec.power / 20.0) - added)
    if spec.compression is not None:
        return np.asarray(np.maximum(values, 0.0) ** (1.0 / spec.compression))
    return values
