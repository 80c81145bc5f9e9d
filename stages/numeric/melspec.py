"""The mel contract: one immutable object says how a mel spectrogram was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from melmill.stages.numeric.checks import (
    MAX_N_FFT,
    MAX_N_MELS,
    MAX_SR,
    check_bool,
    check_choice,
    check_float,
    check_int,
    shown,
)
from melmill.stages.numeric.errors import ContractError, ParameterError
from melmill.stages.numeric.mels.steps import WaveStep

# Of what is computed in either; numpy's names.
Precision = Literal["float32", "float64"]

Centering = bool | Literal["same"]

Window = Literal["hann", "hann_symmetric"]
WINDOWS: tuple[Window, ...] = ("hann", "hann_symmetric")

# Which frames of the transform a mel has, and what is done with those of each utterance.
Frames = Literal["all", "floor", "round"]
PerUtterance = Literal["max", "mean", "mean_var"]

# Numbers of a band each: what a recipe keeps in a statistics file.
Bands = tuple[float, ...]

_MAX_MULTIPLE = 4096
_MAX_KEY_SHIFT = 48.0


@dataclass(frozen=True, kw_only=True)
class StftParams:
    """Parameters of a short-time Fourier transform with a Hann window.

    Parameters
    ----------
    n_fft, win_length, hop_length : int
        FFT size, window length (centred in the FFT frame) and hop, samples.
    center : bool or "same"
        True: pad ``n_fft // 2`` each side, for ``1 + n_samples // hop_length`` frames.
        ``"same"``: pad ``(n_fft - hop_length) // 2`` each side, for ``n_samples // hop_length``
        frames (HiFi-GAN). False: no padding, as librosa's ``center=False``.
    pad_mode : {"constant", "reflect"}
        What the padding holds: zeros or the reflected signal.
    window : {"hann", "hann_symmetric"}
        Periodic, or symmetric: 0 at both ends (``torch.hann_window(periodic=False)``).
    """

    n_fft: int
    win_length: int
    hop_length: int
    center: Centering = True
    pad_mode: Literal["constant", "reflect"] = "constant"
    window: Window = "hann"

    def __post_init__(self) -> None:
        """Check that the parameters fit together."""
        for name in ("n_fft", "win_length", "hop_length"):
            check_int(name, getattr(self, name), at_least=1, at_most=MAX_N_FFT)
        if self.win_length > self.n_fft:
            raise ParameterError(
                "win_length",
                f"must not exceed n_fft, got {self.win_length!r} > {self.n_fft!r} (null is a window of n_fft)",
            )
        if self.hop_length > self.win_length:
            raise ParameterError(
                "hop_length", f"must not exceed win_length, got {self.hop_length!r} > {self.win_length!r}"
            )
        if not isinstance(self.center, bool) and self.center != "same":
            raise ParameterError("center", f"must be true, false or 'same', got {self.center!r}")
        check_choice("pad_mode", self.pad_mode, ("constant", "reflect"))
        check_choice("window", self.window, WINDOWS)

    @property
    def n_bins(self) -> int:
        """Number of frequency bins, ``1 + n_fft // 2``."""
        return 1 + self.n_fft // 2

    @property
    def pad(self) -> int:
        """Samples of padding at each end."""
        if self.center == "same":
            return (self.n_fft - self.hop_length) // 2
        return self.n_fft // 2 if self.center else 0

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a signal of `n_samples`.

        >>> StftParams(n_fft=1024, win_length=1024, hop_length=256).n_frames(16000)
        63
        >>> StftParams(n_fft=1024, win_length=1024, hop_length=256, center="same").n_frames(16000)
        62
        """
        padded = n_samples + 2 * self.pad
        return max(0, 1 + (padded - self.n_fft) // self.hop_length)

    @property
    def centre(self) -> float:
        """Where the window of the first frame has its middle, samples. Later ones follow a hop apart.

        >>> StftParams(n_fft=1024, win_length=1024, hop_length=256, center="same").centre
        128.0
        """
        turns = self.win_length if self.window == "hann" else self.win_length - 1
        return (self.n_fft - self.win_length) // 2 + turns / 2 - self.pad


@dataclass(frozen=True, kw_only=True)
class Pcen:
    """Per-channel energy normalisation (Wang et al. 2017), parameters as in ``librosa.pcen``.

    Parameters
    ----------
    gain, bias, power : float
        Strength of the gain control, offset and exponent of the compression.
    time_constant_s : float
        Time constant of the smoother, s.
    eps : float
        Added to the smoothed energy.
    """

    gain: float = 0.98
    bias: float = 2.0
    power: float = 0.5
    time_constant_s: float = 0.4
    eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("gain", "bias", "power"):
            _check_pcen(name, getattr(self, name), at_least=0)
        for name in ("time_constant_s", "eps"):
            _check_pcen(name, getattr(self, name), above=0)


def _check_pcen(name: str, value: object, **bounds: float) -> None:
    """Blame the field `pcen` of a spec for one of its parameters."""
    try:
        check_float(name, value, **bounds)
    except ParameterError as error:
        raise ParameterError("pcen", str(error)) from error


@dataclass(frozen=True, kw_only=True)
class MelSpec:
    """Say how a mel spectrogram is made. Equal specs give interchangeable mels.

    The chain is: `wave` steps -> STFT, divided by the window's norm where `normalized`
    -> ``sqrt(max(re^2 + im^2, energy_floor) + eps)`` -> ``** power`` -> mel bank -> `band_gain`
    -> one of PCEN, ``** compression``, or the floor and `log` -> `below_max`
    -> ``(. + shift) * scale`` -> ``(. - band_mean) / band_std`` -> clip -> `last_frame`.

    Parameters
    ----------
    sr : int
        Sampling rate, Hz.
    n_fft, hop_length, center, pad_mode
        See `StftParams`.
    win_length : int or None
        Window length, samples. None becomes `n_fft` when the spec is made, as in librosa.
    n_mels : int
        Number of mel bands.
    fmin, fmax : float
        Band edges of the bank, Hz; `fmax` None is ``sr / 2``.
    htk : bool
        HTK mel scale instead of Slaney's.
    norm : {"slaney", None}
        Area-normalise the bank's triangles, or leave their peaks at 1.
    power : float
        Exponent of the magnitude before the bank: 1 magnitude, 2 power.
    log : {None, "ln", "log10", "db"}
        ``"db"`` is ``20 / power * log10``.
    floor : float or None
        Values below it are raised to it before the log; a log needs one.
    eps : float
        Added under the root of the magnitude (HiFi-GAN: 1e-9).
    normalized : bool
        Divide the STFT by the window's Euclidean norm (torchaudio's ``normalized=True``).
    compression : float or None
        Exponent of a power law after the bank; excludes `log` and `pcen`.
    pcen : Pcen or None
        Excludes `log` and `compression`.
    shift, scale : float
        Affine map of the result.
    clip : tuple of float or None
        Lowest and highest value of the result.
    wave : tuple of WaveStep
        Steps on the waveform before the transform, in order.
    window : {"hann", "hann_symmetric"}
        See `StftParams`.
    energy_floor : float
        Energies of bins below it are raised to it, before `eps` is added (ESPnet: 1e-10).
    bank_sr : int or None
        Rate that the bank was made for, where it isn't `sr`. Its `fmin` and `fmax` are Hz at that
        rate. (StyleTTS 2 has a bank for 16 kHz at 24 kHz.)
    band_gain : tuple of float or None
        Factor of each band before the log.
    floor_kind : {"max", "add"}
        ``log(max(x, floor))`` or ``log(x + floor)``.
    below_max : float or None
        Values more than this below the utterance's highest are raised to that, in the log's unit
        (Whisper: 8).
    per_utterance : {None, "max", "mean", "mean_var"}
        Divide the bands of an utterance by their highest value, before the log. Or subtract each
        band's mean after the log, and divide by its standard deviation (``n - 1``, plus 1e-5).
    band_mean, band_std : tuple of float or None
        Mean and standard deviation of each band: ``(x - band_mean) / band_std`` after `scale`.
    frames : {"all", "floor", "round"}
        Frames of the result: all, ``n_samples // hop_length``, or that rounded half up. Where one
        is lacking the last is repeated.
    last_frame : float or None
        Value that overwrites the last frame (NeMo).
    frame_multiple : int
        Frames of the value `last_frame` are added up to a multiple of this number.
    key_shift : float
        Semitones by which the sound is shifted, by a window of another length (openvpi).
    """

    sr: int = 16000
    n_fft: int = 1024
    win_length: int | None = None
    hop_length: int = 256
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = None
    htk: bool = False
    norm: Literal["slaney"] | None = "slaney"
    power: float = 1.0
    log: Literal["ln", "log10", "db"] | None = None
    floor: float | None = None
    center: Centering = True
    pad_mode: Literal["constant", "reflect"] = "constant"
    eps: float = 0.0
    normalized: bool = False
    compression: float | None = None
    pcen: Pcen | None = None
    shift: float = 0.0
    scale: float = 1.0
    clip: tuple[float, float] | None = None
    wave: tuple[WaveStep, ...] = ()
    window: Window = "hann"
    energy_floor: float = 0.0
    bank_sr: int | None = None
    band_gain: Bands | None = None
    floor_kind: Literal["max", "add"] = "max"
    below_max: float | None = None
    per_utterance: PerUtterance | None = None
    band_mean: Bands | None = None
    band_std: Bands | None = None
    frames: Frames = "all"
    last_frame: float | None = None
    frame_multiple: int = 1
    key_shift: float = 0.0

    def __post_init__(self) -> None:
        """Check every field and that they fit together."""
        if self.win_length is None:
            object.__setattr__(self, "win_length", self.n_fft)
        if self.bank_sr == self.sr:
            object.__setattr__(self, "bank_sr", None)
        for name in BAND_FIELDS:
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _bands(name, values))
        _check_types(self)
        _check_ranges(self)
        _check_compression(self)
        _check_steps(self)
        _check_bands(self)
        _check_frames(self)

    @cached_property
    def stft(self) -> StftParams:
        """The transform under the mel."""
        return StftParams(
            n_fft=self.n_fft,
            win_length=self.n_fft if self.win_length is None else self.win_length,
            hop_length=self.hop_length,
            center=self.center,
            pad_mode=self.pad_mode,
            window=self.window,
        )

    @property
    def bank_rate(self) -> int:
        """Rate that the bank is made for, Hz: `bank_sr` or `sr`."""
        return self.sr if self.bank_sr is None else self.bank_sr

    @property
    def top_hz(self) -> float:
        """Upper band edge, Hz: `fmax` or half the bank's rate."""
        return self.bank_rate / 2 if self.fmax is None else self.fmax

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of the mel of a signal of `n_samples` at `sr`.

        >>> MelSpec(frames="floor").n_frames(16000), MelSpec(frames="round").n_frames(16000)
        (62, 63)
        """
        n_frames = self.stft.n_frames(n_samples)
        if n_frames and self.frames != "all":
            rounded = (2 * n_samples + self.hop_length) // (2 * self.hop_length)
            n_frames = rounded if self.frames == "round" else min(n_frames, n_samples // self.hop_length)
        return -(-n_frames // self.frame_multiple) * self.frame_multiple

    def normalised(self, mean: ArrayLike | None = None, std: ArrayLike | None = None) -> MelSpec:
        """Return the spec whose result is ``(x - mean) / std`` in each band.

        Of a spec with `per_utterance`, the numbers of an utterance take its place: its mel can then
        be undone.

        Parameters
        ----------
        mean, std : array_like of float, shape (n_mels,), or None
            None: 0, and 1.

        Raises
        ------
        ParameterError
            They are no finite numbers, one for each band, or `std` is not positive.

        >>> MelSpec(n_mels=2).normalised(mean=[1, 2], std=[3, 4]).band_std
        (3.0, 4.0)
        """
        return replace(
            self,
            per_utterance=self.per_utterance if self.per_utterance == "max" else None,
            band_mean=None if mean is None else _bands("band_mean", mean),
            band_std=None if std is None else _bands("band_std", std),
        )

    def lost(self) -> tuple[str, ...]:
        """Return what of a recording can't be had back from its mel, beside phase and detail: a phrase each.

        >>> MelSpec(wave=(WaveStep(step="peak", value=0.5),), below_max=8.0, log="ln", floor=1e-5).lost()
        ('its level (peak 0.5)', 'what lies more than 8 below the highest value of the utterance')
        """
        phrases = {
            "mean": "its mean",
            "clamp": "samples beyond the clamp",
            "highpass": "what the high-pass took away",
            **dict.fromkeys(("peak", "rms", "loudness"), "its level"),
        }
        found = [f"{phrases[step.step]} ({step})" for step in self.wave if step.step in phrases]
        if self.below_max is not None:
            found.append(f"what lies more than {self.below_max:g} below the highest value of the utterance")
        if self.per_utterance == "max":
            found.append("the level of the utterance, which was divided by its highest value")
        if self.last_frame is not None:
            found.append(f"its last frame, which is {self.last_frame:g} throughout")
        return tuple(found)

    def check_invertible(self) -> None:
        """Raise ContractError if no mel of the spec can be undone; say why and what to do.

        >>> MelSpec(per_utterance="mean").check_invertible()
        Traceback (most recent call last):
        melmill.stages.numeric.errors.ContractError: a mel with per_utterance: mean can't be undone without the \
numbers of each utterance: take MelSpec.normalised(mean, std) with them, or extract again without it
        """
        if self.per_utterance in ("mean", "mean_var"):
            raise ContractError(
                f"a mel with per_utterance: {self.per_utterance} can't be undone without the numbers of each "
                "utterance: take MelSpec.normalised(mean, std) with them, or extract again without it"
            )
        if self.key_shift:
            raise ContractError(
                f"a mel with key_shift: {self.key_shift:g} can't be undone, as its frames are those of another "
                "transform: extract again with key_shift: 0"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for storing; `from_dict` undoes it.

        Equal specs give equal text: a whole number in a float's place becomes a float. Fields that
        the first version lacked are left out at their defaults, so that keys of old specs stay.
        """
        plain = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name in _FIRST or getattr(self, field.name) != field.default
        }
        for name in ("sr", "n_fft", "win_length", "hop_length", "n_mels", "bank_sr", "frame_multiple"):
            if name in plain:
                plain[name] = int(plain[name])
        for name in _FLOATS:
            if plain.get(name) is not None:
                plain[name] = float(plain[name])
        plain["pcen"] = None if self.pcen is None else {name: float(value) for name, value in vars(self.pcen).items()}
        plain["clip"] = None if self.clip is None else [float(bound) for bound in self.clip]
        for name in BAND_FIELDS:
            if name in plain:
                plain[name] = list(plain[name])
        if self.wave:
            plain["wave"] = [step.as_dict() for step in self.wave]
        return plain

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> MelSpec:
        """Make a spec of the fields that `as_dict` returned.

        >>> MelSpec.from_dict(MelSpec(log="ln", floor=1e-5).as_dict()) == MelSpec(log="ln", floor=1e-5)
        True
        """
        fields = dict(fields)
        if fields.get("pcen") is not None:
            fields["pcen"] = Pcen(**fields["pcen"])
        if fields.get("clip") is not None:
            fields["clip"] = tuple(fields["clip"])
        if fields.get("wave"):
            fields["wave"] = tuple(WaveStep(**step) for step in fields["wave"])
        return cls(**fields)


