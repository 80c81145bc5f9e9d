"""Stage `energy`: how loud waveforms are at the frames of their mels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Features, Input, Item, Outcome, Product, each
from melmill.stages.extract.features.aligned import PORTS, aligned, at_mel_rate, chosen, frames_of
from melmill.stages.numeric.checks import check_choice, check_float
from melmill.stages.numeric.mels.wave import prepared
from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.stft import Stft, hann, window_norm

MEASURES = ("norm", "rms")
# Frames that are transformed at a time.
_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Measure the energy of waveforms at the frames of their mels, ``(1, n_frames)``.

    Parameters
    ----------
    measure : {"norm", "rms"}
        ``norm`` is the Euclidean norm of the magnitudes of the mel's own transform, as FastSpeech 2
        has it; what the mel's spec does to waveforms is done before. ``rms`` is the root mean
        square of the recording under the frame's window, of full scale 1.
    log : {None, "ln", "db"}
        Of the result.
    floor : float
        Values below it are raised to it before a log.
    """

    uses: ClassVar[str] = "energy"
    version: ClassVar[int] = 1
    inputs: ClassVar[Mapping[str, Input]] = PORTS

    measure: Literal["norm", "rms"] = "norm"
    log: Literal["ln", "db"] | None = None
    floor: float = 1e-5

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("measure", self.measure, MEASURES)
        if self.log is not None:
            check_choice("log", self.log, ("ln", "db"))
        check_float("floor", self.floor, above=0)

    def identity(self) -> Mapping[str, Any]:
        """Return the fields that decide the energy."""
        fields = asdict(self)
        if self.log is None:
            del fields["floor"]
        return fields

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Features:
        """Describe the row; raise ContractError unless the inputs are waveforms and mels."""
        return aligned(self.uses, inputs, (self.uses,))

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the energy of every waveform."""
        del product
        return each(items, lambda item: self._outcome(item, inputs))

    def _outcome(self, item: Item, inputs: Mapping[str, Product]) -> Outcome:
        frames, y = frames_of(item, inputs), at_mel_rate(item, inputs)
        values = norms(y, frames.spec) if self.measure == "norm" else levels(y, frames.spec)
        if self.log is not None:
            logs = np.log(np.maximum(values, self.floor))
            values = logs if self.log == "ln" else 20.0 / np.log(10.0) * logs
        return Outcome(array=chosen(values[np.newaxis], frames, y.size))


def norms(y: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """Return the Euclidean norm of each frame's magnitudes, ``(n_frames,)`` of the transform of a spec."""
    import scipy.fft  # here, as planning needs none of it

    signal = prepared(y, spec.wave, spec.sr) if spec.wave else y
    stft = Stft(spec.stft, np.float64)
    parts = [np.zeros(0)]
    for block in _blocks(stft.frames(signal)):
        D = scipy.fft.rfft(block * stft.window, axis=-1)
        parts.append(np.sqrt(np.sum(np.square(D.real) + np.square(D.imag), axis=1)))
    return np.concatenate(parts) / window_norm(spec)


def levels(y: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float64]:
    """Return the root mean square under each frame's window, ``(n_frames,)``. Padding counts as the spec has it."""
    stft = Stft(spec.stft, np.float64)
    weights = hann(spec.stft) ** 2
    parts = [np.square(block) @ weights for block in _blocks(stft.frames(y))]
    return np.asarray(np.sqrt(np.concatenate([np.zeros(0), *parts]) / weights.sum()))


def _blocks(frames: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    return [frames[at : at + _BLOCK] for at in range(0, len(frames), _BLOCK)]
