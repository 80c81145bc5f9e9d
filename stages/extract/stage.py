"""Stage `extract`: mel spectrograms of waveforms, by a preset and overrides of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import Input, Item, Kind, Mel, Outcome, Product, Waveform, each
from melmill.stages.extract.fields import MelFields, PresetName
from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.errors import ContractError, Unusable
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.resample import resample

_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Extract(MelFields):
    """Make mel spectrograms of waveforms.

    Waveforms of another rate are resampled to the spec's. Upsampling adds nothing: bands above half
    the source's rate then hold next to no energy, or the floor. `melmill.stages.extract.fields.MelFields`
    has the fields that say the spec.

    Parameters
    ----------
    dtype : {"float32", "float16"}
        Type that is stored. float16 keeps 3 digits: enough to train on, but too few to judge an
        inversion by.
    """

    uses: ClassVar[str] = "extract"
    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    preset: PresetName = "paper"
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        """Check the dtype, and that the preset and the overrides make a spec."""
        check_choice("dtype", self.dtype, ("float32", "float16"))
        super().__post_init__()

    def identity(self) -> Mapping[str, Any]:
        """Return the spec and the dtype. The preset's name does not matter."""
        return {"spec": self.spec.as_dict(), "dtype": self.dtype}

    def produces(self, inputs: Mapping[str, Sequence[Product]]) -> Mel:
        """Describe the mels.

        Raises
        ------
        ContractError
            The input is not one node's waveforms.
        """
        sources = inputs["from"]
        if len(sources) != 1 or not isinstance(sources[0], Waveform):
            kinds = ", ".join(source.kind for source in sources) or "nothing"
            raise ContractError(f"extract takes waveforms from one node, got {kinds}: name a node that makes waveforms")
        return Mel(spec=self.spec, dtype=self.dtype)

    def process(self, items: Sequence[Item], inputs: Mapping[str, Product], product: Product) -> Sequence[Outcome]:
        """Return the mel of every waveform."""
        source = inputs["from"]
        if not isinstance(source, Waveform):
            raise ContractError(f"extract takes waveforms, got {source.kind}")
        return each(items, lambda item: Outcome(array=self._mel(item.inputs["from"], source.sr)))

    def _mel(self, y: NDArray[Any], sr: int) -> NDArray[Any]:
        # PCM of the right rate needs no floats of its own.
        M = mel_spectrogram(y if sr == self.spec.sr else resample(y, sr, self.spec.sr), self.spec)
        if self.dtype == "float32":
            return M
        largest = max(float(M.max()), -float(M.min()))
        if largest > _LARGEST_HALF:
            raise Unusable(f"mel value {largest:g} exceeds float16's {_LARGEST_HALF:g}: use dtype: float32, or a log")
        return M.astype(np.float16)