# What the first version of a spec had.
_FIRST = frozenset(
    (
        *("sr", "n_fft", "win_length", "hop_length", "n_mels", "fmin", "fmax", "htk", "norm", "power", "log"),
        *("floor", "center", "pad_mode", "eps", "normalized", "compression", "pcen", "shift", "scale", "clip"),
    )
)
_FLOATS = (
    *("fmin", "fmax", "power", "floor", "eps", "compression", "shift", "scale"),
    *("energy_floor", "below_max", "last_frame", "key_shift"),
)
BAND_FIELDS = ("band_gain", "band_mean", "band_std")


def _bands(name: str, values: ArrayLike) -> Bands:
    """Return numbers of bands as a tuple of floats."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(name, f"must be numbers, one for each band, got {shown(values)}") from error
    if array.ndim != 1:
        raise ParameterError(name, f"must have shape (n_mels,), got {array.shape!r}")
    return tuple(array.tolist())


def _check_types(spec: MelSpec) -> None:
    check_int("sr", spec.sr, at_least=1, at_most=MAX_SR)
    check_int("n_mels", spec.n_mels, at_most=MAX_N_MELS)
    for name in ("htk", "normalized"):
        check_bool(name, getattr(spec, name))
    for name in ("fmin", "fmax", "floor", "compression", "shift"):
        if getattr(spec, name) is not None:
            check_float(name, getattr(spec, name))
    for name in ("power", "scale"):
        check_float(name, getattr(spec, name), above=0)
    check_float("eps", spec.eps, at_least=0)
    if spec.norm is not None:
        check_choice("norm", spec.norm, ("slaney",))
    if spec.log is not None:
        check_choice("log", spec.log, ("ln", "log10", "db"))
    if not isinstance(spec.pcen, Pcen | None):
        raise ParameterError("pcen", f"must be a Pcen or None, got {spec.pcen!r}")
    check_choice("floor_kind", spec.floor_kind, ("max", "add"))
    check_float("energy_floor", spec.energy_floor, at_least=0)
    for name in ("below_max", "last_frame"):
        if getattr(spec, name) is not None:
            check_float(name, getattr(spec, name))


def _check_ranges(spec: MelSpec) -> None:
    if spec.bank_sr is not None:
        check_int("bank_sr", spec.bank_sr, at_least=1, at_most=MAX_SR)
    if not 1 <= spec.n_mels <= spec.stft.n_bins:
        raise ParameterError(
            "n_mels", f"must be between 1 and 1 + n_fft // 2 = {spec.stft.n_bins}, got {spec.n_mels!r}"
        )
    if not 0 <= spec.fmin < spec.top_hz:
        raise ParameterError("fmin", f"must be in [0, fmax = {spec.top_hz:g}) Hz, got {spec.fmin!r}")
    if spec.top_hz > spec.bank_rate / 2:
        raise ParameterError(
            "fmax",
            f"must not exceed {'sr' if spec.bank_sr is None else 'bank_sr'} / 2 = {spec.bank_rate / 2:g} Hz, "
            f"got {spec.fmax!r}: the bands above would be empty",
        )
    if spec.clip is not None:
        if not isinstance(spec.clip, tuple) or len(spec.clip) != 2:
            raise ParameterError("clip", f"must be (lowest, highest), got {spec.clip!r}")
        for bound in spec.clip:
            check_float("clip", bound)
        if not spec.clip[0] < spec.clip[1]:
            raise ParameterError("clip", f"must be [lowest, highest], got {list(spec.clip)!r}")


def _check_compression(spec: MelSpec) -> None:
    if spec.log is not None and not (spec.floor is not None and spec.floor > 0):
        raise ParameterError("floor", f"must be positive where a log is taken, got {spec.floor!r} (say 1.0e-5)")
    if spec.compression is not None:
        check_float("compression", spec.compression, above=0)
    chosen = [name for name in ("log", "compression", "pcen") if getattr(spec, name) is not None]
    if len(chosen) > 1:
        raise ParameterError(chosen[1], f"excludes {chosen[0]}: choose one compression")


def _check_steps(spec: MelSpec) -> None:
    """Check the steps on the waveform."""
    if not isinstance(spec.wave, tuple) or not all(isinstance(step, WaveStep) for step in spec.wave):
        raise ParameterError("wave", f"must be a tuple of WaveStep, got {shown(spec.wave)}")
    for step in spec.wave:
        if step.step == "highpass" and step.value is not None and step.value >= spec.sr / 2:
            raise ParameterError(
                "wave", f"a high-pass must lie below sr / 2 = {spec.sr / 2:g} Hz, got {step.value:g} Hz"
            )


def _check_bands(spec: MelSpec) -> None:
    """Check the numbers that each band has of its own."""
    for name in BAND_FIELDS:
        values: Sequence[float] | None = getattr(spec, name)
        if values is None:
            continue
        if len(values) != spec.n_mels:
            raise ParameterError(name, f"must have one number for each of {spec.n_mels} bands, got {len(values)}")
        for band, value in enumerate(values):
            try:
                check_float(name, value, above=None if name == "band_mean" else 0)
            except ParameterError as error:
                raise ParameterError(name, f"{error.args[1]} in band {band}") from error


def _check_frames(spec: MelSpec) -> None:
    """Check what is done with an utterance as a whole."""
    check_choice("frames", spec.frames, ("all", "floor", "round"))
    if spec.per_utterance is not None:
        check_choice("per_utterance", spec.per_utterance, ("max", "mean", "mean_var"))
    check_int("frame_multiple", spec.frame_multiple, at_least=1, at_most=_MAX_MULTIPLE)
    if spec.frame_multiple > 1 and spec.last_frame is None:
        raise ParameterError("frame_multiple", "needs last_frame, the value of the frames that it adds (say 0.0)")
    if spec.below_max is not None and spec.below_max <= 0:
        raise ParameterError("below_max", f"must be above 0, got {spec.below_max!r}")
    if spec.below_max is not None and spec.log is None:
        raise ParameterError("below_max", "needs a log, in whose unit it is")
    if spec.floor_kind == "add" and spec.log is None:
        raise ParameterError("floor_kind", "'add' needs a log: log(x + floor)")
    check_float("key_shift", spec.key_shift, at_least=-_MAX_KEY_SHIFT, at_most=_MAX_KEY_SHIFT)
    if spec.key_shift and spec.center is False:
        raise ParameterError("key_shift", "needs padding, with which frames stay where they are: center true or 'same'")
