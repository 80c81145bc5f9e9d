"""The mel contract between two specs: what differs, and whether one mel can become the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.errors import ContractError
from melmill.stages.numeric.filterbank import band_scale
from melmill.stages.numeric.mel import framed, from_bands, to_linear, uncompressed, unframed, unscaled
from melmill.stages.numeric.mels.pcen import MAX_GAIN
from melmill.stages.numeric.mels.steps import WaveStep
from melmill.stages.numeric.melspec import MelSpec, Pcen
from melmill.stages.numeric.stft import window_norm

Conversion = Literal["lossless", "lossy", "impossible"]

_FORM = ("sr", "n_fft", "win_length", "hop_length", "n_mels", "fmin", "fmax", "htk", "power", "bank_sr", "key_shift")
_FRAMING = ("center", "pad_mode", "eps", "window", "energy_floor")
_UTTERANCE = ("wave", "frames", "last_frame", "frame_multiple", "below_max", "per_utterance")
_VALUES = (
    *("norm", "normalized", "log", "compression", "pcen", "shift", "scale"),
    *("band_gain", "floor_kind", "band_mean", "band_std"),
)
_SHAPE = ("sr", "hop_length", "n_mels")
_CONVERT = "convert"
# Of ``log(x + c)`` float32 tells x from 0 down to about this share of c.
_TOLD_APART = 1e-3
# Rounding may tell two equal floors apart.
_SLACK = 1.0 + 1e-6
_RANK = {"same": 0, "lossless": 1, "lossy": 2, "impossible": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field in which the mel at hand (`a`) is not the mel that is needed (`b`).

    `conversion` says whether `convert` can bridge it, `fix` what to do.
    """

    field: str
    a: Any
    b: Any
    conversion: Conversion
    fix: str


def differences(a: MelSpec, b: MelSpec) -> list[Difference]:
    """Return what keeps a mel made by `a` from being one made by `b`, worst first.

    Fields that change no value don't count: a floor without a log, ``fmax: null`` against half the
    rate.

    >>> [d.field for d in differences(MelSpec(), MelSpec(log="ln", floor=1e-5))]
    ['log', 'floor']
    """
    differing = []
    for field in (*_FORM, *_FRAMING, *_UTTERANCE, *_VALUES):
        if _differs(field, a, b):
            kind, fix = _judged(field, a, b)
            differing.append(
                Difference(field=field, a=getattr(a, field), b=getattr(b, field), conversion=kind, fix=fix)
            )
    differing.extend(_range_differences(a, b))
    return sorted(differing, key=lambda difference: -_RANK[difference.conversion])


def conversion(a: MelSpec, b: MelSpec) -> Literal["same", "lossless", "lossy", "impossible"]:
    """Return how a mel made by `a` becomes one made by `b`.

    >>> conversion(MelSpec(log="ln", floor=1e-5), MelSpec(log="log10", floor=1e-5))
    'lossless'
    """
    differing = differences(a, b)
    return differing[0].conversion if differing else "same"


def convert(M: NDArray[np.floating], a: MelSpec, b: MelSpec, *, allow_lossy: bool = False) -> NDArray[np.float32]:
    """Turn a mel made by `a` into the one that `b` would have made, exactly to rounding.

    Parameters
    ----------
    M : ndarray of float, shape (n_mels, n_frames)
    a, b : MelSpec
    allow_lossy : bool
        Go on where something is lost. Values under a higher floor stay there, and frames stay
        where they were.

    Returns
    -------
    ndarray of float32, shape (n_mels, n_frames)

    Raises
    ------
    ContractError
        Something of it is lost or was never there; the message says what.
    """
    kind = conversion(a, b)
    if kind == "same":
        return M.astype(np.float32)
    if kind != "lossless" and not (kind == "lossy" and allow_lossy):
        raise ContractError(explain(a, b))
    change = band_scale(b) / band_scale(a) / window_norm(b) ** b.power
    bands = (to_linear(unframed(M, a), a) * change[:, np.newaxis]).astype(np.float32)
    if _frames(a) == "all" and _frames(b) == "floor":
        bands = bands[:, :-1]  # of centred frames, one lies past the last whole hop
    return framed(from_bands(bands, b), b)


def explain(a: MelSpec, b: MelSpec) -> str:
    """Return a table of what differs between the mel at hand, `a`, and the mel needed, `b`."""
    differing = differences(a, b)
    if not differing:
        return "the two mels are made alike"
    columns = ("field", "made with", "needed", "conversion", "what to do")
    rows = [(d.field, _plain(d.a), _plain(d.b), d.conversion, d.fix) for d in differing]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (columns, *rows)]
    if any(getattr(a, name) != getattr(b, name) for name in _SHAPE):
        headline = "the mels differ in shape or rate"
    else:
        shape = f"({a.n_mels}, n_frames) at {a.sr / a.hop_length:g} frames/s"
        headline = f"both mels are {shape}, but the same sound has other values in them"
    verdict = {
        "lossless": "convert without loss",
        "lossy": "convert only with loss",
        "impossible": "can't be converted",
    }[differing[0].conversion]
    return "\n".join([f"{headline}: they {verdict}", *(f"  {line.rstrip()}" for line in table)])


