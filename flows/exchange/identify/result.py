"""What is found out about a mel: the specs that may have made it, and how to use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melmill.stages.numeric.melspec import MelSpec
from melmill.stages.numeric.presets import preset

Verdict = Literal["fits", "close", "likely", "unknown", "no_mel"]
How = Literal["as it is", "affine", "per band", "other floor", "no log"]

_WHAT: Mapping[Verdict, str] = {
    "fits": "fits",
    "close": "none fits exactly; the closest are",
    "likely": "likely, from its values alone",
    "unknown": "none fits",
    "no_mel": "no mel",
}
# Differences of numbers that were fitted, and mean nothing.
_FITTED = 1e-6
# Gain that turns samples in [-1, 1] into 16-bit integers.
_INT16_DB = 20.0 * np.log10(32768.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """Say how one spec explains a mel.

    Parameters
    ----------
    presets : tuple of str
        Names of the spec. They are equal, so nothing tells them apart.
    spec : MelSpec
        The preset's spec with the framing, affine map and floor that were found. Where `how` is
        ``"per band"`` it is the preset's, and `band_scale` and `band_shift` say what was done after.
    how : str
        ``"as it is"``, ``"affine"`` (of all values), ``"per band"``, ``"other floor"`` or
        ``"no log"``.
    error : float or None
        Norm of what the spec leaves unexplained, relative to that of the mel. None without a
        recording.
    misfit : float or None
        The same relative to the mel less its mean. It is 1 where nothing is explained.
    confidence : float or None
        Probability that the mel is one of this spec, and none of the matches before. None with a
        recording.
    band_scale, band_shift : ndarray of float64, shape (n_mels,), or None
        ``M = band_scale * preset's mel + band_shift``.
    notes : tuple of str
        What else was found: frames, rate, level.
    """

    presets: tuple[str, ...]
    spec: MelSpec
    how: How = "as it is"
    error: float | None = None
    misfit: float | None = None
    confidence: float | None = None
    band_scale: NDArray[np.float64] | None = None
    band_shift: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The first of the presets."""
        return self.presets[0]

    def overrides(self) -> dict[str, Any]:
        """Return the fields in which the spec differs from its preset's, as plain values."""
        base, plain = preset(self.name), self.spec.as_dict()
        values = {each.name: (getattr(self.spec, each.name), getattr(base, each.name)) for each in fields(MelSpec)}
        return {
            name: _rounded(plain.get(name, value)) for name, (value, other) in values.items() if not _same(value, other)
        }

    def band_numbers(self) -> dict[str, Any]:
        """Return the fields of a spec that say a normalisation per band. Empty where none was found.

        A spec has no negative deviations: where a band is mirrored, it is empty too.
        """
        if self.band_scale is None or self.band_shift is None or not (self.band_scale > 0).all():
            return {}
        clip = {} if self.spec.clip is None else {"clip": None}
        mean, std = -self.band_shift / self.band_scale, 1.0 / self.band_scale
        return {**clip, "band_mean": _rounded(mean.tolist()), "band_std": _rounded(std.tolist())}

    def undone(self, M: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return a mel ``(n_mels, n_frames)`` without its normalisation per band: one of `spec`."""
        values = np.asarray(M, dtype=np.float64)
        if self.band_scale is not None and self.band_shift is not None:
            values = (values - self.band_shift[:, np.newaxis]) / self.band_scale[:, np.newaxis]
        return values.astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("band_scale", "band_shift"):
            plain[name] = None if plain[name] is None else [float(value) for value in plain[name]]
        return {
            **plain,
            "spec": self.spec.as_dict(),
            "presets": list(self.presets),
            "notes": list(self.notes),
            "overrides": self.overrides(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Identified:
    """Say what an array is, as far as it can be told.

    Parameters
    ----------
    verdict : {"fits", "close", "likely", "unknown", "no_mel"}
        ``"fits"``: the first match makes the mel of the recording, to rounding. ``"close"``: with
        the recording, none does, but some come close. ``"likely"``: without a recording, the first
        matches hold most of the probability. ``"unknown"``: a mel, perhaps, of no spec known here.
        ``"no_mel"``: `looks_like` says what it is.
    looks_like : str
        What the array looks like, or why none fits. Empty where the matches say it.
    matches : tuple of Match
        Best first.
    transposed : bool
        The array is ``(n_frames, n_mels)``.
    shape : tuple of int
        Shape of the array.
    """

    verdict: Verdict
    looks_like: str = ""
    matches: tuple[Match, ...] = ()
    transposed: bool = False
    shape: tuple[int, ...] = ()
    equals: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Match | None:
        """The first match; None where there is none."""
        return self.matches[0] if self.matches else None

    @property
    def fits(self) -> bool:
        """Tell whether the first match is proven by a recording."""
        return self.verdict == "fits"

    def fix_yaml(self) -> str:
        """Return the node of a pipeline that reads such mels, one line. Empty without a match."""
        if self.best is None:
            return ""
        said = {"preset": self.best.name, **self.best.overrides(), **self.best.band_numbers()}
        if self.transposed:
            said["layout"] = "frames_first"
        inside = ", ".join(f"{name}: {_as_yaml(value)}" for name, value in said.items())
        return f"mels: {{uses: mel_folder, root: FOLDER, {inside}}}"

    def fix_python(self) -> str:
        """Return the lines of Python that turn such a mel into a waveform. Empty without a match."""
        match = self.best
        if match is None:
            return ""
        spec = f"melmill.preset({match.name!r})"
        changed = ", ".join(f"{name}={_as_python(value)}" for name, value in match.overrides().items())
        if changed:
            spec = f"dataclasses.replace({spec}, {changed})"
        mel = "M.T" if self.transposed else "M"
        if match.band_scale is not None:
            mel = f"melmill.identify(M, y, sr).best.undone({mel})"
        return f"y_hat = melmill.invert({mel}, {spec})"

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "verdict": self.verdict,
            "looks_like": self.looks_like,
            "shape": list(self.shape),
            "transposed": self.transposed,
            "equals": list(self.equals),
            "matches": [match.as_dict() for match in self.matches],
            "fix": {"yaml": self.fix_yaml(), "python": self.fix_python()},
        }

    def lines(self) -> list[str]:
        """Return the answer for people: the verdict, the matches, and the fix."""
        what = _WHAT[self.verdict]
        if self.looks_like:
            what += f": {self.looks_like}"
        elif self.best is not None and self.fits:
            what += f" {self.best.name}{_share(self.best)}"
        lines = [what]
        equal = [name for name in self.equals if self.best is None or name != self.best.name]
        if equal:
            lines.append(f"  equal for this mel: {', '.join(equal)}")
        if self.transposed:
            lines.append("  its axes are (n_frames, n_mels)")
        if self.best is not None and self.verdict != "no_mel":
            lines += [f"  {note}" for note in self.best.notes]
            lines += [f"  {match.name:<36} {_share(match).strip(' ()')}, {match.how}" for match in self.matches]
        if self.verdict in ("fits", "close", "likely"):
            lines += [f"  YAML:   {self.fix_yaml()}", f"  Python: {self.fix_python()}"]
        return lines


def _share(match: Match) -> str:
    """Return the error or the confidence of a match, for people."""
    if match.error is not None:
        return f" (error {match.error:.2g})"
    return "" if match.confidence is None else f" (confidence {match.confidence:.2f})"


def with_affine(spec: MelSpec, scale: float, shift: float) -> MelSpec | None:
    """Return the spec of ``scale * mel + shift``; None where no spec says it, as where it mirrors."""
    if scale <= 0:
        return None
    clip = None if spec.clip is None else (scale * spec.clip[0] + shift, scale * spec.clip[1] + shift)
    return replace(spec, scale=spec.scale * scale, shift=spec.shift + shift / (scale * spec.scale), clip=clip)


def level_note(gain_db: float) -> str:
    """Return what a shift of a log means where it is a change of the recording's level."""
    if abs(gain_db - _INT16_DB) < 0.01:
        return "the samples were 16-bit integers, not divided by 32768"
    return f"or the recording was {abs(gain_db):.3g} dB {'louder' if gain_db > 0 else 'quieter'}"


def _same(value: object, other: object) -> bool:
    """Tell whether two values of a field are equal but for the rounding of a fit."""
    if isinstance(value, float) and isinstance(other, float):
        near_zero = _FITTED * (other == 0.0)
        return math.isclose(value, other, rel_tol=_FITTED, abs_tol=near_zero)
    return value == other


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    return [_rounded(part) for part in value] if isinstance(value, list | tuple) else value


def _as_yaml(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _as_python(value: object) -> str:
    return repr(tuple(value)) if isinstance(value, list) else repr(value)
