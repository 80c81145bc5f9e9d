"""The mel contract: one immutable object says how a mel spectrogram was made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from melmill.stages.numeric.checks import (
    MAX_N_FFT,
    MAX_N_MELS,
    MAX_SR,
    check_bool,
    check_choice,
    check_float,
    check_int,
)
from melmill.stages.numeric.errors import ParameterError

# Of what is computed in either; numpy's names.
Precision = Literal["float32", "float64"]

Centering = bool | Literal["same"]


@dataclass(frozen=True, kw_only=True)
class StftParams:
    """Parameters of a short-time Fourier transform with a periodic Hann window.

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
    """

    n_fft: int
    win_length: int
    hop_length: int
    center: Centering = True
    pad_mode: Literal["constant", "reflect"] = "constant"

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

    The chain is: STFT, divided by the window's norm where `normalized`
    -> ``sqrt(re^2 + im^2 + eps)`` -> ``** power`` -> mel bank
    -> one of PCEN, ``** compression``, or ``max(floor)`` and `log`
    -> ``(. + shift) * scale`` -> clip.

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

    def __post_init__(self) -> None:
        """Check every field and that they fit together."""
        if self.win_length is None:
            object.__setattr__(self, "win_length", self.n_fft)
        _check_types(self)
        _check_ranges(self)
        _check_compression(self)

    @cached_property
    def stft(self) -> StftParams:
        """The transform under the mel."""
        return StftParams(
            n_fft=self.n_fft,
            win_length=self.n_fft if self.win_length is None else self.win_length,
            hop_length=self.hop_length,
            center=self.center,
            pad_mode=self.pad_mode,
        )

    @property
    def top_hz(self) -> float:
        """Upper band edge, Hz: `fmax` or half the sampling rate."""
        return self.sr / 2 if self.fmax is None else self.fmax

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a signal of `n_samples` at `sr`."""
        return self.stft.n_frames(n_samples)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for storing; `from_dict` undoes it.

        Equal specs give equal text: a whole number in a float's place becomes a float.
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("sr", "n_fft", "win_length", "hop_length", "n_mels"):
            fields[name] = int(fields[name])
        for name in ("fmin", "fmax", "power", "floor", "eps", "compression", "shift", "scale"):
            fields[name] = None if fields[name] is None else float(fields[name])
        fields["pcen"] = None if self.pcen is None else {name: float(value) for name, value in vars(self.pcen).items()}
        fields["clip"] = None if self.clip is None else [float(bound) for bound in self.clip]
        return fields

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
        return cls(**fields)


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


def _check_ranges(spec: MelSpec) -> None:
    if not 1 <= spec.n_mels <= spec.stft.n_bins:
        raise ParameterError(
            "n_mels", f"must be between 1 and 1 + n_fft // 2 = {spec.stft.n_bins}, got {spec.n_mels!r}"
        )
    if not 0 <= spec.fmin < spec.top_hz:
        raise ParameterError("fmin", f"must be in [0, fmax = {spec.top_hz:g}) Hz, got {spec.fmin!r}")
    if spec.top_hz > spec.sr / 2:
        raise ParameterError(
            "fmax",
            f"must not exceed sr / 2 = {spec.sr / 2:g} Hz, got {spec.fmax!r}: the bands above would be empty",
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
