"""Stage `extract`: mel spectrograms of waveforms, by a preset and overrides of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.dsp.mel import mel_spectrogram
from melmill.stages.dsp.resample import resample
from melmill.stages.errors import ContractError, ParameterError, Unusable
from melmill.stages.mel_fields import MelFields
from melmill.stages.stage import Input, Item, Kind, Mel, Outcome, Product, Waveform, each

_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Extract(MelFields):
    """Turn waveforms into mel spectrograms.

    Waveforms of another rate are resampled to the spec's. Upsampling is allowed and adds nothing: bands above half the
    source's rate then hold next to no energy, or the floor. For the fields that name the spec see
    `melmill.stages.mel_fields.MelFields`.

    Parameters
    ----------
    dtype : {"float32", "float16"}
        What is stored. float16 keeps 3 digits: enough to train on, not to judge an inversion by.
    """

    uses: ClassVar[str] = "extract"
    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    preset: str = "paper"
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        """Check the dtype, and that preset and overrides make a spec."""
        if self.dtype not in ("float32", "float16"):
            raise ParameterError("dtype", f"must be 'float32' or 'float16', got {self.dtype!r}")
        super().__post_init__()

    def identity(self) -> Mapping[str, Any]:
        """Return the spec and the dtype: what a preset was called does not matter."""
        return {"spec": self.spec.as_dict(), "dtype": self.dtype}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Mel:
        """Describe the mels; raise ContractError unless one product of waveforms comes in."""
        sources = inputs["from"]
        if len(sources) != 1 or not isinstance(sources[0], Waveform):
            kinds = ", ".join(source.kind for source in sources) or "nothing"
            raise ContractError(f"extract takes waveforms from one node, got {kinds}: name a node that makes waveforms")
        return Mel(spec=self.spec, dtype=self.dtype)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Extract the mel of every waveform."""
        source = inputs["from"]
        if not isinstance(source, Waveform):
            raise ContractError(f"extract takes waveforms, got {source.kind}")
        return each(items, lambda item: Outcome(array=self._mel(item.inputs["from"], source.sr)))

    def _mel(self, y: NDArray[Any], sr: int) -> NDArray[Any]:
        M = mel_spectrogram(resample(y, sr, self.spec.sr), self.spec)
        if self.dtype == "float32":
            return M
        largest = float(np.abs(M).max())
        if largest > _LARGEST_HALF:
            raise Unusable(f"mel value {largest:g} exceeds float16's {_LARGEST_HALF:g}: use dtype: float32, or a log")
        return M.astype(np.float16)
