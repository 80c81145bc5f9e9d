"""A mel and the recording that it may have been made of: which specs explain it, and how."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melmill.flows.exchange.identify.candidates import Candidate, bands_of, candidates
from melmill.flows.exchange.identify.explaining import Setup, Trial, level_db, match_of
from melmill.flows.exchange.identify.fits import Fit, Values, best_form, better, fit, lag_of, of_floors, overlap
from melmill.flows.exchange.identify.looks import Plane
from melmill.flows.exchange.identify.result import Match
from melmill.pcm import as_float
from melmill.stages.ingest.decode import to_pcm
from melmill.stages.numeric.errors import EmptyBandWarning, StageError
from melmill.stages.numeric.mel import mel_spectrogram
from melmill.stages.numeric.melspec import Centering, MelSpec
from melmill.stages.numeric.resample import resample

# A mel may cover this much of its recording's frames: ends are trimmed, or padded.
_COVERS = (0.4, 1.15)
# Specs whose framing, floor and log are looked at more closely.
_FINALISTS = 6
_FRAMINGS: tuple[tuple[Centering, Literal["constant", "reflect"]], ...] = (
    (True, "reflect"),
    (True, "constant"),
    ("same", "reflect"),
    ("same", "constant"),
    (False, "constant"),
)
_TINY = 1e-12
# Misfits that are equal but for rounding.
_TIE, _SAME = 1.02, 2e-6
_REFRAMED, _SHIFTED = 3, 6
_MOST_GAIN_DB = 120.0
# Mels of a recording that are kept for the next that is compared with it.
_KEPT_BYTES = 1 << 28


@dataclass(kw_only=True, eq=False)
class Recording:
    """Hold a recording, and what was made of it, so that several mels are compared with it at once.

    Parameters
    ----------
    y : ndarray of float or int16, shape (n_samples,)
    sr : int
        Rate of `y`, Hz.
    """

    y: NDArray[np.floating | np.int16]
    sr: int
    _at: dict[int, NDArray[np.float32]] = field(default_factory=dict, init=False)
    _mels: dict[tuple[MelSpec, Setup], NDArray[np.float32] | None] = field(default_factory=dict, init=False)
    _kept_bytes: int = field(default=0, init=False)

    def at(self, sr: int) -> NDArray[np.floating | np.int16]:
        """Return the samples at a rate, Hz."""
        if sr == self.sr:
            return self.y
        if sr not in self._at:
            self._at[sr] = resample(self.y, self.sr, sr)
        return self._at[sr]

    def mel(self, spec: MelSpec, setup: Setup) -> Values | None:
        """Return its mel by a spec; None where the spec makes none of it."""
        if (spec, setup) in self._mels:
            made = self._mels[spec, setup]
        else:
            made = self._made(spec, setup)
            n_bytes = 0 if made is None else made.nbytes
            if setup.is_plain and self._kept_bytes + n_bytes <= _KEPT_BYTES:
                self._mels[spec, setup] = made
                self._kept_bytes += n_bytes
        return None if made is None else made.astype(np.float64)

    def _made(self, spec: MelSpec, setup: Setup) -> NDArray[np.float32] | None:
        y = self.y if setup.as_is else self.at(spec.sr)
        if setup.rounded:
            y = to_pcm(np.atleast_2d(self.y).T, self.sr, spec.sr).y
        if setup.gain_db:
            y = as_float(y) * np.float32(10.0 ** (setup.gain_db / 20.0))
        y = y[setup.skip :] if setup.skip >= 0 else np.concatenate([np.zeros(-setup.skip, dtype=y.dtype), y])
        try:
            return mel_spectrogram(np.ascontiguousarray(y), spec)
        except StageError:
            return None


def matched(plane: Plane, recording: Recording, top: int) -> tuple[list[Match], bool]:
    """Return the specs that explain a mel of a recording, best first, and whether the first fits.

    Parameters
    ----------
    plane : Plane
    recording : Recording
    top : int
        Matches to return, besides those that fit as well as the first.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyBandWarning)
        search = Search(plane=plane, recording=recording)
        trials = search.ranked()
    if not trials:
        return [], False
    fits = search.fits(trials[0])
    n_equal = sum(search.fits(trial) for trial in trials)
    return [match_of(trial, recording.sr) for trial in trials[: max(top, n_equal if fits else 1)]], fits


