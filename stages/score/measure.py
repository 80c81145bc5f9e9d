"""From the name of a metric to its measurement of a pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from melmill.stages.score import pesq, spectral, stoi
from melmill.stages.score.pair import Pair
from melmill.stages.score.status import Measured, Status


def measure(name: str, pair: Pair, pesq_timeout_s: float) -> Measured:
    """Measure a pair; a pair that can't be measured gives a status, never an exception.

    Parameters
    ----------
    name : str
        A metric of `melmill.stages.score.registry.METRICS`.
    pair : Pair
    pesq_timeout_s : float
        Time to wait for PESQ, s, besides twice the duration of the signal.
    """
    if pair.status is not Status.OK:
        return Measured.failed(pair.status)
    if name in _PESQ_MODES:
        return _pesq(_PESQ_MODES[name], pair, pesq_timeout_s)
    if name in _INTELLIGIBILITY:
        if pair.lowest_sr < stoi.LOWEST_RATE:
            return Measured.failed(Status.UNSUPPORTED_RATE)
        return _INTELLIGIBILITY[name](pair.envelopes)
    if pair.n_frames == 0:
        return Measured.failed(Status.TOO_SHORT)
    return Measured.of(_SPECTRAL[name](pair))


_PESQ_MODES: Mapping[str, pesq.Mode] = MappingProxyType({"pesq_wb": "wb", "pesq_nb": "nb"})

_INTELLIGIBILITY: Mapping[str, Callable[[stoi.Envelopes | None], Measured]] = MappingProxyType(
    {"stoi": stoi.stoi, "estoi": stoi.estoi}
)


def _pesq(mode: pesq.Mode, pair: Pair, timeout_s: float) -> Measured:
    sr = pesq.RATES[mode]
    if pair.lowest_sr < sr:
        return Measured.failed(Status.UNSUPPORTED_RATE)
    reference, estimate = pair.at(sr)
    return pesq.pesq(reference, estimate, mode, limit_s=timeout_s + 2.0 * pair.duration_s)


def _scm_db(pair: Pair) -> float:
    reference, estimate = pair.mels
    return spectral.convergence_db(estimate, reference)


def _sc_db(pair: Pair) -> float:
    reference, estimate = pair.magnitudes
    return spectral.convergence_db(estimate, reference)


def _lsd_db(pair: Pair) -> float:
    reference, estimate = pair.magnitudes
    return spectral.log_spectral_distance_db(estimate, reference, pair.full_scale)


def _mel_mae(pair: Pair) -> float:
    reference, estimate = pair.log_mels
    return spectral.mel_mae(estimate, reference)


def _mcd_db(pair: Pair) -> float:
    reference, estimate = pair.log_mels
    return spectral.mel_cepstral_distortion_db(estimate, reference)


def _si_sdr_db(pair: Pair) -> float:
    reference, estimate = pair.waveforms
    return spectral.si_sdr_db(estimate, reference)


_SPECTRAL: Mapping[str, Callable[[Pair], float]] = MappingProxyType(
    {"scm": _scm_db, "sc": _sc_db, "lsd": _lsd_db, "mel_mae": _mel_mae, "mcd": _mcd_db, "si_sdr": _si_sdr_db}
)
