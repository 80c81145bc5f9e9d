"""Stage `loudness`: recordings at one loudness, after ITU-R BS.1770, with a limit for true peaks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Item, Outcome, Waveform
from melmill.stages.numeric.checks import check_choice, check_float
from melmill.stages.numeric.mels.loudness import BLOCK_S, integrated_loudness
from melmill.stages.prepare.prepare import Prepare, as_stored, floats, whole
from melmill.stages.prepare.true_peak import limited, true_peak

NO_LOUDNESS = "no loudness"
TOO_FAR = "needs too much gain"

_PASSES = 4
_NEAR_LU = 0.05


@dataclass(frozen=True, kw_only=True)
class Loudness(Prepare):
    """Bring recordings to one loudness, and keep their true peaks below a limit.

    The loudness is integrated and gated, after ITU-R BS.1770. A recording shorter than its blocks of
    0.4 s is measured with silence behind it. One that its gates find silent is dropped. The table of
    the node has, for each recording, the loudness and the true peak before and after.

    Parameters
    ----------
    lufs : float
        Loudness to reach, LUFS.
    true_peak_db : float
        Largest true peak, dBTP: of the signal at four times its rate.
    peaks : {"lower", "limit", "drop"}
        What to do where the gain would lift peaks past that. ``lower`` takes less gain, so that the
        recording stays softer than wanted. ``limit`` turns the peaks down. ``drop`` drops the
        recording.
    max_gain_db : float
        A recording that needs more gain is dropped, dB. It would be mostly noise.
    """

    uses: ClassVar[str] = "loudness"

    lufs: float = -23.0
    true_peak_db: float = -1.0
    peaks: Literal["lower", "limit", "drop"] = "lower"
    max_gain_db: float = 40.0

    def __post_init__(self) -> None:
        """Check the fields."""
        check_float("lufs", self.lufs, at_least=-70.0, at_most=0.0)
        check_float("true_peak_db", self.true_peak_db, at_least=-60.0, at_most=0.0)
        check_choice("peaks", self.peaks, ("lower", "limit", "drop"))
        check_float("max_gain_db", self.max_gain_db, at_least=0.0, at_most=120.0)

    def prepared(self, item: Item, source: Waveform, made: Waveform) -> Outcome:
        """Return a recording at the loudness; see `Prepare.prepared`."""
        stored = item.inputs["from"]
        y = floats(stored)
        before, peak_before = measured(y, source.sr), true_peak(y)
        row: dict[str, float | None] = {
            "lufs_before": before if math.isfinite(before) else None,
            "true_peak_before_db": _db(peak_before),
        }
        if not math.isfinite(before):
            return Outcome(row=row, spans=whole(stored, reason=NO_LOUDNESS))
        gain_db = self.lufs - before
        if gain_db > self.max_gain_db:
            return Outcome(row=row, spans=whole(stored, reason=TOO_FAR, detail=f"{gain_db:.1f} dB"))
        over_db = _db(peak_before) + gain_db - self.true_peak_db
        if over_db > 0 and self.peaks == "drop":
            detail = f"{over_db:.1f} dB past {self.true_peak_db:g} dBTP"
            return Outcome(row=row, spans=whole(stored, reason="true peak past the limit", detail=detail))
        if over_db > 0 and self.peaks == "limit":
            louder = self._limited(y, source.sr, gain_db)
        else:
            louder = y * 10.0 ** ((gain_db - max(over_db, 0.0)) / 20.0)
        array = as_stored(louder, made)
        after = floats(array)
        row |= {
            "gain_db": gain_db if self.peaks == "limit" else gain_db - max(over_db, 0.0),
            "lufs": measured(after, source.sr),
            "true_peak_db": _db(true_peak(after)),
        }
        return Outcome(row=row, spans=whole(stored, array))

    def _limited(self, y: NDArray[np.float32], sr: int, gain_db: float) -> NDArray[np.float64]:
        """Return a signal with its gain and its peaks turned down, at the loudness as near as that goes."""
        peak, made = 10.0 ** (self.true_peak_db / 20.0), np.zeros(0)
        for _ in range(_PASSES):
            made = limited((y * 10.0 ** (gain_db / 20.0)).astype(np.float32), sr, peak)
            lost = self.lufs - measured(made.astype(np.float32), sr)
            if not abs(lost) > _NEAR_LU:
                break
            gain_db += lost
        return made


def measured(y: NDArray[np.float32], sr: int) -> float:
    """Return the integrated loudness of a recording of any length, LUFS; minus infinity for silence."""
    shortest = math.ceil(BLOCK_S * sr)
    return integrated_loudness(np.pad(y, (0, max(0, shortest - y.size))), sr)


def _db(peak: float) -> float:
    return 20.0 * math.log10(max(peak, 1e-9))
