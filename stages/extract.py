"""Stage `extract`: mel spectrograms of waveforms, by a preset and overrides of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.contract import UNSET, Input, Item, Kind, Mel, OneOf, Outcome, Product, Unset, Waveform, each
from melmill.stages.numeric.checks import check_choice
from melmill.stages.numeric.errors import ContractError, Unusable
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import Centering, MelSpec, Pcen
from melmill.stages.numeric.presets import preset, preset_names
from melmill.stages.numeric.resample import resample

PresetName = Annotated[str, OneOf(preset_names)]


@dataclass(frozen=True, kw_only=True)
class MelFields:
    """Say a mel spec as the fields of a stage: a preset, and what differs from it.

    Parameters
    ----------
    preset : str
        Name of the spec to start from, see `melmill.stages.numeric.presets`.
    sr, n_fft, win_length, hop_length, n_mels, fmin, fmax, htk, norm, power, log, floor, center
        Override the preset's, see `MelSpec`. A field that is left out keeps the preset's value.
        None is a value of its own: ``win_length: null`` is a window of `n_fft`.
    pad_mode, eps, normalized, compression, pcen, shift, scale, clip
        Likewise.

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
        """Check that the preset and the overrides make a spec."""
        self.spec  # noqa: B018 - MelSpec checks its own fields

    @cached_property
    def spec(self) -> MelSpec:
        """The preset with the overrides in place."""
        given = {field.name: getattr(self, field.name) for field in fields(MelSpec)}
        return replace(preset(self.preset), **{name: value for name, value in given.items() if value is not UNSET})


_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Extract(MelFields):
    """Make mel spectrograms of waveforms.

    Waveforms of another rate are resampled to the spec's. Upsampling adds nothing: bands above half
    the source's rate then hold next to no energy, or the floor. `melmill.stages.extract.MelFields`
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