def equals(matches: list[Match]) -> tuple[str, ...]:
    """Return the presets that explain a mel as well as the first does, with the first's own."""
    if not matches:
        return ()
    most = max(_TIE * (matches[0].misfit or 0.0), _SAME)
    tied = [match for match in matches if match.how == matches[0].how and (match.misfit or 0.0) <= most]
    return tuple(name for match in tied for name in match.presets)


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """Search the specs that explain a mel of a recording."""

    plane: Plane
    recording: Recording

    @property
    def M(self) -> Values:
        """The mel, shape (n_mels, n_frames)."""
        return self.plane.M

    @cached_property
    def _as_logs(self) -> Values:
        """The mel, or its logs where it seems to have been left without: frames are found by logs."""
        highest = float(self.M.max())
        without = self.M.min() >= 0 and float(np.median(self.M)) < 0.1 * highest
        return np.log(np.maximum(self.M, 1e-5 * highest)) if without else self.M

    def fits(self, trial: Trial) -> bool:
        """Tell whether nothing but rounding is left."""
        return trial.fit.misfit <= self.plane.tolerance

    def ranked(self) -> list[Trial]:
        """Return what was tried, best first. Where nothing fits, the best are looked at more closely."""
        trials = sorted(self._own_framings(), key=self._order)
        if not trials or self.fits(trials[0]):
            return trials
        trials[:_FINALISTS] = [self._rounded(trial) for trial in trials[:_FINALISTS]]
        trials.sort(key=self._order)
        if self.fits(trials[0]):
            return trials
        trials[:_FINALISTS] = [self._other_log(trial) for trial in trials[:_FINALISTS]]
        trials.sort(key=self._order)
        if not self.fits(trials[0]):
            trials[:_REFRAMED] = [self._other_framing(trial) for trial in trials[:_REFRAMED]]
            trials.sort(key=self._order)
        # Between two frames a kindred preset may lie nearer than the true one.
        for i, trial in enumerate(trials[:_SHIFTED] if not self.fits(trials[0]) else []):
            trials[i] = self._off_grid(trial)
            if self.fits(trials[i]):
                break
        trials.sort(key=self._order)
        return trials

    def _order(self, trial: Trial) -> tuple[float, float]:
        """Of those that fit, the least changed comes first."""
        return (trial.n_changes, trial.fit.misfit) if self.fits(trial) else (10.0 + trial.rank[0], trial.rank[1])

    def _own_framings(self) -> Iterator[Trial]:
        """Try every candidate that has as many bands, by its own framing."""
        for candidate in candidates():
            if candidate.spec.n_mels != self.M.shape[0]:
                continue
            for as_is in (False, True) if candidate.spec.sr != self.recording.sr else (False,):
                trial = self._tried(candidate, candidate.spec, Setup(as_is=as_is))
                if trial is not None:
                    yield trial

    def _tried(self, candidate: Candidate, spec: MelSpec, setup: Setup) -> Trial | None:
        """Return how a spec explains the mel; None where it makes no such number of frames."""
        values = self.recording.mel(spec, setup)
        if values is None or not _COVERS[0] * values.shape[1] <= self.M.shape[1] <= _COVERS[1] * values.shape[1] + 2:
            return None
        lag = lag_of(self._as_logs if spec.log is not None else self.M, values)
        fit = self._form(*overlap(self.M, values, lag))
        if spec.log is None and spec.compression is None and spec.pcen is None:
            logs = np.log(np.maximum(values, _TINY))
            by_log = lag_of(self.M, logs)
            other = self._form(*overlap(self.M, logs, by_log))
            if other.misfit < fit.misfit:
                fit, lag = replace(other, how="other floor" if other.how != "per band" else other.how), by_log
        return Trial(candidate=candidate, spec=spec, setup=setup, lag=lag, fit=fit)

    def _form(self, M: Values, values: Values) -> Fit:
        return best_form(M, values, self.plane.tolerance)

    def _rounded(self, trial: Trial) -> Trial:
        """Return a trial on the resampled recording in 16 bits, which quiet bands tell from the exact one."""
        if trial.setup.as_is or trial.spec.sr == self.recording.sr:
            return trial
        other = self._tried(trial.candidate, trial.spec, replace(trial.setup, rounded=True))
        return trial if other is None or other.fit.misfit > 0.5 * trial.fit.misfit else other

    def _other_log(self, trial: Trial) -> Trial:
        """Return a trial with a floor of the mel's own, without a log, or at another level."""
        if self.fits(trial):
            return trial
        bands = self.recording.mel(bands_of(trial.spec), trial.setup)
        if bands is None:
            return trial
        ours, linear = overlap(self.M, bands, trial.lag)
        best = trial
        for form in of_floors(ours, np.log(np.maximum(linear, _TINY))):
            best = replace(best, fit=better(best.fit, form))
        if trial.spec.log is not None and self.M.min() >= 0:
            lag = lag_of(self.M, bands)  # that of logs is another's
            ours, linear = overlap(self.M, bands, lag)
            gain = float((ours * linear).sum() / max(1e-30, float((linear**2).sum())))
            form = fit("no log", ours, linear, np.array([gain]), np.zeros(1))
            best = replace(best, fit=form, lag=lag) if better(best.fit, form) is form else best
        return self._other_level(best)

    def _other_level(self, trial: Trial) -> Trial:
        """Return a trial on the recording at another level, if that explains the mel's own floor or shift."""
        gain_db = level_db(trial) if trial.fit.how in ("affine", "other floor") else None
        if gain_db is None or abs(gain_db) > _MOST_GAIN_DB:
            return trial
        other = self._tried(trial.candidate, trial.spec, replace(trial.setup, gain_db=gain_db))
        if other is None or other.fit.how != "as it is":
            return trial
        return other if self.fits(other) or other.fit.misfit <= trial.fit.misfit else trial

    def _other_framing(self, trial: Trial) -> Trial:
        """Return the best of a trial's framings. Another must be worth it, as noise decides at the ends."""
        best = trial
        for center, pad_mode in _FRAMINGS:
            if (center, pad_mode) == (trial.spec.center, trial.spec.pad_mode):
                continue
            spec = replace(trial.spec, center=center, pad_mode=pad_mode)
            other = self._tried(trial.candidate, spec, trial.setup)
            if other is not None and other.lag == 0:
                other = self._other_log(other)
                if other.fit.misfit < min(best.fit.misfit, 0.9 * trial.fit.misfit):
                    best = other
        return best

    def _off_grid(self, trial: Trial) -> Trial:
        """Return a trial that begins at another sample than a multiple of the hop, if that is better."""
        if trial.fit.how in ("other floor", "no log"):
            return trial
        hop, best = trial.spec.hop_length, trial
        step = hop // 2
        while step >= 1:
            skip = best.setup.skip
            near = [skip - step, skip + step] if step < hop // 4 else list(range(-hop // 2, hop // 2 + 1, step))
            for there in near:
                if there != skip and abs(there) < hop:
                    other = self._tried(trial.candidate, trial.spec, replace(trial.setup, skip=there))
                    if other is not None and other.fit.misfit < best.fit.misfit:
                        best = other
            step //= 2
        return best if best.fit.misfit < 0.8 * trial.fit.misfit else trial
