"""A mel spec as the fields of a stage: a preset, and what differs from it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal

from melmill.stages.dsp.melspec import Centering, MelSpec, Pcen
from melmill.stages.dsp.presets import preset
from melmill.stages.stage import UNSET, Unset


@dataclass(frozen=True, kw_only=True)
class MelFields:
    """Name a mel spec.

    Parameters
    ----------
    preset : str
        Name of the spec to start from, see `melmill.stages.dsp.presets`.
    sr, n_fft, win_length, hop_length, n_mels, fmin, fmax, htk, norm, power, log, floor, center, pad_mode, eps
        Override the preset's, as `normalized`, `compression`, `pcen`, `shift`, `scale` and `clip` do; see `MelSpec`.
        A field that is left out keeps the preset's value; None is a value of its own.

    Examples
    --------
    >>> MelFields(preset="hifigan", n_mels=100).spec.n_mels
    100
    """

    preset: str
    sr: int | Unset = UNSET
    n_fft: int | Unset = UNSET
    win_length: int | Unset = UNSET
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
