"""What was tried on a recording, as people are told of it: a spec, and what it takes besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from melmill.flows.exchange.identify.candidates import Candidate, bands_of
from melmill.flows.exchange.identify.fits import Fit
from melmill.flows.exchange.identify.result import How, Match, level_note, with_affine
from melmill.stages.numeric.melspec import MelSpec

# A form says more about a mel the fewer numbers of its own it needs.
_ORDER: dict[How, int] = {"as it is": 0, "affine": 1, "other floor": 2, "no log": 3, "per band": 4}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Say how a recording is taken.

    Parameters
    ----------
    as_is : bool
        The samples are taken as if they had the spec's rate.
    skip : int
        Samples before the first that is used; negative: zeros that are put before it.
    gain_db : float
        Level at which it is taken, dB.
    rounded : bool
        It is rounded to 16 bits after it was resampled, as pipelines store it.
    """

    as_is: bool = False
    skip: int = 0
    gain_db: float = 0.0
    rounded: bool = False

    @property
    def is_plain(self) -> bool:
        """Tell whether the recording is taken from its first sample, at its own level."""
        return self.skip == 0 and self.gain_db == 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """Hold a spec that was tried on a recording, and its best form.

    Parameters
    ----------
    candidate : Candidate
    spec : MelSpec
        The candidate's, perhaps with another framing.
    lag : int
        Frames of the spec's mel before the first of the mel that was given.
    setup : Setup
        How the recording was taken.
    fit : Fit
    """

    candidate: Candidate
    spec: MelSpec
    setup: Setup
    lag: int
    fit: Fit

    @property
    def n_changes(self) -> int:
        """How much was changed to explain the mel, from 0 for the preset as it is."""
        framed = (self.spec.center, self.spec.pad_mode) != (self.candidate.spec.center, self.candidate.spec.pad_mode)
        changed = (framed, self.setup.as_is, self.setup.skip != 0, self.setup.gain_db != 0)
        return _ORDER[self.fit.how] + sum(changed)

    @property
    def rank(self) -> tuple[float, int]:
        """Order of trials: by misfit, and by how much was changed."""
        return self.fit.misfit * (1.0 + 0.01 * self.n_changes), self.n_changes


def match_of(trial: Trial, sr: int) -> Match:
    """Return a trial as people are told of it."""
    fit, spec, notes = trial.fit, trial.spec, []
    band_scale = band_shift = None
    if fit.how == "affine":
        spec, more = _affine_spec(trial)
        notes += more
    elif fit.how == "other floor":
        spec, more = _floor_spec(trial)
        notes += more
    elif fit.how == "no log":
        spec = replace(bands_of(spec), scale=float(fit.scale[0]))
        notes.append("no log was taken")
    elif fit.how == "per band":
        band_scale, band_shift = fit.scale, fit.shift
        notes.append(
            "each band was normalised by numbers of its own, such as mean and variance: the YAML has those of this "
            "mel, which are those of others only if they come from one file of statistics"
        )
    notes += _framing_notes(trial, sr)
    return Match(
        presets=trial.candidate.names,
        spec=spec,
        how=fit.how,
        error=fit.error,
        misfit=fit.misfit,
        band_scale=band_scale,
        band_shift=band_shift,
        notes=tuple(notes),
    )


def _affine_spec(trial: Trial) -> tuple[MelSpec, list[str]]:
    scale, shift, spec = float(trial.fit.scale[0]), float(trial.fit.shift[0]), trial.spec
    made = with_affine(spec, scale, shift)
    if made is None:
        return spec, [f"the mel is mirrored: it is {scale:.6g} * mel + {shift:.6g}"]
    notes = [f"the mel is {scale:.6g} * (the preset's) {'+' if shift >= 0 else '-'} {abs(shift):.6g}"]
    notes += [f"that is log: {log}" for log in _log_of(spec, scale)]
    level = level_db(trial)
    if level is not None:
        notes.append(level_note(level))
    return made, notes


def _log_of(spec: MelSpec, scale: float) -> Iterator[str]:
    """Yield the log whose values are `scale` times those of a spec."""
    units = {"ln": 1.0, "log10": 1.0 / np.log(10.0), "db": 20.0 / spec.power / np.log(10.0)}
    if spec.log is not None and spec.scale == 1.0:
        for log, unit in units.items():
            if log != spec.log and abs(scale * units[spec.log] / unit - 1.0) < 1e-3:
                yield log


def _unit(spec: MelSpec) -> float:
    """Return the value of a spec's log for a factor of e."""
    return float({"ln": 1.0, "log10": 1.0 / np.log(10.0), "db": 20.0 / spec.power / np.log(10.0)}[spec.log or "ln"])


def level_db(trial: Trial) -> float | None:
    """Return the gain of the recording that explains a trial's shift, dB; None where none does."""
    spec, scale, shift = trial.spec, float(trial.fit.scale[0]), float(trial.fit.shift[0])
    if spec.log is None:
        return None
    nats = shift / (spec.scale * _unit(spec))
    if trial.fit.how == "other floor":
        scale, nats = scale / (spec.scale * _unit(spec)), shift / (spec.scale * _unit(spec)) - spec.shift / _unit(spec)
    if abs(scale - 1.0) > 2e-3:
        return None
    return float(nats * 20.0 / np.log(10.0) / spec.power)


def _floor_spec(trial: Trial) -> tuple[MelSpec, list[str]]:
    """Return the spec of ``max(scale * ln(bands) + shift, floor)``."""
    scale, shift, spec = float(trial.fit.scale[0]), float(trial.fit.shift[0]), trial.spec
    if scale <= 0:
        return spec, [f"the mel is mirrored: it is {scale:.6g} * ln(bands) + {shift:.6g}"]
    log, unit = spec.log or "ln", _unit(spec)
    lowest = trial.fit.floor
    floor = 1e-10 if lowest is None else float(np.exp((lowest - shift) / scale))
    made = replace(bands_of(spec), log=log, floor=max(floor, 1e-30), scale=scale / unit, shift=shift / scale * unit)
    notes = [f"the log's floor is {floor:.3g}" if lowest is not None else "no value is at a floor"]
    level = level_db(trial)
    if level is not None:
        notes.append(level_note(level))
    return made, notes


def _framing_notes(trial: Trial, sr: int) -> Iterator[str]:
    spec, base = trial.spec, trial.candidate.spec
    if (spec.center, spec.pad_mode) != (base.center, base.pad_mode):
        yield f"frames are padded otherwise than the preset's: center: {_yaml(spec.center)}, pad_mode: {spec.pad_mode}"
    if trial.setup.skip:
        hops = trial.setup.skip / spec.hop_length
        yield f"the recording begins {trial.setup.skip} samples ({hops:+.2f} hops) off the mel's first frame"
    if trial.setup.gain_db:
        yield level_note(trial.setup.gain_db).removeprefix("or ")
    if trial.lag > 0:
        yield f"the first {trial.lag} frames of the recording are missing"
    if trial.lag < 0:
        yield f"the mel has {-trial.lag} frames before the recording begins"
    if trial.setup.as_is:
        yield f"the recording's {sr} Hz were taken for {spec.sr} Hz: it was not resampled"
    elif spec.sr != sr:
        rounded = ", and rounded to 16 bits" if trial.setup.rounded else ""
        yield f"the recording was resampled from {sr} Hz to {spec.sr} Hz{rounded}"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