def _judged(field: str, a: MelSpec, b: MelSpec) -> tuple[Conversion, str]:
    again = f"extract again with {field}: {_plain(getattr(b, field))}"
    if field in _FORM:
        return "impossible", again
    if field in _UTTERANCE:
        return _judged_whole(field, a, b, again)
    if field in _FRAMING:
        return "lossy", again
    if field == "pcen" and a.pcen is not None and a.pcen.gain > MAX_GAIN:
        return "impossible", f"extract again with pcen gain <= {MAX_GAIN}"
    if field == "pcen" and a.pcen is not None and a.clip is not None:
        return "lossy", "extract again without clip: a clipped value misleads the smoother"
    return "lossless", _CONVERT


def _judged_whole(field: str, a: MelSpec, b: MelSpec, again: str) -> tuple[Conversion, str]:
    """Judge what a spec does with an utterance as a whole."""
    if field == "wave":
        filters = [[step for step in spec.wave if step.is_filter] for spec in (a, b)]
        return ("lossy" if filters[0] == filters[1] else "impossible"), again
    if field == "frames":
        return ("lossless" if (_frames(a), _frames(b)) == ("all", "floor") else "lossy"), again
    # What one of these hid stays hidden; what the other hides can be hidden now.
    hidden = getattr(a, field)
    if field == "per_utterance" and hidden in ("mean", "mean_var"):
        return "impossible", "give the numbers of each utterance (MelSpec.normalised), or extract again"
    if field == "frame_multiple" or hidden is None:
        return "lossless", _CONVERT
    return "lossy", again


def _frames(spec: MelSpec) -> str:
    """Return which frames a mel has, where that is not what its framing gives anyway."""
    return "all" if spec.frames == "floor" and spec.center == "same" else spec.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Band energies that a mel tells apart, under triangles of peak 1, without `normalized`."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    clipped: bool


def _range(spec: MelSpec) -> _Range:
    unit = window_norm(spec) ** spec.power / band_scale(spec)
    if spec.band_gain is not None:
        unit = unit / np.array(spec.band_gain)
    floor = 0.0 if spec.log is None or spec.floor is None else spec.floor
    if spec.floor_kind == "add":
        floor *= _TOLD_APART
    if spec.clip is None or spec.pcen is not None:
        return _Range(low=floor * unit, high=np.inf * unit, clipped=False)
    bounds = unscaled(np.tile(np.array(spec.clip), (spec.n_mels, 1)), spec)
    low, high = np.maximum(uncompressed(bounds, spec), floor).T
    return _Range(low=low * unit, high=high * unit, clipped=bool(np.any(low > floor)))


def _range_differences(a: MelSpec, b: MelSpec) -> list[Difference]:
    """Judge floor and clip by what they hide: no loss where `a` tells apart all that `b` does."""
    below = above = False
    clipped = False
    if a.n_mels == b.n_mels:
        at_hand, needed = _range(a), _range(b)
        below, above = (
            bool(np.any(at_hand.low > needed.low * _SLACK)),
            bool(np.any(at_hand.high * _SLACK < needed.high)),
        )
        clipped = at_hand.clipped
    lost = {"floor": below and not clipped, "clip": above or (below and clipped)}
    fixes = {"floor": "extract again with a lower floor", "clip": "extract again with a wider clip, or none"}
    return [
        Difference(
            field=field,
            a=_effective(a, field),
            b=_effective(b, field),
            conversion="lossy" if lost[field] else "lossless",
            fix=fixes[field] if lost[field] else _CONVERT,
        )
        for field in ("floor", "clip")
        if lost[field] or _differs(field, a, b)
    ]


def _differs(field: str, a: MelSpec, b: MelSpec) -> bool:
    return bool(getattr(a, field) != getattr(b, field) and _effective(a, field) != _effective(b, field))


def _effective(spec: MelSpec, field: str) -> Any:  # noqa: ANN401 - fields differ in type
    """Return what a field does: None where it does nothing."""
    if field == "fmax":
        return spec.top_hz
    if field == "pad_mode" and spec.stft.pad == 0:
        return None
    if field in ("floor", "floor_kind") and spec.log is None:
        return None
    if field == "frames":
        return _frames(spec)
    return getattr(spec, field)


def _plain(value: Any) -> str:  # noqa: ANN401
    """Write a value as pipeline.yaml has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Pcen):
        return ", ".join(f"{name}: {setting:g}" for name, setting in vars(value).items())
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple) and value and isinstance(value[0], WaveStep):
        return "; ".join(map(str, value))
    if isinstance(value, tuple) and len(value) > 2:
        return f"{len(value)} numbers from {value[0]:g}"
    return str(list(value)) if isinstance(value, tuple) else str(value)
