"""Stage `extract`: mel spectrograms of waveforms, by a preset and overrides of its fields.

- A mel spec as the fields of a stage: a preset, and what differs from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import UNSET, Input, Item, Kind, Mel, OneOf, Outcome, Product, Unset, Waveform, each
from melmill.stages.numeric.errors import ContractError, ParameterError, Unusable
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import Centering, MelSpec, Pcen
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.numeric.resample import resample

PresetName = Annotated[str, OneOf(preset_names)]


@dataclass(frozen=True, kw_only=True)
class MelFields:
    """Name a mel spec.

    Parameters
    ----------
    preset : str
        Name of the spec to start from, see `melmill.stages.numeric.presets`.
    sr, n_fft, win_length, hop_length, n_mels, fmin, fmax, htk, norm, power, log, floor, center, pad_mode, eps
        Override the preset's, as `normalized`, `compression`, `pcen`, `shift`, `scale` and `clip` do; see `MelSpec`.
        A field that is left out keeps the preset's value; None is a value of its own.

    Examples
    --------
    >>> MelFields(preset="hifigan", n_mels=100).spec.n_mels
    100
    """

    preset: PresetName
    sr: int | Unset = UNSET
    n_fft: int | Unset = UNSET
    win_length: int | Unset | None = UNSET
    hop_length: int | Unset = UNSET
    n_mels: int | Unset = UNSET
    fmin: float | Unset = UNSET
    fmax: float | Unset | None = UNSET
    htk: bool | Unset = UNSET
    norm: Literal["slaney"] | Unset | None = UNSET
    power: float | Unset = UNSET
    log: Literal["ln", "log10", "db"] | Unset | None = UNSET
    floor: float | Unset | None = UNSET
    center: Centering | Unset = UNSET
    pad_mode: Literal["constant", "reflect"] | Unset = UNSET
    eps: float | Unset = UNSET
    normalized: bool | Unset = UNSET
    compression: float | Unset | None = UNSET
    pcen: Pcen | Unset | None = UNSET
    shift: float | Unset = UNSET
    scale: float | Unset = UNSET
    clip: tuple[float, float] | Unset | None = UNSET

    def __post_init__(self) -> None:
        """Check that preset and overrides make a spec."""
        self.spec  # noqa: B018 - MelSpec checks its own fields

    @cached_property
    def spec(self) -> MelSpec:
        """The preset with the overrides in place."""
        given = {field.name: getattr(self, field.name) for field in fields(MelSpec)}
        return replace(preset(self.preset), **{name: value for name, value in given.items() if value is not UNSET})


_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Extract(MelFields):
    """Turn waveforms into mel spectrograms.

    Waveforms of another rate are resampled to the spec's. Upsampling is allowed and adds nothing: bands above half the
    source's rate then hold next to no energy, or the floor. For the fields that name the spec see
    `melmill.stages.extract.MelFields`.

    Parameters
    ----------
    dtype : {"float32", "float16"}
        What is stored. float16 keeps 3 digits: enough to train on, not to judge an inversion by.
    """

    uses: ClassVar[str] = "extract"
    version: ClassVar[int] = 2
    inputs: ClassVar[Mapping[str, Input]] = {"from": Input(kinds=frozenset({Kind.WAVEFORM}))}

    preset: PresetName = "paper"
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
