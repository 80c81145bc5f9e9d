"""Fields of a stage that say a mel spec: a preset, and what differs from it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Annotated, Literal

from melmill.stages.contract import UNSET, OneOf, Unset
from melmill.stages.extract.reading import read_file
from melmill.stages.numeric.errors import ParameterError, Unusable
from melmill.stages.numeric.mels.steps import WaveStep
from melmill.stages.numeric.melspec import Centering, Frames, MelSpec, Pcen, PerUtterance, Window
from melmill.stages.numeric.presets import Preset, preset_names, preset_of

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
    wave, window, energy_floor, bank_sr, band_gain, floor_kind, below_max, per_utterance
        Likewise.
    band_mean, band_std, frames, last_frame, frame_multiple, key_shift
        Likewise.
    stats : str or None
        File of the mean and the standard deviation of each band, in place of `band_mean` and
        `band_std`: `melmill.stages.formats.statistics` says which files. Keys hold the numbers, not
        the name.

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
    wave: tuple[WaveStep, ...] | Unset = UNSET
    window: Window | Unset = UNSET
    energy_floor: float | Unset = UNSET
    bank_sr: int | Unset | None = UNSET
    band_gain: tuple[float, ...] | Unset | None = UNSET
    floor_kind: Literal["max", "add"] | Unset = UNSET
    below_max: float | Unset | None = UNSET
    per_utterance: PerUtterance | Unset | None = UNSET
    band_mean: tuple[float, ...] | Unset | None = UNSET
    band_std: tuple[float, ...] | Unset | None = UNSET
    frames: Frames | Unset = UNSET
    last_frame: float | Unset | None = UNSET
    frame_multiple: int | Unset = UNSET
    key_shift: float | Unset = UNSET
    stats: str | None = field(default=None, metadata={"place": True})

    def __post_init__(self) -> None:
        """Check that the preset and the overrides make a spec."""
        self.spec  # noqa: B018 - MelSpec checks its own fields

    @cached_property
    def spec(self) -> MelSpec:
        """The preset with the overrides in place, and with the numbers of `stats`.

        The file is read once, where the pipeline is read: a worker gets the numbers.
        """
        given = {one.name: getattr(self, one.name) for one in fields(MelSpec)}
        said = {name: value for name, value in given.items() if value is not UNSET}
        named = preset_of(self.preset)
        spec = replace(named.spec, **said)
        if self.stats is not None:
            for name in ("band_mean", "band_std"):
                if name in said:
                    raise ParameterError(name, "excludes stats, which says both: leave one out")
            spec = with_statistics(spec, self.stats)
        check_complete(named, spec)
        return spec


def check_complete(named: Preset, spec: MelSpec) -> None:
    """Raise ParameterError if a spec lacks numbers of bands that its preset can't do without.

    >>> from melmill.stages.numeric.presets import preset_of
    >>> check_complete(preset_of("coqui_stats"), preset_of("coqui_stats").spec)
    Traceback (most recent call last):
    melmill.stages.numeric.errors.ParameterError: stats is missing: the mels of 'coqui_stats' are normalised by \
numbers of each band, which its project keeps in a file. Name it, or give band_mean and band_std
    """
    if named.needs == "stats" and spec.band_mean is None and spec.band_std is None:
        raise ParameterError(
            "stats",
            f"is missing: the mels of {named.name!r} are normalised by numbers of each band, which its project keeps "
            "in a file. Name it, or give band_mean and band_std",
        )
    if named.needs == "band_gain" and spec.band_gain is None:
        raise ParameterError(
            "band_gain",
            f"is missing: the bands of {named.name!r} are multiplied by numbers that its project keeps in its code: "
            "give them",
        )


def with_statistics(spec: MelSpec, path: str) -> MelSpec:
    """Return a spec normalised by the numbers of a statistics file.

    Parameters
    ----------
    spec : MelSpec
    path : str
        Path or URL; `read_statistics` says which files.

    Raises
    ------
    ParameterError
        The file is missing, is none of these, or has other bands.
    """
    from melmill.stages.formats.statistics import read_statistics  # here, as specs without one need no reader

    try:
        mean, std = read_statistics(path.rpartition("/")[2], read_file(path))
    except FileNotFoundError as error:
        raise ParameterError("stats", f"must be a file that exists, got {path!r}") from error
    except Unusable as error:
        raise ParameterError("stats", f"{path}: {error}") from error
    try:
        return spec.normalised(mean, std)
    except ParameterError as error:
        raise ParameterError("stats", f"{path}: {error}") from error
