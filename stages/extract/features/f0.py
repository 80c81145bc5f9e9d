"""Stage `f0`: the pitch of waveforms at the frames of their mels, and which frames are voiced."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Features, Input, Item, Outcome, Product, as_float, each
from melmill.stages.extract.features.aligned import PORTS, Floats, Frames, aligned, frames_of, waveform
from melmill.stages.extract.features.tracking import PitchRange, autocorrelation_f0, interpolated
from melmill.stages.numeric.checks import check_choice, check_float
from melmill.stages.numeric.errors import ParameterError, StageError

METHODS = ("autocorrelation", "dio", "harvest")
ROWS = ("f0", "voiced")
_PACKAGE = "pyworld"
_LOWEST_HZ, _HIGHEST_HZ = 20.0, 4000.0


@dataclass(frozen=True, kw_only=True)
class F0:
    """Find the pitch of waveforms at the frames of their mels, ``(2, n_frames)``.

    The first row is the pitch in Hz, the second is 1 where a frame is voiced and 0 elsewhere. A
    value belongs to the middle of its frame's window, whatever the framing of the mel. The node's
    table has the median pitch of each utterance and its share of voiced frames.

    Parameters
    ----------
    method : {"autocorrelation", "dio", "harvest"}
        ``autocorrelation`` is Boersma's (1993). The others are WORLD's and need the extra ``f0``:
        ``dio`` with StoneMask, and ``harvest``, which is slow.
    fmin, fmax : float
        Lowest and highest pitch, Hz.
    threshold : float
        Periodicity from which ``autocorrelation`` calls a frame voiced, from 0 to 1.
    unvoiced : {"zero", "interpolate"}
        What the first row holds where a frame is unvoiced: 0, or a line from voiced to voiced frame
        in log pitch.
    """

    uses: ClassVar[str] = "f0"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = PORTS

    method: Literal["autocorrelation", "dio", "harvest"] = "autocorrelation"
    fmin: float = 65.0
    fmax: float = 800.0
    threshold: float = 0.45
    unvoiced: Literal["zero", "interpolate"] = "zero"

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("method", self.method, METHODS)
        check_choice("unvoiced", self.unvoiced, ("zero", "interpolate"))
        check_float("fmin", self.fmin, at_least=_LOWEST_HZ)
        check_float("fmax", self.fmax, at_most=_HIGHEST_HZ)
        if self.fmin * 1.5 > self.fmax:
            raise ParameterError("fmax", f"must be at least 1.5 times fmin = {self.fmin:g} Hz, got {self.fmax!r}")
        check_float("threshold", self.threshold, above=0, below=1)

    def identity(self) -> Mapping[str, Any]:
        """Return the fields that decide the pitch."""
        fields = asdict(self)
        if self.method != "autocorrelation":
            del fields["threshold"]
        return fields

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Features:
        """Describe the rows.

        Raises
        ------
        ContractError
            The inputs are not waveforms and mels.
        StageError
            The method's package is not installed.
        """
        if self.method != "autocorrelation" and importlib.util.find_spec(_PACKAGE) is None:
            raise StageError(
                f"method {self.method!r} needs {_PACKAGE}, which is not installed: pip install 'melmill[f0]', or use "
                "method: autocorrelation"
            )
        return aligned(self.uses, inputs, ROWS)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return pitch and voicing of every waveform."""
        del product
        sr = waveform(inputs).sr
        return each(items, lambda item: self._outcome(as_float(item.inputs["from"]), sr, frames_of(item, inputs)))

    def _outcome(self, y: NDArray[np.float32], sr: int, frames: Frames) -> Outcome:
        f0 = self.pitch(y, sr, frames)
        voiced = f0 > 0
        row = {
            "f0_median_hz": round(float(np.median(f0[voiced])), 3) if voiced.any() else None,
            "voiced_share": round(float(voiced.mean()), 4) if voiced.size else 0.0,
        }
        shown = interpolated(f0) if self.unvoiced == "interpolate" else f0
        return Outcome(array=frames.filled(np.stack([shown, voiced])), row=row)

    def pitch(self, y: NDArray[np.float32], sr: int, frames: Frames) -> Floats:
        """Return the pitch ``(n_sounding,)`` of a waveform at its frames in Hz, 0 where it is unvoiced."""
        centres = frames.centres(sr)
        if self.method == "autocorrelation":
            return autocorrelation_f0(
                y, sr, centres, PitchRange(fmin=self.fmin, fmax=self.fmax, threshold=self.threshold)
            )
        hop = frames.spec.hop_length * sr / frames.spec.sr
        return _world(y, sr, centres, hop, self)


def _world(y: NDArray[np.float32], sr: int, centres: Floats, hop: float, stage: F0) -> Floats:
    """Return WORLD's pitch at moments `hop` samples apart.

    WORLD begins at the first sample. So zeros are put before it, until the first moment lies whole
    hops after it. Zeros at the end are for moments past the last sample.
    """
    import pyworld  # an extra

    n_before = math.ceil(float(centres[0]) / hop) if centres.size else 0
    before = round(n_before * hop - float(centres[0])) if centres.size else 0
    n_wanted = n_before + centres.size
    samples = np.pad(y.astype(np.float64), (before, max(0, math.ceil(n_wanted * hop) - before - y.size)))
    period_ms = 1000.0 * hop / sr
    find = pyworld.dio if stage.method == "dio" else pyworld.harvest
    f0, times = find(samples, sr, f0_floor=stage.fmin, f0_ceil=stage.fmax, frame_period=period_ms)
    if stage.method == "dio":
        f0 = pyworld.stonemask(samples, f0, times, sr)
    return np.asarray(f0[n_before:n_wanted])
